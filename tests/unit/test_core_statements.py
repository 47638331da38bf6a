"""Events that services state: their place, their state, and what is refused."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, build_definition, build_mapping, run_batch, run_with_crashes
from test_core_events import holdings, instance, item
from test_core_model import build_history, expected_events, random_transaction

from rowcast.annotation import STATED_PREFIX
from rowcast.errors import ContractViolationError
from rowcast.event import DomainEvent, decode
from stream_app.core.bucket import Spill
from stream_app.core.change import LooseMessage, Message, parse_change
from stream_app.core.emission import Emitted
from stream_app.core.form import StatedForm
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import Key
from stream_app.core.statement import StatementError, read_statement, refuse_loose
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, LargeTransaction

EVENTS = {"instance": ["merged"], "item": ["returned", "lost"]}
MAPPING = build_mapping(build_definition(events=EVENTS))


def said(aggregate: str = "instance", id_: Any = "i1", event: str = "merged", **data: Any) -> tuple[str, str, Any, Any]:
    return ("m", STATED_PREFIX, {"aggregate": aggregate, "id": id_, "event": event, "data": data}, None)


class Pipeline:
    """Commits transactions and keeps what was refused."""

    def __init__(self, mapping: SourceMapping = MAPPING) -> None:
        self.log, self.store, self.mapping, self.refused = ChangeLog(), MemoryStore(), mapping, []

    def commit(self, *changes: tuple[str, str, Any, Any]) -> list[DomainEvent]:
        """Commit one transaction and return its events."""
        start, emitted = len(self.log.values), Emitted()
        self.log.transaction(changes)
        records, view = run_batch(self.mapping, self.store, self.log.records(start), emitted=emitted)
        self.store.save(view)
        assert emitted.refused == len(emitted.refused_statements) + sum(
            1 for key in view.dirty if view.aggregates[key].refusal
        )
        self.refused += emitted.refused_statements
        return [decode(*record) for record in records]


def told(events: list[DomainEvent]) -> list[tuple[str, Any]]:
    return [(each.name, each.data if each.stated else (each.after or {}).get("title")) for each in events]


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


def test_a_stated_event_has_the_state_its_data_and_the_next_version(pipeline: Pipeline) -> None:
    """Of an aggregate that the transaction does not touch, nothing else goes out."""
    pipeline.commit(("c", "instance", None, instance(1)))
    (event,) = pipeline.commit(said(other="i2", n=[1, None]))

    assert (event.name, str(event.kind), event.stated) == ("merged", "updated", "merged")
    assert (event.version, event.data, event.before) == (2, {"other": "i2", "n": [1, None]}, {})
    assert event.after == {"id": "i1", "title": "t", "tags": []}
    assert (event.type, event.dataschema) == ("inventory.instance.merged.v1", "urn:test:merged")
    assert event.encode() == decode(*event.encode()).encode()
    (later,) = pipeline.commit(("u", "instance", None, instance(1, "new")))
    assert (later.version, later.before) == (3, {"title": "t"})


def test_it_stands_at_its_place_around_the_change(pipeline: Pipeline) -> None:
    """Before the first row with the former state, behind it with the new one; only the last record needs to be true."""
    pipeline.commit(("c", "instance", None, instance(1, "a")))
    events = pipeline.commit(
        said(n=1),
        ("u", "instance", None, instance(1, "b")),
        said(n=2),
        ("u", "instance", None, instance(1, "c")),
        said(n=3),
    )

    assert told(events) == [("merged", {"n": 1}), ("updated", "c"), ("merged", {"n": 2}), ("merged", {"n": 3})]
    assert [(each.after or {})["title"] for each in events] == ["a", "c", "c", "c"]
    assert [each.version for each in events] == [2, 3, 4, 5]


def test_behind_the_creation_and_before_the_end(pipeline: Pipeline) -> None:
    """Where the aggregate is not there, nothing can be stated with its state; `deleted` stays the last word."""
    created = pipeline.commit(said(n=1), ("c", "instance", None, instance(1)), said(n=2))
    deleted = pipeline.commit(said(n=3), ("d", "instance", {"id": "i1"}, None), said(n=4))

    assert [name for name, _ in told(created)] == ["created", "merged", "merged"]
    assert [name for name, _ in told(deleted)] == ["merged", "merged", "deleted"]
    assert [each.data for each in created[1:] + deleted[:2]] == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
    assert pipeline.refused == []


def test_what_exists_neither_before_nor_after_is_refused(pipeline: Pipeline) -> None:
    """It takes no version and blocks nothing."""
    assert pipeline.commit(said(n=1), ("c", "instance", None, instance(1)), ("d", "instance", {"id": "i1"}, None)) == []
    (refused,) = pipeline.refused
    assert (refused.aggregate, refused.id_text, refused.event, refused.order) == ("instance", "i1", "merged", 1)
    assert refused.reason == "there is no instance i1"
    assert json.loads(refused.record) == {"aggregate": "instance", "id": "i1", "event": "merged", "data": {"n": 1}}
    (created,) = pipeline.commit(("c", "instance", None, instance(1)))
    assert created.version == 1


def test_a_change_that_changes_nothing_is_no_event_beside_it(pipeline: Pipeline) -> None:
    """What was stated goes out alone."""
    pipeline.commit(("c", "instance", None, instance(1)))

    assert told(pipeline.commit(("u", "instance", None, instance(1, hidden="x")), said())) == [("merged", {})]


def test_of_a_descendant_that_moves_with_its_parent(pipeline: Pipeline) -> None:
    """Without rows of its own, what is stated stands behind the correction of its ancestors."""
    pipeline.commit(
        ("c", "instance", None, instance(1)), ("c", "holdings", None, holdings(1, 1)), ("c", "item", None, item(1, 1))
    )
    events = pipeline.commit(said("item", "x1", "lost"), ("u", "holdings", None, holdings(1, None)))

    assert [(each.identity.aggregate, each.name) for each in events] == [
        ("holdings", "updated"),
        ("item", "updated"),
        ("item", "lost"),
    ]
    assert events[-1].ancestors == {"holdings": ["h1"], "instance": []}


REFUSED = {
    "no JSON": (b"{", "not a JSON document"),
    "no text": (b"\xff", "not a JSON document"),
    "no object": ([], "is not a JSON object"),
    "nothing": ({}, "lacks aggregate, id, event, data"),
    "no data": ({"aggregate": "item", "id": "x1", "event": "lost"}, "lacks data"),
    "too much": ({"aggregate": "item", "id": "x1", "event": "lost", "data": {}, "at": 1}, "an unknown member 'at'"),
    "other type": ({"aggregate": "loan", "id": "1", "event": "lost", "data": {}}, "declared: holdings, instance, item"),
    "type as list": ({"aggregate": ["item"], "id": "1", "event": "lost", "data": {}}, "declares no aggregate"),
    "other event": ({"aggregate": "item", "id": "x1", "event": "found", "data": {}}, "declared: lost, returned"),
    "none declared": ({"aggregate": "holdings", "id": "h1", "event": "lost", "data": {}}, "declared: none"),
    "id null": ({"aggregate": "item", "id": None, "event": "lost", "data": {}}, "neither text nor a whole number"),
    "id of two": ({"aggregate": "item", "id": {"a": "1"}, "event": "lost", "data": {}}, "other members than id"),
    "id too long": ({"aggregate": "item", "id": "x" * 2001, "event": "lost", "data": {}}, "more than 2000 bytes"),
    "inexact": (b'{"aggregate": "item", "id": "x1", "event": "lost", "data": {"n": 1e-400}}', "more digits"),
    "no such": ({"aggregate": "item", "id": "x9\0", "event": "lost", "data": {}}, "there is no item x9%00"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_an_event_is_refused_by_name(pipeline: Pipeline, case: str) -> None:
    """The transaction's other events go out; PostgreSQL can keep every text of the refusal, and it is JSON."""
    content, reason = REFUSED[case]
    (event,) = pipeline.commit(("m", STATED_PREFIX, content, None), ("c", "instance", None, instance(1)))

    assert event.version == 1
    (refused,) = pipeline.refused
    assert reason in refused.reason
    assert (refused.lsn, refused.since) == (event.position, event.time)
    json.loads(refused.record)
    assert "\0" not in "".join(map(str, refused))


def test_data_that_breaks_its_contract_is_refused() -> None:
    """And a state that is refused cannot be told."""

    def refuse(value: Any) -> None:
        if value["data"].get("bad"):
            raise ContractViolationError("/data/bad: <value> is wrong")

    pipeline = Pipeline(build_mapping(build_definition(events=EVENTS)))
    mapping = pipeline.mapping.by_type["instance"]
    mapping.stated["merged"] = StatedForm(mapping.stated["merged"].form, refuse)  # type: ignore[index]
    pipeline.commit(("c", "instance", None, instance(1)))

    (event,) = pipeline.commit(said(bad=1), said(good=1))
    assert event.version == 2
    assert pipeline.commit(("u", "instance", None, instance(1, tags="[")), said(good=1)) == []
    assert [each.reason.partition(":")[0] for each in pipeline.refused] == [
        "/data/bad",
        "instance i1 itself was refused, so its state cannot be told",
    ]


def test_an_id_is_text_or_a_number_or_an_object() -> None:
    """Whole numbers have the text of their digits."""
    for id_, text in (("x,1", "x%2C1"), (7, "7"), ({"id": "x1"}, "x1"), (True, "true")):
        content = json.dumps({"aggregate": "item", "id": id_, "event": "lost", "data": None}).encode()
        assert read_statement(MAPPING, Message(STATED_PREFIX, content, 1, 5, 0)).key == Key("item", text)
    with pytest.raises(StatementError, match="neither text"):
        read_statement(
            MAPPING, Message(STATED_PREFIX, b'{"aggregate":"item","id":1.5,"event":"lost","data":1}', 1, 5, 0)
        )


def test_outside_a_transaction_it_is_refused() -> None:
    """Such a message has no place among the changes; of other prefixes it means nothing."""
    log = ChangeLog()
    log.transaction([("c", "instance", None, instance(1))])
    record = {
        "op": "m",
        "source": {"schema": "", "table": "", "lsn": 77, "ts_ms": 5},
        "transaction": None,
        "message": {"prefix": STATED_PREFIX, "content": base64.b64encode(b"{}").decode()},
    }
    log.append(record)
    placed = list(Assembler(0, []).feed(log.records()))

    assert placed[-1].unit == LooseMessage(b"{}", 77, 5000)
    assert placed[-1].next_offset == len(log.values)
    refused = refuse_loose(placed[-1].unit, "now")
    assert (refused.lsn, refused.order) == (77, 0)
    assert "needs true" in refused.reason
    record["message"]["prefix"] = "rowcast.context"  # type: ignore[index]
    assert not isinstance(parse_change(json.dumps(record).encode()), LooseMessage)


def test_before_the_first_snapshot_is_complete_it_is_refused(pipeline: Pipeline) -> None:
    """There is no published state yet that it could carry."""
    emitted = Emitted(unready=frozenset({"instance"}))
    pipeline.log.transaction([("c", "instance", None, instance(1)), said()])
    records, _view = run_batch(
        MAPPING, pipeline.store, pipeline.log.records(), reading=emitted.unready, emitted=emitted
    )

    assert records == []
    (refused,) = emitted.refused_statements
    assert refused.reason.startswith("no events of instance go out")


def test_where_events_follow_in_chunks_statements_wait(pipeline: Pipeline) -> None:
    """With their place among the rows."""
    emitted = Emitted()
    pipeline.log.transaction([said(n=1), ("c", "instance", None, instance(1)), said(n=2)])
    run_batch(MAPPING, pipeline.store, pipeline.log.records(), reading=frozenset(MAPPING.by_type), emitted=emitted)

    assert [(each.data, each.former) for each in emitted.statements] == [(b'{"n":1}', True), (b'{"n":2}', False)]


def test_large_transactions_hand_statements_over_and_keep_the_context() -> None:
    """However many messages follow, the writer's context counts."""
    log = ChangeLog()
    changes = [("m", "rowcast.context", {"actor": "ann"}, None), *(said(n=each) for each in range(9))]
    log.transaction([*changes, ("c", "instance", None, instance(1))])
    units = [each.unit for each in Assembler(0, [], changes_max=4).feed(log.records())]

    *spills, large = units
    assert isinstance(large, LargeTransaction)
    assert [each.prefix for each in large.messages] == ["rowcast.context"]
    handed = [each for spill in (*spills, large.rest) if isinstance(spill, Spill) for each in spill.statements]
    assert [each.order for each in handed] == list(range(2, 11))


@pytest.mark.parametrize("seed", range(20))
def test_with_crashes_each_is_said_once_and_no_byte_changes(seed: int) -> None:
    """Random transactions with random statements: the same topics however often a batch is repeated."""
    log = random_log(seed)
    whole = run_with_crashes(MAPPING, log, seed)

    assert run_with_crashes(MAPPING, log, seed + 1000, 0.4) == whole
    events = [decode(*record) for record in whole]
    numbers = Counter(each.data["n"] for each in events if each.data)
    assert set(numbers.values()) == {1}
    last: dict[Any, int] = {}
    for each in events:
        assert each.version == last.get(each.identity, 0) + 1
        last[each.identity] = each.version
    _plain, history = build_history(seed)
    changes = expected_events(history)
    got = [(e.identity.aggregate, e.identity.id_text, e.position, str(e.kind), e.after) for e in events if not e.stated]
    assert [(*each[:2], *each[3:]) for each in got] == [(*each[:2], *each[3:]) for each in changes]


def random_log(seed: int) -> ChangeLog:
    """The history of the model's test with statements in between."""
    rng, log, rows = random.Random(seed), ChangeLog(), {}
    other, number = random.Random(-seed), 0
    for _ in range(30):
        changes = random_transaction(rng, rows)
        for _ in range(other.randrange(4)):
            number += 1
            aggregate = other.choice(["instance", "item"])
            id_ = f"{'i' if aggregate == 'instance' else 'x'}{other.randrange(4)}"
            changes.insert(other.randint(0, len(changes)), said(aggregate, id_, EVENTS[aggregate][0], n=number))
        log.transaction(changes)
    return log


def test_what_another_mapping_has_said_is_not_said_again(pipeline: Pipeline) -> None:
    """A crash between publish and commit, and another mapping before the repetition: the versions that stand count."""
    pipeline.log.transaction([("c", "instance", None, instance(1)), said(n=1), said(n=1), said(n=2)])
    first, _ = run_batch(MAPPING, pipeline.store, pipeline.log.records())
    fields = {"instance": ("id", "title"), "holdings": ("id",), "item": ("id",)}
    other = build_mapping(build_definition(fields, EVENTS))
    records, _ = run_batch(other, MemoryStore(), pipeline.log.records(), Tail(first))

    assert [decode(*each).name for each in first] == ["created", "merged", "merged", "merged"]
    assert [(event.name, event.version) for event in (decode(*each) for each in records)] == [("updated", 5)]
