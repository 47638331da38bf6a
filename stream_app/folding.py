"""
Folding: units of the change log into state and events, which land together with the position they stand for.

What all work on a claimed source goes through, whether it came from the log or was asked for by an operator. Where
tables turn out not to be as they were applied, the types that they feed are halted and the others go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from stream_app.core.change import LooseMessage, RowChange
from stream_app.core.defect import TableDefectError
from stream_app.core.emission import Emitted, Origin, rfc3339
from stream_app.core.halting import HaltedTypes
from stream_app.core.heartbeat import dropped_by, newest_heartbeat
from stream_app.core.loading import Lookups, load_missing
from stream_app.core.partition import Capture
from stream_app.core.sequencing import Work, emit_pending, origin_of, sequence, settle
from stream_app.core.state import Emptied, Key, View
from stream_app.core.statement import refuse_loose
from stream_app.core.tail import Tail
from stream_app.core.tenant import tables_of_tenants
from stream_app.core.transaction import LargeTransaction, PlacedUnit, SnapshotRow, Transaction
from stream_app.generation import Generations
from stream_app.landing import Landing, Parcel
from stream_app.live_majors import read_live_majors, read_waiting
from stream_app.metrics import SourceMetrics
from stream_app.opening import Claim, known_ends, open_majors, open_position, open_tail
from stream_app.pending import Pending
from stream_app.position import EndOffsets, Position
from stream_app.progress import Progress
from stream_app.publisher import Publisher
from stream_app.refusal import RefusalWatch
from stream_app.source_record import SourceRecord
from stream_app.state_reader import StateReader
from stream_app.stated import StatedEvents
from stream_app.step import Step
from stream_app.store import Store
from stream_app.window import WindowWatch

log = logging.getLogger("rowcast.worker")


class InterruptedWorkError(Exception):
    """The worker stops; what is committed stands, and the next claim goes on from there."""


class Folding:
    """
    The state of one claim and the way forward from it. Not thread-safe.

    *position* is where the last step that was begun leads to; `landing.committed` is where the control database is.
    At most *chunk_max* aggregates are emitted at a time where any number of them may wait.
    """

    def __init__(self, claim: Claim, metrics: SourceMetrics, chunk_max: int) -> None:
        self.source = claim.ownership.source
        self.mapping = claim.mapping
        self.metrics = metrics
        self.chunk_max = chunk_max
        self.noted = SourceRecord(claim.reading, self.source)
        self.state = StateReader(claim.reading, claim.mapping)
        self._stated = StatedEvents(claim.reading, claim.mapping)
        self._pending = Pending(claim.connection, claim.mapping)
        self._committed = StateReader(claim.connection, claim.mapping)
        self.store = Store(claim.connection, claim.ownership, claim.mapping, claim.revision)
        self.store.prepare()
        # Fences every older producer, so that the ends and the tail below cannot move any more.
        self._publisher = Publisher(claim.brokers, self.source)
        self.stopping: Callable[[], bool] = lambda: False
        self.refusals = RefusalWatch(self.source, claim.mapping.definition.refused_share_max)
        self.window = WindowWatch(self.source, claim.mapping.definition.change_log_window_ms, metrics)
        try:
            self._open(claim)
        except BaseException:
            self._publisher.close()
            raise

    def _open(self, claim: Claim) -> None:
        # Whoever was frozen before that may have fenced a newer claim: then it goes no further.
        self.store.hold()
        self.position = open_position(claim, self.store)
        self.generations = Generations(
            self.source, self.mapping.by_type, self.noted.generations(), self.noted.snapshot_from
        )
        self.position = self.store.renumber(self.noted.ranked(), self.position, self.idle_origin().time)
        self.halted = HaltedTypes(self.mapping, self.noted.halts())
        self.metrics.halted(self.halted.places)
        self.tail, ends = self._open_domain_topics(claim)
        self.opening = read_waiting(claim.reading, self.source)
        self.note_capture()
        self.state.load_references()
        progress = Progress(claim.ownership, self._publisher, SourceRecord(claim.connection, self.source))
        self.landing = Landing(self._publisher, self.store, progress, (self.position, ends))

    def _open_domain_topics(self, claim: Claim) -> tuple[Tail, EndOffsets]:
        """Take over which majors are live, and read back what was published last."""
        reading = self.mapping.by_type if self.generations.expected else self.generations.reading
        state = read_live_majors(claim.reading, self.source), read_waiting(claim.reading, self.source)
        opening = open_majors(self.mapping.definition, state, reading, self.idle_origin(snapshot=True))
        known = known_ends(claim, self.position, opens=opening is not None)
        tail, ends = open_tail(claim, known)
        if opening is not None:
            self.store.open_majors(opening, known)
        self.position = replace(self.position, end_offsets=known)
        return tail, ends

    def close(self) -> None:
        """Let go of everything; what is being landed comes to its end, nothing else survives."""
        self.abandon()
        self.store.close()
        self.state.close()

    def abandon(self) -> None:
        """Let go of everything but the connections, which tell what went wrong."""
        self.landing.close()
        self._publisher.close()

    def note_capture(self) -> None:
        """Judge by what was noted of the tables when the source was set up."""
        tables = {table.name: table for table in self.mapping.definition.tables}
        self._capture = Capture(self.noted.partitions_from(), tables=tables, resumed=self.noted.resumed_at())

    def note_truncated(self, unit: Transaction | LargeTransaction, truncated: Iterable[Emptied]) -> None:
        """A heartbeat will tell of other files of these types' partitions; tables of tenants have none."""
        found = ((self.mapping.tables[each.name], unit.xid) for each in truncated if each.tenant is None)
        self._capture = self._capture._replace(truncated=self._capture.truncated.union(found))

    def note_rows(self, rows: Iterable[RowChange]) -> None:
        """Rows of a large transaction: the tables of tenants that they are of are there."""
        if self.mapping.tenant_tables is not None:
            self._capture = self._capture._replace(seen=self._capture.seen | tables_of_tenants(rows))

    def load_references(self) -> None:
        """Take the reference tables as they are committed, without what was folded and did not land."""
        if self.mapping.references:
            self.wait()
            self.state.load_references()

    def wait(self) -> None:
        """Wait until everything is committed: then the control database may be read beside the core, or written."""
        self.landing.wait()

    def interrupt(self) -> None:
        """
        Let the worker stop between two commits.

        Raises:
            InterruptedWorkError: it does.

        """
        if self.stopping():
            raise InterruptedWorkError

    @property
    def unready(self) -> frozenset[str]:
        """The types of which nothing goes out: they are being read, or halted."""
        return self.generations.reading | self.halted.types

    def emitted(self, refused: int = 0) -> Emitted:
        """Where the next step collects its events."""
        return Emitted(unready=self.unready, muted=self.halted.tenants, refused=refused)

    def with_dropped(self, unit: Transaction) -> Transaction:
        """*unit* with TRUNCATEs of the tenants' tables of which its heartbeat tells that they were dropped."""
        gone = dropped_by(self.source, self.position.heartbeat, unit, self._capture)
        for each in gone:
            log.warning(
                "source %s: %s of tenant %s was dropped: its rows are deleted", self.source, each.table, each.tenant
            )
        return unit._replace(rows=(*unit.rows, *gone)) if gone else unit

    def halt(self, fault: TableDefectError, since: str) -> None:
        """
        Halt the types of the tables that are not as they were applied, from the next commit on.

        Raises:
            TableDefectError: no type would be left.

        """
        new = [] if self.halted.stops_all(fault.defects) else self.halted.halt(fault.defects, since)
        if not new:
            raise fault
        for each in new:
            log.error("source %s: %s: %s; remedy: %s", self.source, each.code, each.told(), each.remedy(self.source))
        self.refusals.begin()
        self.metrics.halted(self.halted.places)

    def refuse_wave(self, view: View, emitted: Emitted, rows: Iterable[RowChange] = ()) -> None:
        """
        Make sure that no type has so many refusals that it has to be halted; *rows* may show why.

        Raises:
            TableDefectError: some have.

        """
        if not emitted.refused:
            return
        statements = [each for each in emitted.refused_statements if each.aggregate not in self.halted]
        refused = emitted.refused - len(emitted.refused_statements) + len(statements)
        tables = {name: each.table for name, each in self.mapping.by_type.items() if name not in self.halted}
        try:
            self.refusals.refuse_wave(tables, (emitted.events, refused), view, statements)
        except TableDefectError:
            self.halted.refuse_cut(rows)
            raise

    def without_defects(self, work: Callable[[], None], since: str) -> None:
        """
        Do *work*, again and again, until it shows no table any more that is not as it was: its types are halted.

        *since*: when what shows it was committed (RFC 3339).

        Raises:
            TableDefectError: no type would be left.

        """
        while True:
            try:
                return work()
            except TableDefectError as fault:
                self.halt(fault, since)
                self.load_references()

    def commit_units(
        self, piece: Sequence[PlacedUnit], then: tuple[Step, Origin | None], reading: frozenset[str]
    ) -> None:
        """Like `fold_units`, `without_defects`."""
        step, origin = then
        self.without_defects(lambda: self.fold_units(piece, (replace(step), origin), reading), self.time_of(piece))

    def fold_units(
        self, piece: Sequence[PlacedUnit], then: tuple[Step, Origin | None], reading: frozenset[str]
    ) -> None:
        """
        Fold, publish and commit *piece*, with what *then* adds; the types *reading* have no events meanwhile.

        With an origin, *then* leaves events pending that have to go out before the next unit.

        Raises:
            TableDefectError: tables are not as they were applied; nothing of *piece* is committed.

        """
        step, origin = then
        units = [each.unit for each in piece if isinstance(each.unit, (Transaction, LargeTransaction, SnapshotRow))]
        transactions = [unit for unit in units if isinstance(unit, (Transaction, LargeTransaction))]
        step.generation = self.generations.number
        step.processed = [(unit.lsn, unit.xid, unit.change_count) for unit in transactions]
        step.last_time_ms = transactions[-1].time_us // 1000 if transactions else 0
        capture = self._capture._replace(halted=self.halted.tables, halted_tenants=self.halted.tenants)
        heartbeat = newest_heartbeat(self.source, self.position.heartbeat, transactions, capture)
        commit_lsn = transactions[-1].lsn if transactions else self.position.commit_lsn
        position = replace(
            self.position,
            next_offset=piece[-1].next_offset if piece else self.position.next_offset,
            commit_lsn=commit_lsn,
            heartbeat=heartbeat,
            sub_position=self._unmerged(commit_lsn) if origin is None else origin.to_dict(),
        )
        work = [unit for unit in units if not isinstance(unit, LargeTransaction)]
        loose = [each.unit for each in piece if isinstance(each.unit, LooseMessage)]
        step.refused += len(loose)
        refused = [refuse_loose(each, rfc3339(each.time_us)) for each in loose]
        step.refused_statements = [*step.refused_statements, *refused]
        self.fold_and_land(work, reading, step, position)
        if heartbeat is not None and (self._capture.truncated or self._capture.seen):
            self._capture = self._capture._replace(truncated=frozenset(), seen=frozenset())  # it has them

    def _unmerged(self, commit_lsn: int) -> dict[str, int] | None:
        """The sub-position at *commit_lsn* while a large transaction behind it is to be read again, None otherwise."""
        unmerged: int = (self.position.sub_position or {}).get("unmerged", 0)
        return {"unmerged": unmerged} if unmerged > commit_lsn else None

    def fold_and_land(self, units: Sequence[Work], reading: frozenset[str], step: Step, position: Position) -> None:
        """
        Fold *units* in one step, which lands with *position*.

        Raises:
            TableDefectError: tables are not as they were applied; nothing is landed.

        """
        view = View(emptied=frozenset(step.truncated))
        emitted = self.emitted(refused=step.refused)
        emitted.refused_statements += step.refused_statements
        if self.halted.tables or self.halted.tenants:
            units = [
                unit._replace(rows=self.halted.placeable(unit.rows)) if isinstance(unit, Transaction) else unit
                for unit in units
            ]
        sure = not self.tail
        self.fold(sequence(self.mapping, view, units, reading, (emitted, self.tail)), view)
        if sure:
            rows = (row for unit in units if isinstance(unit, Transaction) for row in unit.rows)
            self.refuse_wave(view, emitted, rows)
        self.land(view, emitted, step, position)
        self.metrics.batch(_row_count(units), emitted.events, emitted.refused, emitted.repeated)

    def emit_pending(self) -> None:
        """
        Emit what is pending chunk by chunk until it is out.

        Raises:
            InterruptedWorkError: the worker stops; the next claim goes on behind the last chunk.

        """
        sub_position = self.position.sub_position
        assert sub_position is not None, "chunks have a sub-position"
        beside = ("last", "command", "outcome", "types")
        origin = Origin(**{name: value for name, value in sub_position.items() if name not in beside})
        whole = frozenset(sub_position.get("types", ()))
        # They stand in the control database once the step that left them pending is committed.
        self.wait()
        after = Key(*sub_position["last"]) if "last" in sub_position else None
        said = self._stated.any()
        coming = self._ask_pending(after, whole)
        while (chunk := coming.result())[0]:
            self.interrupt()
            keys, view = chunk
            keys, stated = self._stated.of(keys) if said else (keys, {})
            coming = self._ask_pending(keys[-1], whole)
            emitted, sure = self.emitted(), not self.tail
            self.fold(emit_pending(self.mapping, view, keys, origin, (emitted, self.tail), stated), view)
            try:
                if sure:
                    self.refuse_wave(view, emitted)
            except TableDefectError as fault:
                self.halt(fault, self.idle_origin().time)
                coming = self._ask_pending(after, whole)
                continue
            step = Step(pending_done=keys[-1], pending_behind=after, said=said)
            after = keys[-1]
            last = {**sub_position, "last": [after.aggregate, after.id_text]}
            self.land(view, emitted, step, replace(self.position, sub_position=last))
            self.metrics.batch(0, emitted.events, emitted.refused, emitted.repeated)
        self.generations.complete()
        step = Step()
        if "command" in sub_position:
            step.commands_done = [(sub_position["command"], sub_position.get("outcome", "sent again"))]
        self.land(View(), Emitted(), step, replace(self.position, sub_position=None))
        self.wait()

    def _ask_pending(self, after: Key | None, whole: Collection[str]) -> Future[tuple[list[Key], View]]:
        return self.landing.ask(partial(self._read_pending, after, whole))

    def _read_pending(self, after: Key | None, whole: Collection[str]) -> tuple[list[Key], View]:
        keys = self._pending.next(self.chunk_max, after, whole)
        return keys, self.read_committed(keys)

    def read_committed(self, keys: Iterable[Key]) -> View:
        """The state of *keys*, without what is under way: to be asked by `landing.ask`, which has the connection."""
        view = View()
        for lookup in load_missing(self.mapping, view, keys):
            self._committed.load(lookup, view)
        return view

    def settle_before(self, unit: Transaction | LargeTransaction) -> None:
        """Take over what nothing can repeat any more, in a step of its own, before the state changes in bulk."""
        if self.tail and unit.lsn > self.tail.position:
            view, emitted = View(), self.emitted()
            self.fold(settle(self.mapping, view, origin_of(unit), (emitted, self.tail)), view)
            self.land_alone(view, emitted, Step(), self.position)

    def time_of(self, piece: Sequence[PlacedUnit]) -> str:
        """When what *piece* ends with was committed (RFC 3339)."""
        transactions = [each.unit for each in piece if isinstance(each.unit, (Transaction, LargeTransaction))]
        return rfc3339(transactions[-1].time_us) if transactions else self.idle_origin().time

    def idle_origin(self, *, snapshot: bool = False, resend: bool = False) -> Origin:
        """Where events come from that no unit of the change log stands for."""
        at = str((self.position.heartbeat or {}).get("at") or rfc3339(0))
        return Origin(self.position.commit_lsn, at, snapshot=snapshot, resend=resend)

    def fold(self, lookups: Lookups, view: View) -> None:
        """Run the core, loading what it asks for."""
        started_s, loading_s = time.monotonic(), 0.0
        for lookup in lookups:
            load_s = time.monotonic()
            self.state.load(lookup, view)
            for newer in self.landing.views:
                view.lay_over(newer, lookup)
            loading_s += time.monotonic() - load_s
        self.metrics.stage("load", loading_s)
        self.metrics.stage("core", time.monotonic() - started_s - loading_s)

    def land(self, view: View, emitted: Emitted, step: Step, position: Position) -> None:
        """Publish, then commit; the position moves with what it stands for or not at all."""
        # What is stated of halted types says nothing of the others.
        halted = sum(each.aggregate in self.halted for each in emitted.refused_statements)
        self.refusals.check(emitted.events, emitted.refused - halted, view, emitted.refused_statements)
        step.statements, step.refused_statements = emitted.statements, emitted.refused_statements
        step.generations = self.generations.take_changed()
        step.halted, step.lifted = self.halted.take_changed()
        step.comparing = self.generations.comparing
        tail_open = bool(self.tail)
        if step.pending_types:
            position = replace(position, sub_position={**(position.sub_position or {}), "types": step.pending_types})
        parcel = Parcel(view=view, emitted=emitted, step=step, position=position, tail_open=tail_open)
        self.landing.submit(parcel, self.metrics)
        self.position = position
        self.window.check()

    def land_alone(self, view: View, emitted: Emitted, step: Step, position: Position) -> None:
        """Land what no unit of the change log stands for; the position has to move, so it moves there and back."""
        alone = Origin(position.commit_lsn, "").to_dict()
        self.wait()
        self.land(view, emitted, step, replace(position, sub_position=alone))
        self.land(View(), Emitted(), Step(), position)
        self.wait()


def _row_count(units: Sequence[Work]) -> int:
    return sum(len(unit.rows) if isinstance(unit, Transaction) else 1 for unit in units)
