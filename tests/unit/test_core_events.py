"""What events the core makes of transactions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from changelog import ChangeLog, MemoryStore, build_mapping, run_batch

from rowcast.errors import ContractViolationError, StopError
from rowcast.event import DomainEvent, EventKind, decode
from stream_app.core import loading
from stream_app.core.column import PLACEHOLDER
from stream_app.core.emission import Emitted, Origin
from stream_app.core.loading import LargeFanOutError
from stream_app.core.mapping import compile_mapping
from stream_app.core.sequencing import emit_pending
from stream_app.core.state import Key, View
from stream_app.core.tail import Tail


def instance(number: int, title: str = "t", tags: Any = "[]", hidden: str = "s") -> dict[str, Any]:
    return {"id": f"i{number}", "title": title, "tags": tags, "secret": hidden}


def holdings(number: int, parent: int | None, place: str = "p") -> dict[str, Any]:
    return {"id": f"h{number}", "instance_id": None if parent is None else f"i{parent}", "place": place}


def item(number: int, parent: int, status: str = "in", price: str | None = None) -> dict[str, Any]:
    return {"id": f"x{number}", "holdings_id": f"h{parent}", "status": status, "price": price}


class Pipeline:
    """A change log, a store, and the events that came out so far."""

    def __init__(self) -> None:
        self.log, self.store, self.mapping = ChangeLog(), MemoryStore(), build_mapping()

    def commit(self, *changes: tuple[str, str, Any, Any], messages: Any = ()) -> list[DomainEvent]:
        """Commit one transaction and return its events."""
        start = len(self.log.values)
        self.log.transaction(changes, messages)
        records, view = run_batch(self.mapping, self.store, self.log.records(start))
        self.store.save(view)
        return [decode(*record) for record in records]


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


def test_insert_update_delete_give_versions_one_two_three(pipeline: Pipeline) -> None:
    """Created, updated and deleted carry dense versions, the whole entity, and what changed."""
    (created,) = pipeline.commit(("c", "instance", None, instance(1, tags='{"a": [1]}')))
    (updated,) = pipeline.commit(("u", "instance", None, instance(1, title="new", tags='{"a": [1]}')))
    (deleted,) = pipeline.commit(("d", "instance", {"id": "i1", "title": "", "tags": "", "secret": ""}, None))

    assert [each.version for each in (created, updated, deleted)] == [1, 2, 3]
    assert [each.kind for each in (created, updated, deleted)] == ["created", "updated", "deleted"]
    assert created.after == {"id": "i1", "title": "t", "tags": {"a": [1]}}
    assert created.before is None
    assert updated.before == {"title": "t"}
    assert deleted.after is None
    assert deleted.before == {"id": "i1", "title": "new", "tags": {"a": [1]}}


def test_a_change_of_an_unpublished_column_alone_makes_no_event(pipeline: Pipeline) -> None:
    """Columns outside the contract neither travel nor cause events."""
    pipeline.commit(("c", "instance", None, instance(1)))

    assert pipeline.commit(("u", "instance", None, instance(1, hidden="other"))) == []
    assert "secret" not in pipeline.store.rows[Key("instance", "i1")]


def test_one_event_for_each_aggregate_of_a_transaction(pipeline: Pipeline) -> None:
    """Several changes of one row in one transaction make one event with the net effect."""
    events = pipeline.commit(
        ("c", "instance", None, instance(1)),
        ("u", "instance", None, instance(1, title="b")),
        ("c", "instance", None, instance(2)),
        ("d", "instance", instance(2), None),
    )

    assert [(each.id, each.kind, each.after and each.after["title"]) for each in events] == [
        ("instance:i1:1", "created", "b")
    ]


def test_delete_and_insert_of_the_same_id_is_one_update(pipeline: Pipeline) -> None:
    """A row that is replaced inside a transaction is updated, and one that comes back later goes on counting."""
    pipeline.commit(("c", "instance", None, instance(1)))
    (updated,) = pipeline.commit(("d", "instance", instance(1), None), ("c", "instance", None, instance(1, "z")))
    pipeline.commit(("d", "instance", instance(1), None))
    (back,) = pipeline.commit(("c", "instance", None, instance(1)))

    assert (updated.kind, updated.version) == (EventKind.UPDATED, 2)
    assert (back.kind, back.version) == (EventKind.CREATED, 4)


def test_what_comes_to_nothing_in_a_transaction_makes_no_event(pipeline: Pipeline) -> None:
    """Insert and delete, there and back again, delete and the same insert; and no version is used up."""
    gone = ("c", "instance", None, instance(2)), ("d", "instance", instance(2), None)
    assert pipeline.commit(*gone) == []
    pipeline.commit(("c", "instance", None, instance(1)))
    back = ("u", "instance", None, instance(1, "z")), ("u", "instance", None, instance(1))
    assert pipeline.commit(*back) == []
    assert pipeline.commit(("d", "instance", instance(1), None), ("c", "instance", None, instance(1))) == []
    again = ("d", "instance", instance(1), None), ("c", "instance", None, instance(1, "y")), *gone
    assert [(each.kind, each.version) for each in pipeline.commit(*again)] == [(EventKind.UPDATED, 2)]


def test_ancestors_are_known_whatever_the_order_inside_the_transaction(pipeline: Pipeline) -> None:
    """Children written before their parents still carry all their ancestors, and parents go out first."""
    events = pipeline.commit(
        ("c", "item", None, item(1, 1)),
        ("c", "holdings", None, holdings(1, 1)),
        ("c", "instance", None, instance(1)),
    )

    assert [each.identity.aggregate for each in events] == ["instance", "holdings", "item"]
    assert events[2].ancestors == {"holdings": ["h1"], "instance": ["i1"]}
    assert events[0].ancestors == {}


def test_a_missing_parent_is_null_and_completed_when_it_arrives(pipeline: Pipeline) -> None:
    """An unknown ancestor is null; a further event brings it, with the former ones in before."""
    (first,) = pipeline.commit(("c", "item", None, item(1, 1)))
    events = pipeline.commit(("c", "instance", None, instance(1)), ("c", "holdings", None, holdings(1, 1)))

    assert first.ancestors == {"holdings": None, "instance": None}
    completed = events[-1]
    assert completed.id == "item:x1:2"
    assert completed.ancestors == {"holdings": ["h1"], "instance": ["i1"]}
    assert completed.before == {"ancestors": {"holdings": None, "instance": None}}


def test_a_row_without_parent_has_no_ancestors(pipeline: Pipeline) -> None:
    """A NULL parent column is an empty list, not an unknown."""
    (event,) = pipeline.commit(("c", "holdings", None, holdings(1, None)))

    assert event.ancestors == {"instance": []}


def test_a_moving_parent_corrects_its_descendants_in_the_same_transaction(pipeline: Pipeline) -> None:
    """Items follow their holdings to another instance although their own rows did not change."""
    pipeline.commit(
        ("c", "instance", None, instance(1)),
        ("c", "instance", None, instance(2)),
        ("c", "holdings", None, holdings(1, 1)),
        ("c", "item", None, item(2, 1)),
        ("c", "item", None, item(1, 1)),
    )
    events = pipeline.commit(("u", "holdings", None, holdings(1, 2)))

    assert [each.id for each in events] == ["holdings:h1:2", "item:x1:2", "item:x2:2"]
    assert events[1].ancestors == {"holdings": ["h1"], "instance": ["i2"]}
    assert events[1].before == {"ancestors": {"holdings": ["h1"], "instance": ["i1"]}}
    assert len({each.position for each in events}) == 1


def test_an_unchanged_toast_column_keeps_its_known_value(pipeline: Pipeline) -> None:
    """The placeholder of a column that is not in the WAL never reaches an event."""
    pipeline.commit(("c", "instance", None, instance(1, tags='["long"]')))
    (event,) = pipeline.commit(("u", "instance", None, instance(1, title="n", tags=PLACEHOLDER)))

    assert event.after == {"id": "i1", "title": "n", "tags": ["long"]}
    assert event.before == {"title": "t"}


def test_an_unknown_toast_column_refuses_the_aggregate_and_others_go_on(pipeline: Pipeline) -> None:
    """No version is taken by a refusal, and the next valid change closes it."""
    events = pipeline.commit(
        ("u", "instance", None, instance(1, tags=PLACEHOLDER)), ("c", "instance", None, instance(2))
    )
    refusal = pipeline.store.aggregates[Key("instance", "i1")].refusal
    (closing,) = pipeline.commit(("u", "instance", None, instance(1)))

    assert [each.id for each in events] == ["instance:i2:1"]
    assert refusal is not None
    assert "tags" in refusal.reason
    assert closing.version == 1
    assert pipeline.store.aggregates[Key("instance", "i1")].refusal is None


def test_what_the_contract_rejects_is_refused() -> None:
    """A value that the validator rejects is a refused event, not a stopped source."""

    def reject(value: Any) -> None:
        if value["after"] and value["after"]["title"] == "bad":
            raise ContractViolationError("/after/title: no")

    pipeline = Pipeline()
    definition = pipeline.mapping.definition
    pipeline.mapping = compile_mapping(
        definition,
        {each.name: reject for each in definition.aggregates[:1]}
        | {each.name: (lambda value: None) for each in definition.aggregates[1:]},
    )
    pipeline.commit(("c", "instance", None, instance(1)))
    refused = pipeline.commit(("u", "instance", None, instance(1, title="bad")))
    (closing,) = pipeline.commit(("u", "instance", None, instance(1, title="good")))

    assert refused == []
    assert (closing.version, closing.before) == (2, {"title": "t"})


def test_context_travels_with_every_event_of_its_transaction(pipeline: Pipeline) -> None:
    """Actor, reason and traceparent come from the writer's message; anything else in it is dropped."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message = ("rowcast.context", {"actor": "ann", "reason": "move", "traceparent": parent, "x": 1})
    events = pipeline.commit(
        ("c", "instance", None, instance(1)), ("c", "instance", None, instance(2)), messages=[message]
    )
    (broken,) = pipeline.commit(("c", "instance", None, instance(3)), messages=[("rowcast.context", b"\xff")])

    assert [each.context for each in events] == [{"actor": "ann", "reason": "move"}] * 2
    assert [each.traceparent for each in events] == [parent] * 2
    assert broken.context == {"error": "the context message is not a JSON object"}
    (long,) = pipeline.commit(
        ("c", "instance", None, instance(4)), messages=[message, ("rowcast.context", {"actor": "x" * 10_000})]
    )
    assert long.context == {"error": "the context message has more than 10000 bytes"}
    assert long.traceparent is None


def test_numbers_that_python_takes_for_equal_are_different_json(pipeline: Pipeline) -> None:
    """1 and true and 1.0 are different values of a document."""
    pipeline.commit(("c", "instance", None, instance(1, tags="1")))
    (event,) = pipeline.commit(("u", "instance", None, instance(1, tags="true")))

    assert event.before == {"tags": 1}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("c", "elsewhere", None, {"id": "1"}), "TABLE_NOT_DECLARED"),
        (("c", "instance", None, {"title": "x"}), "ROW_WITHOUT_ID"),
        (("c", "instance", None, {**instance(1), "id": "é" * 400}), "ROW_WITHOUT_ID"),
    ],
)
def test_a_row_that_cannot_be_placed_stops_the_source(pipeline: Pipeline, change: Any, code: str) -> None:
    """What belongs to no aggregate cannot be refused alone, so nothing of the batch goes out."""
    with pytest.raises(StopError) as caught:
        pipeline.commit(change)

    assert caught.value.code == code


def test_a_repeated_batch_is_byte_identical_and_not_published_again(pipeline: Pipeline) -> None:
    """After a crash between publish and commit the tail holds every event, so nothing goes out twice."""
    start = len(pipeline.log.values)
    for number in range(3):
        pipeline.log.transaction([("c", "instance", None, instance(number)), ("c", "item", None, item(number, 1))])
    lost, _ = run_batch(pipeline.mapping, MemoryStore(), pipeline.log.records(start))
    repeated, view = run_batch(pipeline.mapping, pipeline.store, pipeline.log.records(start), Tail(lost))

    assert len(lost) == 6
    assert repeated == []
    assert view.aggregates[Key("instance", "i2")].version == 1


def test_another_mapping_numbers_on_above_what_was_published(pipeline: Pipeline) -> None:
    """No version is ever issued twice with different bytes."""
    pipeline.log.transaction([("c", "instance", None, instance(1))])
    pipeline.log.transaction([("u", "instance", None, instance(1, title="n"))])
    lost, _ = run_batch(pipeline.mapping, MemoryStore(), pipeline.log.records())
    fields = {"instance": ("id", "title"), "holdings": ("id",), "item": ("id",)}
    from changelog import build_definition

    other = build_mapping(build_definition(fields))
    repeated, view = run_batch(other, pipeline.store, pipeline.log.records(), Tail(lost))

    events = [decode(*record) for record in repeated]
    assert [each.version for each in events] == [3, 4]
    assert events[-1].after == {"id": "i1", "title": "n"}
    assert view.aggregates[Key("instance", "i1")].version == 4


def test_a_published_version_that_nothing_repeats_is_taken_over(pipeline: Pipeline) -> None:
    """A later transaction settles leftovers of the tail before its own events."""
    pipeline.log.transaction([("c", "instance", None, instance(1))])
    lost, _ = run_batch(pipeline.mapping, MemoryStore(), pipeline.log.records())
    start = len(pipeline.log.values)
    pipeline.log.transaction([("c", "instance", None, instance(2))])
    records, view = run_batch(pipeline.mapping, pipeline.store, pipeline.log.records(start), Tail(lost))

    assert [decode(*record).id for record in records] == ["instance:i1:2", "instance:i2:1"]
    assert decode(*records[0]).kind is EventKind.DELETED
    assert view.aggregates[Key("instance", "i1")].published is None


def test_what_is_sent_again_takes_a_version_although_nothing_changed(pipeline: Pipeline) -> None:
    """As a snapshot; when it was published and not committed, the repetition issues no second one."""
    (created,) = pipeline.commit(("c", "instance", None, instance(1)))
    origin = Origin(900, "2026-01-01T00:00:00.000000Z", snapshot=True, resend=True)
    assert Origin(**origin.to_dict()).resend

    def send(tail: Tail) -> tuple[Emitted, View]:
        view, emitted = View(), Emitted()
        keys = [Key("instance", "i1"), Key("instance", "i2")]
        for lookup in emit_pending(pipeline.mapping, view, keys, origin, (emitted, tail)):
            pipeline.store.load(lookup, view)
        return emitted, view

    first, _ = send(Tail())
    (again,) = [decode(*record) for record in first.records]
    assert (again.kind, again.version, again.after, again.before) == ("snapshot", 2, created.after, {})

    repeated, view = send(Tail(first.records))
    assert (repeated.records, repeated.repeated) == ([], 1)
    assert view.aggregates[Key("instance", "i1")].version == 2


def test_event_bytes_are_canonical(pipeline: Pipeline) -> None:
    """Keys of the value are sorted, so that the order of columns never shows."""
    pipeline.log.transaction([("c", "instance", None, dict(reversed(instance(1).items())))])
    ((_, key, value, headers),), _ = run_batch(pipeline.mapping, pipeline.store, pipeline.log.records())

    assert key == b"i1"
    assert value == orjson.dumps(orjson.loads(value), option=orjson.OPT_SORT_KEYS)
    assert dict(headers)["ce_sequence"] == b"00000000000000000001"
    assert dict(headers)["ce_time"] == b"1970-01-01T00:00:00.701000Z"


def test_a_changed_primary_key_keeps_what_the_wal_left_out(pipeline: Pipeline) -> None:
    """It arrives as delete and insert; TOAST values that were not touched are those of the former row."""
    pipeline.commit(("c", "instance", None, instance(1, tags='["long"]')), ("c", "instance", None, instance(5)))
    gone, began = pipeline.commit(
        ("d", "instance", instance(1), None),
        ("c", "instance", None, instance(2, tags=PLACEHOLDER)),
    )
    assert (gone.kind, gone.identity.id_text, began.kind, began.identity.id_text) == ("deleted", "i1", "created", "i2")
    assert began.after == {"id": "i2", "title": "t", "tags": ["long"]}

    (exchanged,) = pipeline.commit(
        ("d", "instance", instance(2), None),
        ("c", "instance", None, instance(3, tags=PLACEHOLDER)),
        ("d", "instance", instance(3), None),
        ("c", "instance", None, instance(2, title="back", tags=PLACEHOLDER)),
    )
    assert exchanged.kind == "updated"
    assert exchanged.after == {"id": "i2", "title": "back", "tags": ["long"]}


def test_values_of_another_row_are_never_taken_for_those_that_the_wal_left_out(pipeline: Pipeline) -> None:
    """A delete that something else follows says nothing about a later insert: it is refused, not guessed."""
    pipeline.commit(("c", "instance", None, instance(1, tags='["long"]')))
    start = len(pipeline.log.values)
    pipeline.log.transaction(
        [
            ("d", "instance", instance(1), None),
            ("c", "holdings", None, holdings(1, 1)),
            ("c", "instance", None, instance(2, tags=PLACEHOLDER)),
        ]
    )
    records, view = run_batch(pipeline.mapping, pipeline.store, pipeline.log.records(start))
    assert {decode(*record).identity.id_text for record in records} == {"i1", "h1"}
    assert view.state(Key("instance", "i2")).refusal is not None


def test_more_descendants_than_fit_into_memory_are_left_to_the_shell(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core says so before anything is folded, and folds alone when the events follow in chunks."""
    monkeypatch.setattr(loading, "DESCENDANTS_MAX", 3)
    pipeline.commit(("c", "instance", None, instance(1)), ("c", "instance", None, instance(2)))
    pipeline.commit(("c", "holdings", None, holdings(1, 1)), *(("c", "item", None, item(n, 1)) for n in range(3)))
    assert len(pipeline.commit(("u", "holdings", None, holdings(1, 2)))) == 4
    pipeline.commit(("c", "item", None, item(3, 1)))

    start = len(pipeline.log.values)
    pipeline.log.transaction([("u", "holdings", None, holdings(1, 1))])
    with pytest.raises(LargeFanOutError):
        run_batch(pipeline.mapping, pipeline.store, pipeline.log.records(start))
    every_type = frozenset(pipeline.mapping.by_type)
    records, view = run_batch(pipeline.mapping, pipeline.store, pipeline.log.records(start), reading=every_type)
    assert records == []
    assert view.state(Key("holdings", "h1")).parent_id_text == "i1"
