"""Large transactions in parts against the model: any parts, any crash, the events of the whole."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from changelog import MemoryStore, build_mapping
from test_core_model import build_history, check_versions_and_before, expected_events

from rowcast.event import Record, decode
from stream_app.core.emission import Emitted
from stream_app.core.sequencing import Lookups, emit_pending, in_order, key_of, origin_of, sequence_part
from stream_app.core.state import Key, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, Transaction

MAPPING = build_mapping()
NOTHING_KEPT = (frozenset[str](), frozenset[Key]())


class CrashError(Exception):
    """The worker dies between publish and commit."""


@dataclass
class Parts:
    """Folds transactions part by part, as a session does, and dies now and then."""

    rng: random.Random
    crash_share: float
    store: MemoryStore = field(default_factory=MemoryStore)
    topic: list[Record] = field(default_factory=list)
    pending: set[Key] = field(default_factory=set)
    committed: int = 0
    tail: Tail = field(default_factory=Tail)

    def run(self, unit: Transaction) -> None:
        """Repeat *unit* from its beginning until it is through."""
        while True:
            try:
                self._merge(unit)
                self._finish(unit)
            except CrashError:
                self.tail = Tail(self.topic[self.committed :])
            else:
                return

    def _merge(self, unit: Transaction) -> None:
        for rows in self._parts(unit):
            view, emitted, parents = View(), Emitted(), list[Key]()
            out = (emitted, self.tail, parents)
            part = unit._replace(rows=rows), [key_of(MAPPING, row) for row in rows]
            self._land(sequence_part(MAPPING, view, part, NOTHING_KEPT, out), view, emitted)
            self.pending.update(parents)

    def _parts(self, unit: Transaction) -> Iterator[tuple]:
        keys = in_order(MAPPING, {key_of(MAPPING, row) for row in unit.rows})
        for mapping in MAPPING.by_rank:
            ours = [key for key in keys if key.aggregate == mapping.name]
            while ours:
                count = self.rng.randint(1, 2)
                part, ours = set(ours[:count]), ours[count:]
                yield tuple(row for row in unit.rows if key_of(MAPPING, row) in part)

    def _finish(self, unit: Transaction) -> None:
        keys = in_order(MAPPING, self._with_descendants(self.pending))
        view, emitted = View(), Emitted()
        self._land(emit_pending(MAPPING, view, keys, origin_of(unit), (emitted, self.tail)), view, emitted)
        self.pending.clear()

    def _with_descendants(self, keys: Sequence[Key] | set[Key]) -> set[Key]:
        below = {
            key
            for key, state in self.store.aggregates.items()
            for above in keys
            if state.parent_id_text == above.id_text and key.aggregate in MAPPING.by_type[above.aggregate].child_types
        }
        return {*keys, *(self._with_descendants(below) if below else ())}

    def _land(self, lookups: Lookups, view: View, emitted: Emitted) -> None:
        for lookup in lookups:
            self.store.load(lookup, view)
        self.topic += emitted.records
        if self.rng.random() < self.crash_share:
            raise CrashError
        self.store.save(view)
        self.committed = self.committed if self.tail else len(self.topic)


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("crash_share", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(30))
def test_parts_of_a_transaction_give_the_events_of_the_whole(seed: int, crash_share: float) -> None:
    """One event for each aggregate of each transaction, dense versions, and no descendant is forgotten."""
    log, history = build_history(seed)
    parts = Parts(random.Random(seed), crash_share)
    for placed in Assembler(0, []).feed(log.records()):
        assert isinstance(placed.unit, Transaction)
        parts.run(placed.unit)
    events = [decode(*record) for record in parts.topic]

    got = [(e.identity.aggregate, e.identity.id_text, e.position, str(e.kind), e.after) for e in events]
    assert sorted(got, key=repr) == sorted(expected_events(history), key=repr)
    check_versions_and_before(events)


def test_a_decoded_event_gives_its_record_back() -> None:
    """The record's bytes follow from the event alone."""
    log, _history = build_history(1)
    parts = Parts(random.Random(1), 0.0)
    for placed in Assembler(0, []).feed(log.records()):
        assert isinstance(placed.unit, Transaction)
        parts.run(placed.unit)

    assert len(parts.topic) > 30
    assert [decode(*record).encode() for record in parts.topic] == parts.topic
