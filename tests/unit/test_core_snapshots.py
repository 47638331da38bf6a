"""What a snapshot reads stands in its rows alone until its events go out."""

from __future__ import annotations

from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, build_mapping, run_batch

from rowcast.event import DomainEvent, EventKind, decode
from stream_app.core.emission import Emitted, Origin
from stream_app.core.sequencing import emit_pending
from stream_app.core.state import Key, View
from stream_app.core.tail import Tail

MAPPING = build_mapping()
TYPES = frozenset(MAPPING.by_type)
ORIGIN = Origin(2000, "2026-01-01T00:00:00.000000Z", snapshot=True)
INSTANCE, HOLDINGS = Key("instance", "i1"), Key("holdings", "h1")


def instance(title: str = "t", number: int = 1) -> dict[str, Any]:
    return {"id": f"i{number}", "title": title, "tags": "[]", "secret": "s"}


def holdings(parent: str | None = "i1") -> dict[str, Any]:
    return {"id": "h1", "instance_id": parent, "place": "p"}


class Reading:
    """A source whose first snapshot is being read."""

    def __init__(self) -> None:
        self.log, self.store = ChangeLog(), MemoryStore()
        self._start = 0

    def read(self, table: str, row: dict[str, Any]) -> None:
        """A row of the snapshot."""
        self.log.append(self.log.row("r", table, None, row, None))

    def fold(self) -> View:
        """Fold and commit what came since the last call."""
        records, view = run_batch(MAPPING, self.store, self.log.records(self._start), reading=TYPES)
        assert records == []
        self._start = len(self.log.values)
        self.store.save(view)
        return view

    def emit(self, *keys: Key, unready: frozenset[str] = frozenset()) -> list[DomainEvent]:
        """The snapshot's events."""
        view, emitted = View(), Emitted(unready=unready)
        for lookup in emit_pending(MAPPING, view, keys, ORIGIN, (emitted, Tail())):
            self.store.load(lookup, view)
        self.store.save(view)
        return [decode(*record) for record in emitted.records]


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_rows_are_written_first_and_aggregates_with_their_events(reading: Reading) -> None:
    """Half of what is written waits; the events have parents as if it had been written."""
    reading.read("instance", instance())
    reading.read("holdings", holdings())
    view = reading.fold()

    assert (view.dirty, view.dirty_rows) == (set(), {INSTANCE, HOLDINGS})
    parent, child = reading.emit(INSTANCE, HOLDINGS)
    assert (parent.kind, parent.version) == (EventKind.SNAPSHOT, 1)
    assert (child.kind, child.version, child.ancestors) == (EventKind.SNAPSHOT, 1, {"instance": ["i1"]})
    states = reading.store.aggregates
    assert [(states[key].version, states[key].present) for key in (INSTANCE, HOLDINGS)] == [(1, True), (1, True)]
    assert states[HOLDINGS].parent_id_text == "i1"
    assert reading.emit(INSTANCE, HOLDINGS) == []


def test_a_parent_is_known_by_its_row_alone(reading: Reading) -> None:
    """A chunk may begin with a child whose parent waits for the chunk's end, or for a type that is held back."""
    reading.read("instance", instance())
    reading.read("holdings", holdings())
    reading.fold()

    (child,) = reading.emit(HOLDINGS)
    assert child.ancestors == {"instance": ["i1"]}


@pytest.mark.parametrize("together", [True, False])
def test_changes_of_what_was_read_before_its_events_go_out(reading: Reading, *, together: bool) -> None:
    """Changed, moved, deleted, deleted and read again, read twice: the events tell how it ended."""
    steps = [
        lambda: [reading.read("instance", instance(number=number)) for number in (1, 2, 3)],
        lambda: reading.read("holdings", holdings("i2")),
        lambda: reading.log.transaction(
            [
                ("u", "instance", None, instance("new")),
                ("u", "holdings", None, holdings()),
                ("d", "instance", instance(number=2), None),
                ("d", "instance", instance(number=3), None),
            ]
        ),
        lambda: reading.read("instance", instance("again", 3)),
        lambda: reading.read("holdings", holdings()),
    ]
    for step in steps:
        step()
        if not together:
            reading.fold()
    reading.fold()

    keys = [INSTANCE, Key("instance", "i2"), Key("instance", "i3"), HOLDINGS]
    events = {each.identity.id_text: each for each in reading.emit(*keys)}
    assert {name: each.version for name, each in events.items()} == {"i1": 1, "i3": 1, "h1": 1}
    assert [events[name].after["title"] for name in ("i1", "i3")] == ["new", "again"]
    assert events["h1"].ancestors == {"instance": ["i1"]}


def test_what_has_no_event_is_written_too(reading: Reading) -> None:
    """Of a type that is held back: nobody looks for it among the rows any more when it goes on."""
    reading.read("instance", instance())
    reading.fold()

    assert reading.emit(INSTANCE, unready=frozenset({"instance"})) == []
    state = reading.store.aggregates[INSTANCE]
    assert (state.present, state.version, state.published) == (True, 0, None)
    (event,) = reading.emit(INSTANCE)
    assert event.version == 1


def test_what_was_known_before_is_written_where_it_changes(reading: Reading) -> None:
    """A snapshot that finds again what was deleted; versions go on."""
    reading.read("instance", instance())
    reading.fold()
    reading.emit(INSTANCE)
    reading.log.transaction([("d", "instance", instance(), None)])
    reading.fold()
    reading.read("instance", instance())
    view = reading.fold()

    assert view.dirty == {INSTANCE}
    assert reading.store.aggregates[INSTANCE].present
