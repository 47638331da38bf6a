"""Several majors of an aggregate at once: same version, from the same change, in all of them or in none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, build_definition, run_batch

from rowcast.annotation import STATED_PREFIX
from rowcast.deprecation import Deprecation
from rowcast.errors import ContractViolationError
from rowcast.event import DomainEvent, EventKind, Record, decode
from rowcast.sources.definition import FormerMajor, SourceDefinition, StatedEventDefinition
from stream_app.core.emission import Emitted, Origin
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.sequencing import emit_pending
from stream_app.core.state import Key, View
from stream_app.core.statement import RefusedStatement, Statement
from stream_app.core.tail import Tail
from stream_app.live_majors import Waiting
from stream_app.opening import open_majors

KEY = Key("instance", "i1")
FUNCTIONS = """
def shouted(entity):
    return {"id": entity["id"], "heading": entity.pop("title").upper()}

def broken(entity):
    return {"id": entity["id"], "heading": entity["subject"]}

def wrong(entity):
    return {"id": entity["id"], "heading": None}

def extra(entity):
    return {"id": entity["id"], "heading": "", "more": 1}

def listed(entity):
    return [entity]

def quiet(entity):
    return {"id": entity["id"], "heading": entity["title"].lower() + "."}
"""
VALUE_SCHEMA = {"properties": {"after": {"properties": {"id": {}, "heading": {}}}}}
LATER = Origin(900, "2026-01-01T00:00:00.000000Z", snapshot=True)


def publishing(majors: tuple[int, ...], function: str = "shouted", sunset: str = "") -> SourceDefinition:
    """The source with these live majors of `instance`, the newest first."""
    definition = build_definition(events={"instance": ["merged"]})
    instance, *others = definition.aggregates
    former = tuple(
        FormerMajor(
            major=major,
            minor=0,
            function=function,
            value_schema=VALUE_SCHEMA,
            dataschema=f"urn:rowcast:schema:inventory.instance:{major}.0",
            events=(
                StatedEventDefinition(name="merged", value_schema={}, dataschema=f"urn:test:instance:{major}.0+merged"),
            ),
            deprecation=Deprecation(sunset=sunset, migration="https://example.org/v2") if sunset else None,
        )
        for major in majors[1:]
    )
    newest = replace(instance, major=majors[0], former=former)
    return replace(definition, aggregates=(newest, *others), functions=FUNCTIONS)


def compiled(definition: SourceDefinition) -> SourceMapping:
    """Its mapping; an older major does not accept a heading that is null or `BAD`."""

    def check(value: Mapping[str, Any]) -> None:
        for state in (value["after"], value["before"]):
            if state is not None and state.get("heading", "") in (None, "BAD"):
                raise ContractViolationError("/heading: <value> is not allowed")

    validators: dict[str, Any] = {each.name: lambda value: None for each in definition.aggregates}
    validators |= {f"{each.name}.{event.name}": check for each in definition.aggregates for event in each.events}
    older = [each for aggregate in definition.aggregates for each in aggregate.former]
    validators |= {each.dataschema: check for major in older for each in (major, *major.events)}
    return compile_mapping(definition, validators)


def change(operation: str, **columns: Any) -> tuple[str, str, Any, Any]:
    """A change of the row `i1`."""
    row = {"id": "i1", "title": "t", "tags": None, "secret": None, **columns}
    return (operation, "instance", row, None) if operation == "d" else (operation, "instance", None, row)


def merged(**data: Any) -> tuple[str, str, Any, Any]:
    """That `i1` was merged, as a service states it."""
    return "m", STATED_PREFIX, {"aggregate": "instance", "id": "i1", "event": "merged", "data": data}, None


class Source:
    """A change log that is worked through transaction by transaction, under definitions that change."""

    def __init__(self, *majors: int, function: str = "shouted") -> None:
        self.mapping = compiled(publishing(majors, function))
        self.log, self.store = ChangeLog(), MemoryStore()
        self.topic: list[Record] = []
        self.refused: list[RefusedStatement] = []

    def commit(self, operation: str, **columns: Any) -> list[DomainEvent]:
        """One transaction on the row `i1`; the events that it gives."""
        records, view = self.transaction(change(operation, **columns))
        self.store.save(view)
        self.topic += records
        return [decode(*each) for each in records]

    def state(self, *others: Any, **data: Any) -> list[DomainEvent]:
        """One transaction with *others* and behind them the stated event `merged`; the events that it gives."""
        records, view = self.transaction(*others, merged(**data))
        self.store.save(view)
        self.topic += records
        return [decode(*each) for each in records]

    def transaction(self, *changes: Any) -> tuple[list[Record], View]:
        """What a transaction gives, not saved."""
        self.start = len(self.log.values), self.store.commit_lsn, list(self.store.processed)
        self.log.transaction(changes)
        return self.again(Tail())

    def again(self, tail: Tail) -> tuple[list[Record], View]:
        """What the last transaction gives when it is read again, with *tail* in the topics."""
        emitted = Emitted()
        start, self.store.commit_lsn, self.store.processed = self.start[0], self.start[1], list(self.start[2])
        records, view = run_batch(self.mapping, self.store, self.log.records(start), tail, emitted=emitted)
        self.refused = emitted.refused_statements
        return records, view

    def goes_on_with(self, *majors: int, function: str = "shouted") -> None:
        """Another definition: what is published owes its latest version to the majors that are new."""
        former = self.mapping.definition.aggregates[0]
        self.mapping = compiled(publishing(majors, function))
        if not self.mapping.definition.aggregates[0].is_covered(former.majors):
            for key, state in self.store.aggregates.items():
                if state.majors is None and state.version:
                    self.store.aggregates[key] = state._replace(majors=former.majors)

    def open(self, tail: Tail | None = None) -> tuple[list[Record], View]:
        """The chunk in which `i1` goes out for newly live majors, not saved."""
        view, emitted = View(), Emitted()
        for lookup in emit_pending(self.mapping, view, [KEY], LATER, (emitted, tail or Tail())):
            self.store.load(lookup, view)
        return emitted.records, view

    def opened(self) -> list[DomainEvent]:
        """Like `open`, saved."""
        records, view = self.open()
        self.store.save(view)
        self.topic += records
        return [decode(*each) for each in records]


def facts(events: list[DomainEvent]) -> list[tuple[Any, ...]]:
    """Major, kind, version, after and before of each event."""
    return [(each.major, str(each.kind), each.version, each.after, each.before) for each in events]


def test_a_change_goes_out_in_every_live_major_with_one_version() -> None:
    """Each in its own form, topic and schema; `before` too is what readers of that major saw."""
    source = Source(2, 1)

    created, updated, deleted = source.commit("c"), source.commit("u", title="n"), source.commit("d")

    assert facts(created) == [
        (2, "created", 1, {"id": "i1", "title": "t", "tags": None}, None),
        (1, "created", 1, {"id": "i1", "heading": "T"}, None),
    ]
    assert facts(updated)[1] == (1, "updated", 2, {"id": "i1", "heading": "N"}, {"heading": "T"})
    assert facts(deleted)[1] == (1, "deleted", 3, None, {"id": "i1", "heading": "N"})
    assert [each.topic for each in updated] == ["inventory.instance.v2", "inventory.instance.v1"]
    assert [each.dataschema[-3:] for each in updated] == ["1.0", "1.0"]
    assert updated[0].position == updated[1].position


def test_a_change_that_an_older_major_cannot_show_is_a_version_of_it_all_the_same() -> None:
    """Versions have no holes in any major."""
    source = Source(2, 1)
    source.commit("c")

    events = source.commit("u", tags="[1]")

    assert facts(events)[1] == (1, "updated", 2, {"id": "i1", "heading": "T"}, {})


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("broken", "in major 1: function 'broken' raised KeyError in line 6"),
        ("wrong", "in major 1: /heading: <value> is not allowed"),
        ("extra", "in major 1: function 'extra' returned fields that the contract does not have: more"),
        ("listed", "in major 1: function 'listed' returned no object"),
    ],
)
def test_what_one_major_refuses_is_published_in_none(function: str, reason: str) -> None:
    """No version is taken; the reason names the major, and no value."""
    source = Source(2, 1, function=function)

    assert source.commit("c") == []

    state = source.store.aggregates[KEY]
    assert state.version == 0
    assert state.refusal is not None
    assert state.refusal.reason == reason


def test_a_former_state_without_form_in_an_older_major_refuses_nothing() -> None:
    """Another contract or function made it; `before` is then null."""
    source = Source(2, 1)
    source.commit("c")
    source.goes_on_with(2, 1, function="broken")
    assert source.commit("u", title="bad") == []
    source.goes_on_with(2)
    source.commit("u", title="bad")
    source.goes_on_with(2, 1)

    (newest, older) = source.commit("u", title="good")

    assert (newest.kind, older.kind) == (EventKind.SNAPSHOT, EventKind.SNAPSHOT)
    assert newest.before == {"title": "bad"}
    assert older.before is None
    assert older.after == {"id": "i1", "heading": "GOOD"}


def test_a_new_major_opens_with_a_snapshot_of_what_there_is() -> None:
    """It takes a version, in all live majors, and is relative to what each of them had before."""
    source = Source(1)
    source.commit("c")
    source.goes_on_with(2, 1)

    events = source.opened()

    assert [(each.major, each.kind, each.version) for each in events] == [
        (2, EventKind.SNAPSHOT, 2),
        (1, EventKind.SNAPSHOT, 2),
    ]
    assert events[0].before is None
    assert source.opened() == []
    assert source.store.aggregates[KEY].majors is None


def test_an_opening_is_repeated_with_the_same_bytes() -> None:
    """Killed between publish and commit, it publishes nothing again; killed before, exactly the same."""
    source = Source(1)
    source.commit("c")
    source.goes_on_with(2, 1)

    lost, _view = source.open()
    again, _view = source.open()
    repeated, view = source.open(Tail(reversed(lost)))

    assert again == lost
    assert len(lost) == 2
    assert repeated == []
    assert view.aggregates[KEY].version == 2
    assert view.aggregates[KEY].majors is None


def test_what_was_published_in_the_old_major_alone_and_not_committed_stands() -> None:
    """The tail has a version of major 1; the new majors number on above it, whole."""
    source = Source(1)
    source.commit("c")
    before = (dict(source.store.aggregates), dict(source.store.rows))
    source.commit("u", title="n")
    lost = source.topic[-1:]
    source.store.aggregates, source.store.rows = before
    source.goes_on_with(2, 1)

    records, view = source.open(Tail(lost))

    events = [decode(*each) for each in records]
    assert [(each.major, each.kind, each.version) for each in events] == [
        (2, EventKind.SNAPSHOT, 3),
        (1, EventKind.SNAPSHOT, 3),
    ]
    assert view.aggregates[KEY].version == 3


def test_an_aggregate_that_comes_back_is_a_snapshot_where_its_past_is_not_known() -> None:
    """A reader of the new major alone has seen no version of it: the first one must close the gap."""
    source = Source(1)
    source.commit("c")
    source.commit("d")
    source.goes_on_with(2, 1)

    assert source.opened() == []
    back = source.commit("c")
    after = source.commit("u", title="n")

    assert [(each.major, each.kind, each.version) for each in back] == [
        (2, EventKind.SNAPSHOT, 3),
        (1, EventKind.SNAPSHOT, 3),
    ]
    assert {each.kind for each in after} == {EventKind.UPDATED}


def test_what_was_refused_at_the_opening_opens_when_it_is_mended() -> None:
    """The new major's first event of it is a snapshot, whatever changed it."""
    source = Source(1)
    source.commit("c")
    source.goes_on_with(2, 1, function="broken")
    assert source.opened() == []
    source.goes_on_with(2, 1)

    events = source.commit("u", title="n")

    assert [(each.major, each.kind, each.version) for each in events] == [
        (2, EventKind.SNAPSHOT, 2),
        (1, EventKind.SNAPSHOT, 2),
    ]
    assert events[0].before is None
    assert events[1].after == {"id": "i1", "heading": "N"}


def test_the_old_major_ends_and_comes_back_with_a_snapshot() -> None:
    """What it missed meanwhile is no gap for its readers."""
    source = Source(2, 1)
    source.commit("c")
    source.goes_on_with(2)
    assert [each.major for each in source.commit("u", title="n")] == [2]
    source.goes_on_with(2, 1)

    events = source.opened()

    assert [(each.major, each.kind, each.version) for each in events] == [
        (2, EventKind.SNAPSHOT, 3),
        (1, EventKind.SNAPSHOT, 3),
    ]


def test_going_back_to_the_old_major_does_not_compare_what_cannot_be_compared() -> None:
    """What was published last has the newer form: the older one begins anew."""
    source = Source(2, 1)
    source.commit("c")
    source.goes_on_with(1)

    (event,) = source.opened()

    assert (event.major, event.kind, event.version, event.before) == (1, EventKind.SNAPSHOT, 2, None)


def test_events_of_a_deprecated_major_say_when_it_ends() -> None:
    """By the attributes of CloudEvents' deprecation extension; the newest major says nothing."""
    source = Source(2, 1)
    source.mapping = compiled(publishing((2, 1), sunset="2027-06-30"))

    newest, older = source.commit("c")

    assert newest.deprecation is None
    assert older.deprecation == Deprecation(sunset="2027-06-30", migration="https://example.org/v2")
    assert [each for each in source.topic[1].headers if "deprecat" in each[0]] == [
        ("ce_deprecated", b"true"),
        ("ce_deprecationsunset", b"2027-06-30T00:00:00Z"),
        ("ce_deprecationmigration", b"https://example.org/v2"),
    ]
    assert decode(*source.topic[1]).encode() == source.topic[1]


def test_definitions_without_older_majors_keep_their_bytes() -> None:
    """A definition that was stored before stays the same revision; one with them is read back whole."""
    plain, both = build_definition(), publishing((2, 1), sunset="2027-06-30")

    assert b"former" not in plain.to_json()
    assert SourceDefinition.from_json(both.to_json()) == both
    assert both.topics[:2] == ("inventory.instance.v2", "inventory.instance.v1")


ORIGIN = Origin(7, "2026-01-01T00:00:00.000000Z", snapshot=True)
HERE = {"instance": (1,), "holdings": (1,), "item": (1,)}


def test_what_opens_is_found_from_the_live_majors() -> None:
    """Nothing while they are the same; a first definition and a major that ends owe nobody anything."""
    both = publishing((2, 1))

    assert open_majors(publishing((1,)), (HERE, None), (), ORIGIN) is None
    first = open_majors(both, ({}, None), (), ORIGIN)
    ended = open_majors(publishing((2,)), ({**HERE, "instance": (2, 1)}, None), (), ORIGIN)
    opens = open_majors(both, (HERE, None), (), ORIGIN)

    assert (first and first.former, first and first.waiting) == ({}, None)
    assert (ended and ended.former, ended and ended.live["instance"]) == ({}, (2,))
    assert opens is not None
    assert opens.former == {"instance": (1,)}
    assert opens.waiting == Waiting(types=["instance"], origin=ORIGIN.to_dict())


def test_types_that_are_being_read_open_with_their_snapshot() -> None:
    """What has been waiting since before goes on to, in the order of the definition."""
    before = Waiting(types=["item", "gone"], origin={})

    opens = open_majors(publishing((2, 1)), (HERE, before), ("instance",), ORIGIN)

    assert opens is not None
    assert opens.former == {"instance": (1,)}
    assert opens.waiting == Waiting(types=["item"], origin=ORIGIN.to_dict())


def test_what_a_service_states_goes_out_in_every_live_major_with_one_version() -> None:
    """The entity in the form of each, the data the same; headers name the major's own schema and end."""
    source = Source(2, 1)
    source.mapping = compiled(publishing((2, 1), sunset="2027-06-30"))
    source.commit("c")

    events = source.state(change("u", title="n"), into="i2")

    assert [(each.major, each.name, each.version) for each in events] == [
        (2, "updated", 2),
        (1, "updated", 2),
        (2, "merged", 3),
        (1, "merged", 3),
    ]
    newest, older = events[2:]
    assert (newest.after, older.after) == ({"id": "i1", "title": "n", "tags": None}, {"id": "i1", "heading": "N"})
    assert [each.data for each in (newest, older)] == [{"into": "i2"}] * 2
    assert [(each.before, each.kind, each.position) for each in (newest, older)] == [
        ({}, EventKind.UPDATED, newest.position)
    ] * 2
    assert (older.type, older.topic) == ("inventory.instance.merged.v1", "inventory.instance.v1")
    assert (newest.dataschema, older.dataschema) == ("urn:test:merged", "urn:test:instance:1.0+merged")
    assert (newest.deprecation, older.deprecation) == (
        None,
        Deprecation(sunset="2027-06-30", migration="https://example.org/v2"),
    )
    assert [each.encode() for each in events[2:]] == source.topic[-2:]


def test_what_is_stated_and_one_major_refuses_is_published_in_none() -> None:
    """It takes no version, and the reason names the major."""
    source = Source(2, 1)
    source.commit("c", title="good")
    (stated,) = source.mapping.by_type["instance"].older[0].stated.values()

    def refuse(value: Mapping[str, Any]) -> None:
        raise ContractViolationError("/data: <value> is not allowed")

    source.mapping.by_type["instance"].older[0].stated["merged"] = stated._replace(  # type: ignore[index]
        validate=refuse
    )
    assert source.state() == []
    assert source.refused[0].reason == "in major 1: /data: <value> is not allowed"
    assert source.store.aggregates[KEY].version == 1
    assert source.store.aggregates[KEY].refusal is None


@pytest.mark.parametrize("operations", [("c",), ("u",)])
def test_what_was_stated_is_not_said_again_after_a_kill(operations: tuple[str, ...]) -> None:
    """Both records of a version are one repetition, in whatever order the topics are read back."""
    source = Source(2, 1)
    if "u" in operations:
        source.commit("c")
    first, _view = source.transaction(*(change(each, title="n") for each in operations), merged(n=1), merged(n=1))

    repeated, view = source.again(Tail(reversed(first)))

    assert [decode(*each).major for each in first] == [2, 1] * 3
    assert repeated == []
    assert view.aggregates[KEY].version == len(first) // 2 + ("u" in operations)
    assert view.aggregates[KEY].majors is None


def test_what_another_downcaster_has_said_is_not_said_again() -> None:
    """Its versions stand in all majors; what has another form now is numbered on above them."""
    source = Source(2, 1)
    source.commit("c")
    first, _view = source.transaction(change("u", title="n"), merged(n=1))
    source.goes_on_with(2, 1, function="quiet")

    repeated, view = source.again(Tail(first))

    assert repeated == []
    assert (view.aggregates[KEY].version, source.refused) == (3, [])


def test_what_was_stated_in_the_old_major_alone_stands() -> None:
    """It went out in all majors that were live then; the new one opens above it."""
    source = Source(1)
    source.commit("c")
    first, _view = source.transaction(merged(n=1))
    source.goes_on_with(2, 1)

    records, view = source.again(Tail(first))

    assert [(each.major, each.name, each.version) for each in (decode(*record) for record in records)] == [
        (2, "snapshot", 3),
        (1, "snapshot", 3),
    ]
    assert view.aggregates[KEY].version == 3


def test_a_statement_does_not_come_before_the_opening_of_its_aggregate() -> None:
    """Readers of the new major know nothing of it, and what was published has the old one's form."""
    source = Source(1)
    source.commit("c")
    source.goes_on_with(2, 1)

    events = source.state(n=1)

    assert [(each.major, each.name, each.version) for each in events] == [
        (2, "snapshot", 2),
        (1, "snapshot", 2),
        (2, "merged", 3),
        (1, "merged", 3),
    ]
    assert events[3].after == {"id": "i1", "heading": "T"}
    assert source.store.aggregates[KEY].majors is None


def test_of_an_aggregate_that_cannot_open_nothing_is_stated() -> None:
    """It is refused itself, and keeps what it owes."""
    source = Source(1)
    source.commit("c")
    source.goes_on_with(2, 1, function="broken")

    assert source.state(n=1) == []
    assert "itself was refused" in source.refused[0].reason
    assert source.store.aggregates[KEY].majors == (1,)
    assert source.store.aggregates[KEY].version == 1


def test_what_waited_while_its_declaration_went_is_refused() -> None:
    """Statements wait in the control database, and another definition may be applied meanwhile."""
    source, emitted, view = Source(2, 1), Emitted(), View()
    source.commit("c")
    said = {KEY: [Statement(1, KEY, "gone", b"{}")]}
    for lookup in emit_pending(source.mapping, view, [KEY], LATER, (emitted, Tail()), said):
        source.store.load(lookup, view)

    assert emitted.records == []
    assert [each.reason for each in emitted.refused_statements] == ["instance declares the event 'gone' no more"]
