"""
One claim of one source, from the first read to the last commit: read, fold, publish, commit, again.

A session never repairs itself: whatever fails or is unknown ends it, and the next claim starts from what the
control database holds. A crash between publish and commit repeats the batch with byte-identical events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rowcast.errors import OwnershipLostError
from rowcast.failpoint import failpoint
from rowcast.limit import limit
from stream_app.core.change import LooseMessage, Operation, RowChange, SnapshotStart
from stream_app.core.defect import TableDefectError
from stream_app.core.emission import Emitted, Origin, rfc3339
from stream_app.core.halting import HaltedTypes
from stream_app.core.heartbeat import forget_catalogue, forget_tables, newest_heartbeat
from stream_app.core.loading import LargeFanOutError, Lookups
from stream_app.core.partition import Capture
from stream_app.core.reference import referring
from stream_app.core.sequencing import (
    Work,
    emit_pending,
    origin_of,
    sequence,
    sequence_part,
    settle,
    split_truncates,
    types_below,
)
from stream_app.core.state import Key, View
from stream_app.core.statement import refuse_loose
from stream_app.core.tail import Tail
from stream_app.core.transaction import (
    Assembler,
    LargeTransaction,
    PlacedUnit,
    Skipped,
    SnapshotRow,
    Spill,
    Transaction,
    Unit,
)
from stream_app.drift import SUPERSEDED, Drift, as_transaction
from stream_app.generation import Generations
from stream_app.landing import Landing, Parcel
from stream_app.live_majors import Waiting, read_live_majors, read_waiting
from stream_app.metrics import SourceMetrics
from stream_app.opening import Claim, known_ends, open_majors, open_position, open_tail
from stream_app.position import EndOffsets, Position, read_revision
from stream_app.progress import Progress
from stream_app.publisher import Publisher
from stream_app.refusal import RefusalWatch
from stream_app.staging import Staging
from stream_app.store import Step, Store
from stream_app.transport import ChangeLogReader
from stream_app.window import WindowWatch

log = logging.getLogger("rowcast.worker")
BATCH_RECORDS_MAX = 4_000
CHUNK_AGGREGATES_MAX = limit("chunk_aggregates", 2_000)
# With embedded rows each aggregate may bring many: a quarter of both.
_SHARE_WITH_EMBEDDED = 4
READ_TIMEOUT_S = 0.2
COMMANDS_INTERVAL_S = 1.0


class _InterruptedError(Exception):
    """The worker stops; what is committed stands, and the next claim goes on from there."""


class Session:
    """The work on one owned source. Not thread-safe; lives in the thread of its source."""

    def __init__(self, claim: Claim, metrics: SourceMetrics) -> None:
        self._source = claim.ownership.source
        self._mapping = claim.mapping
        self._metrics = metrics
        self._reads = Store(claim.reading, claim.ownership, claim.mapping)
        self._store = Store(claim.connection, claim.ownership, claim.mapping)
        self._store.prepare()
        # Fences every older producer, so that the ends and the tail below cannot move any more.
        self._publisher = Publisher(claim.brokers, self._source)
        # Whoever was frozen before that may have fenced a newer claim: then it goes no further.
        self._store.hold()
        self._position = open_position(claim, self._store)
        self._generations = Generations(
            self._source, self._mapping.by_type, self._reads.generations(), self._reads.snapshot_from
        )
        self._halted = HaltedTypes(self._mapping, self._reads.halts())
        metrics.halted(self._halted.types)
        self._tail, ends = self._open_domain_topics(claim)
        self._opening = read_waiting(claim.reading, self._source)
        self._drift = Drift(claim.reading, self._source)
        progress = Progress(claim.ownership, self._publisher, self._store)
        self._landing = Landing(self._publisher, self._store, progress, (self._position, ends))
        self._brokers = claim.brokers
        share = _SHARE_WITH_EMBEDDED if claim.mapping.embedded else 1
        self._records_max, self._chunk_max = BATCH_RECORDS_MAX // share, max(1, CHUNK_AGGREGATES_MAX // share)
        self._applied = claim.reading, claim.revision
        self._capture = self._known_of_capture()
        self._open_log()
        self._reads.load_references()
        # Those of an open transaction that is too large for memory: reference tables are small, so they stay in it.
        self._reference_rows: list[RowChange] = []
        self._window = WindowWatch(self._source, self._mapping.definition.change_log_window_ms, metrics)
        self._refusals = RefusalWatch(self._source, self._mapping.definition.refused_share_max)
        self._commands_s = 0.0
        self._stopping: Callable[[], bool] = lambda: False
        # What a former claim staged is read again from the change log.
        self._staging = Staging(claim.connection, claim.reading, claim.mapping, self._store.hold)
        self._staging.clear()
        if "merging" in (self._position.sub_position or {}):
            self._leave_merging()

    def _open_domain_topics(self, claim: Claim) -> tuple[Tail, EndOffsets]:
        """Take over which majors are live, and read back what was published last."""
        reading = self._mapping.by_type if self._generations.expected else self._generations.reading
        state = read_live_majors(claim.reading, self._source), read_waiting(claim.reading, self._source)
        opening = open_majors(self._mapping.definition, state, reading, self._idle_origin(snapshot=True))
        known = known_ends(claim, self._position, opens=opening is not None)
        tail, ends = open_tail(claim, known)
        if opening is not None:
            self._store.open_majors(opening, known)
        self._position = replace(self._position, end_offsets=known)
        return tail, ends

    def _known_of_capture(self) -> Capture:
        tables = {table.name: table for table in self._mapping.definition.tables}
        return Capture(self._reads.partitions_from(), tables=tables, resumed=self._reads.resumed_at())

    def _open_log(self) -> None:
        """Read the change log from the committed position on."""
        topic = self._mapping.definition.change_log
        self._reader = ChangeLogReader(self._brokers, self._source, topic, self._position.next_offset)
        self._assembler = Assembler(self._position.commit_lsn, self._reads.processed(), shield=self._mapping.shield)

    @property
    def next_offset(self) -> int:
        """The committed offset: the place at which an unexpected error is counted."""
        return self._landing.committed.next_offset

    @property
    def halted(self) -> frozenset[str]:
        """The types of which nothing goes out until their tables are read anew."""
        return self._halted.types

    @property
    def caught_up(self) -> bool:
        """Whether the change log had nothing left when it was asked last."""
        return self._reader.quiet_since_s is not None

    @property
    def silent_s(self) -> float:
        """For how long nothing has come, 0 before the connector streams: from then on there are heartbeats."""
        since_s = self._reader.quiet_since_s
        streams = self._position.heartbeat is not None and not self._generations.reading
        return time.monotonic() - since_s if streams and since_s is not None else 0.0

    def close(self) -> None:
        """Let go of everything; what is being landed comes to its end, nothing else survives."""
        self._landing.close()
        self._reader.close()
        self._publisher.close()
        self._store.close()
        self._reads.close()

    def step(self, stopping: Callable[[], bool]) -> None:
        """
        Do one piece of work: what a former claim left, open commands, or a batch of the change log.

        It ends early, between two commits, when *stopping* says so.

        Raises:
            RowcastError: the session is over and nothing half-done is committed.

        """
        self._stopping = stopping
        try:
            if self._position.sub_position is None:
                self._run_commands()
                # What a former claim published comes to its end first: the state is not behind it then.
                if self._opening is not None and not self._tail:
                    self._open_majors(self._opening)
                self._read()
            elif "unmerged" in self._position.sub_position:
                self._read()
            elif "resync" in self._position.sub_position:
                self._apply_drift()
            else:
                self._emit_pending()
        except _InterruptedError:
            return

    @property
    def _unready(self) -> frozenset[str]:
        """The types of which nothing goes out: they are being read, or halted."""
        return self._generations.reading | self._halted.types

    def _halt(self, fault: TableDefectError, since: str) -> None:
        """
        Halt the types of the tables that are not as they were applied, from the next commit on.

        Raises:
            TableDefectError: no type would be left.

        """
        new = [] if self._halted.stops_all(fault.defects) else self._halted.halt(fault.defects, since)
        if not new:
            raise fault
        for each in new:
            log.error("source %s: %s: %s; remedy: %s", self._source, each.code, each.told(), each.remedy(self._source))
        self._refusals.begin()
        self._metrics.halted(self._halted.types)

    def _refuse_wave(self, view: View, emitted: Emitted, rows: Iterable[RowChange] = ()) -> None:
        """
        Make sure that no type has so many refusals that it has to be halted; *rows* may show why.

        Raises:
            TableDefectError: some have.

        """
        if not emitted.refused:
            return
        statements = [each for each in emitted.refused_statements if each.aggregate not in self._halted]
        refused = emitted.refused - len(emitted.refused_statements) + len(statements)
        tables = {name: each.table for name, each in self._mapping.by_type.items() if name not in self._halted}
        try:
            self._refusals.refuse_wave(tables, (emitted.events, refused), view, statements)
        except TableDefectError:
            self._halted.refuse_cut(rows)
            raise

    def _resend(self, number: int, aggregates: Sequence[str], ids: Sequence[str]) -> None:
        """
        Send what is published of whole types, or of the *ids* of one, again; the outcome stands behind the last event.

        Unknown ids and types were refused by whoever asked.
        """
        known = [each for each in aggregates if each in self._mapping.by_type and each not in self._halted]
        step = Step()
        if ids:
            step.pending = [Key(each, id_text) for each in known for id_text in ids]
        else:
            step.pending_types = known
        origin = self._idle_origin(snapshot=True, resend=True)
        sub_position = {**origin.to_dict(), "command": number}
        halted = [each for each in aggregates if each in self._halted]
        if halted:
            sub_position["outcome"] = f"not sent: {', '.join(halted)}, halted; see `rowcast sources status`"
        self._land(View(), Emitted(), step, replace(self._position, sub_position=sub_position))
        self._emit_pending()

    def _open_majors(self, waiting: Waiting) -> None:
        """Open newly live majors with an event of every aggregate."""
        self._opening = None
        step = Step(opened=True, pending_types=list(waiting.types))
        self._land(View(), Emitted(), step, replace(self._position, sub_position=waiting.origin))
        self._emit_pending()

    def _read(self) -> None:
        started_s = time.monotonic()
        records = self._reader.read(self._records_max, READ_TIMEOUT_S, lambda: self._landing.busy)
        self._window.note(self._reader.oldest_ms)
        self._window.check()
        if records:
            self._metrics.stage("read", time.monotonic() - started_s)
            self._metrics.read(len(records))
            self._process(list(self._assembler.feed(records)))
        else:
            self._landing.check()
            self._landing.tell_progress(bool(self._tail))

    def _process(self, placed: Sequence[PlacedUnit]) -> None:
        """Commit *placed*, in pieces that end where events have to go out in chunks."""
        piece: list[PlacedUnit] = []
        for each in placed:
            unit = each.unit
            if self._is_plain(unit):
                piece.append(each)
                continue
            if self._stopping():
                raise _InterruptedError
            if isinstance(unit, Spill):
                self._landing.wait()
                self._stage(unit)
                continue
            if isinstance(unit, SnapshotStart) or (isinstance(unit, SnapshotRow) and not self._generations.begun):
                piece = self._begin_reading(piece, each)
            if isinstance(unit, SnapshotStart):
                continue
            if isinstance(unit, (Transaction, LargeTransaction)) and self._generations.ends_with_stream:
                # Streaming begins when the snapshot is over, also where it found no row at all.
                piece = self._finish_reading(piece, unit.lsn, unit.time_us)
            if isinstance(unit, LargeTransaction) or (isinstance(unit, Transaction) and self._stands_alone(unit)):
                self._commit_piece(piece)
                piece = []
                self._commit_apart(each, unit)
            else:
                piece.append(each)
            if isinstance(unit, SnapshotRow):
                self._generations.note_row(unit.row, each.next_offset - 1)
                if unit.row.last:
                    piece = self._finish_reading(piece, unit.row.lsn, unit.row.time_us)
        self._commit_piece(piece)

    def _commit_apart(self, placed: PlacedUnit, unit: Transaction | LargeTransaction) -> None:
        self._landing.wait()  # what it truncates must not be laid over again
        self._settle_before(unit)
        if isinstance(unit, Transaction):
            self._commit_alone(placed, unit)
        else:
            self._commit_large(placed, unit)

    def _is_plain(self, unit: Unit) -> bool:
        """Whether *unit* is as most are: a transaction that waits for nothing and leaves nothing behind."""
        return isinstance(unit, Transaction) and not self._generations.ends_with_stream and not self._stands_alone(unit)

    def _stage(self, spill: Spill) -> None:
        references = self._mapping.references
        if references:
            self._reference_rows += [row for _, row in spill.changes if row.table in references]
            kept = tuple(change for change in spill.changes if change[1].table not in references)
            spill = Spill(kept, spill.statements)
        while True:
            changes = [each for each in spill.changes if self._halted.takes(each[1])]
            try:
                return self._staging.stage(changes, spill.statements)
            except TableDefectError as fault:
                self._halt(fault, self._idle_origin().time)
                self._land_alone(View(), Emitted(), Step(), self._position)

    def _stands_alone(self, unit: Transaction) -> bool:
        """Whether events may follow for any number of aggregates: of a TRUNCATE, or of a reference table."""
        references = self._mapping.references
        for row in unit.rows:  # noqa: SIM110 - asked of every row: a generator takes five times as long
            if row.operation is Operation.TRUNCATE or row.table in references:
                return True
        return False

    def _begin_reading(self, piece: Sequence[PlacedUnit], start: PlacedUnit) -> list[PlacedUnit]:
        """
        Commit *piece*, which was streamed before *start*, as it is: with events; returns a piece with *start*.

        Raises:
            OwnershipLostError: the snapshot is one of another definition, so the source has to be claimed anew.

        """
        self._commit_piece(piece)
        connection, revision = self._applied
        if read_revision(connection, self._source) != revision:
            # The connector is set up after its definition is stored. Under the former one types would be missing in
            # the generation, and columns in row state.
            raise OwnershipLostError(f"{self._source}: a snapshot begins that was set up by a newer definition")
        self._generations.note_start(start.next_offset - 1)
        self._halted.lift_all()
        self._metrics.halted(())
        self._position = replace(self._position, heartbeat=forget_catalogue(self._position.heartbeat))
        self._capture = self._known_of_capture()
        self._landing.wait()
        self._staging.clear()  # of a transaction that broke off before it
        self._reference_rows.clear()
        return [start._replace(unit=Skipped())]

    def _finish_reading(self, piece: Sequence[PlacedUnit], lsn: int, time_us: int) -> list[PlacedUnit]:
        """Commit *piece* and emit the generation that it ends; returns the next, empty piece."""
        offset = piece[-1].next_offset if piece else self._position.next_offset
        # The rows before this point are folded while their types still count as being read.
        reading = self._generations.reading
        origin = self._generations.begin_emitting(offset, lsn, rfc3339(time_us))
        step = Step(
            pending_types=[each.aggregate for each in self._generations.emitting()],
            ended_generations=self._generations.emitting(),
        )
        self._commit_units(piece, (step, origin), reading)
        if self._mapping.references:
            self._landing.wait()
            self._reads.load_references()  # without those that the snapshot did not find any more
        self._emit_pending()
        return []

    def _commit_piece(self, piece: Sequence[PlacedUnit]) -> None:
        """Fold, publish and commit *piece*; where its moved parents have too many descendants, bit by bit."""
        if not piece:
            return
        try:
            self._fold_units(piece, (Step(), None), self._generations.reading)
        except (LargeFanOutError, TableDefectError) as fault:
            if len(piece) > 1:
                middle = len(piece) // 2
                self._commit_piece(piece[:middle])
                self._commit_piece(piece[middle:])
            elif isinstance(fault, TableDefectError):
                self._halt(fault, self._time_of(piece))
                self._commit_piece(piece)
            else:
                self._commit_fanning(piece[0])

    def _commit_fanning(self, placed: PlacedUnit) -> None:
        """Fold a transaction that moves a parent of many, and leave its events to the chunks that follow."""
        unit = placed.unit
        assert isinstance(unit, Transaction), "nothing else moves what was published"
        self._settle_before(unit)
        step = Step(pending_touched=True, pending_children=True)
        self._commit_units([placed], (step, origin_of(unit)), frozenset(self._mapping.by_type))
        self._emit_pending()

    def _commit_alone(self, placed: PlacedUnit, unit: Transaction) -> None:
        """Empty truncated tables, fold the rest, and leave all events to the chunks that follow."""
        try:
            self._halted.refuse_nameless(unit.rows)
        except TableDefectError as fault:
            self._halt(fault, self._time_of([placed]))
        unit = unit._replace(rows=self._halted.placeable(unit.rows))
        types, rest = split_truncates(self._mapping, unit)
        self._note_truncated(unit, types)
        # Whatever else the transaction touched may stand anywhere in the order of the events.
        step = Step(
            truncated_types=list(types),
            pending_types=types_below(self._mapping, types),
            pending_touched=True,
            pending_children=True,
            pending_referring=referring(self._mapping.references, unit.rows),
        )
        rest_placed = PlacedUnit(rest, placed.next_offset)
        self._commit_units([rest_placed], (step, origin_of(unit)), frozenset(self._mapping.by_type))
        self._emit_pending()

    def _commit_large(self, placed: PlacedUnit, unit: LargeTransaction) -> None:
        """
        Fold the staged changes aggregate by aggregate, each with its event.

        The position stays before BEGIN until all are through: whoever repeats this finds nothing to say about
        those that are committed. What the transaction moves or truncates goes on to the chunks that follow.
        """
        self._landing.wait()
        self._stage(unit.rest)
        truncated = self._staging.apply_truncates()
        self._note_truncated(unit, truncated)
        self._staging.complete_moved(unit.lsn, truncated)
        merging = {"merging": unit.lsn}
        self._begin_merging(unit, truncated, replace(self._position, sub_position=merging))
        for last, rows, waiting in self._staging.batches(self._chunk_max):
            if self._stopping():
                raise _InterruptedError
            part = Transaction(unit.xid, unit.lsn, unit.change_count, unit.time_us, rows, unit.messages)
            position = replace(self._position, sub_position={**merging, "last": list(last)})
            if not self._mapping.is_of_one_row(last.aggregate):
                # Rows of another part may take what one of this part lets go, or stand in the same aggregate.
                step = Step(generation=self._generations.number, pending_touched=True)
                self._fold_and_land([part], frozenset(self._mapping.by_type), step, position)
                continue
            view, emitted, parents = View(), Emitted(unready=self._unready), list[Key]()
            out = (emitted, self._tail, parents)
            self._fold(sequence_part(self._mapping, view, part, (self._unready, waiting), out), view)
            self._land(view, emitted, Step(generation=self._generations.number, pending=parents), position)
            self._metrics.batch(len(rows), emitted.events, emitted.refused, emitted.repeated)
        origin = origin_of(unit)
        step = Step(pending_types=types_below(self._mapping, truncated), pending_children=True)
        step.placed = (unit.lsn, origin.time)
        self._landing.wait()  # on its connection the last part may still be committed
        step.refused, step.refused_statements = self._staging.misread(step.placed)
        self._commit_units([placed], (step, origin), frozenset(self._mapping.by_type))
        self._landing.wait()
        self._staging.clear(done=True)
        self._emit_pending()

    def _note_truncated(self, unit: Transaction | LargeTransaction, types: Iterable[str]) -> None:
        """A heartbeat will tell of other files of these types' partitions."""
        found = ((self._mapping.tables[each], unit.xid) for each in types)
        self._capture = self._capture._replace(truncated=self._capture.truncated.union(found))

    def _begin_merging(self, unit: LargeTransaction, truncated: Sequence[str], position: Position) -> None:
        """Empty what *unit* truncates and take over its reference rows, before anything is made with them."""
        rows = tuple(self._reference_rows)
        part = Transaction(unit.xid, unit.lsn, unit.change_count, unit.time_us, rows, ())
        emptied, rest = split_truncates(self._mapping, part)
        step = Step(
            generation=self._generations.number,
            truncated_types=[*truncated, *emptied],
            pending_referring=referring(self._mapping.references, rows),
        )
        self._fold_and_land([rest], frozenset(self._mapping.by_type), step, position)
        self._landing.wait()
        self._reference_rows = []

    def _settle_before(self, unit: Transaction | LargeTransaction) -> None:
        """Take over what nothing can repeat any more, in a step of its own, before the state changes in bulk."""
        if self._tail and unit.lsn > self._tail.position:
            view, emitted = View(), Emitted(unready=self._unready)
            self._fold(settle(self._mapping, view, origin_of(unit), (emitted, self._tail)), view)
            self._land_alone(view, emitted, Step(), self._position)

    def _leave_merging(self) -> None:
        """
        A large transaction was being folded when the claim ended: it is read again from its BEGIN.

        What it left pending stays: a parent that has moved already does not move again. Row state is ahead of what was
        published until then, so that no command may send any of it.
        """
        unmerged = {"unmerged": (self._position.sub_position or {})["merging"]}
        self._land(View(), Emitted(), Step(), replace(self._position, sub_position=unmerged))

    def _unmerged(self, commit_lsn: int) -> Mapping[str, int] | None:
        """The sub-position at *commit_lsn* while a large transaction behind it is to be read again, None otherwise."""
        unmerged: int = (self._position.sub_position or {}).get("unmerged", 0)
        return {"unmerged": unmerged} if unmerged > commit_lsn else None

    def _commit_units(
        self, piece: Sequence[PlacedUnit], then: tuple[Step, Origin | None], reading: frozenset[str]
    ) -> None:
        """Like `_fold_units`, and halts the types of which *piece* shows that their tables are not as they were."""
        step, origin = then
        while True:
            try:
                return self._fold_units(piece, (replace(step), origin), reading)
            except TableDefectError as fault:
                self._halt(fault, self._time_of(piece))
                if self._mapping.references:
                    self._landing.wait()
                    self._reads.load_references()  # without what was folded of the piece

    def _time_of(self, piece: Sequence[PlacedUnit]) -> str:
        """When what *piece* ends with was committed (RFC 3339)."""
        transactions = [each.unit for each in piece if isinstance(each.unit, (Transaction, LargeTransaction))]
        return rfc3339(transactions[-1].time_us) if transactions else self._idle_origin().time

    def _fold_units(
        self, piece: Sequence[PlacedUnit], then: tuple[Step, Origin | None], reading: frozenset[str]
    ) -> None:
        """
        Fold, publish and commit *piece*, with what *then* adds.

        With an origin, *then* leaves events pending that have to go out before the next unit.

        Raises:
            TableDefectError: tables are not as they were applied; nothing of *piece* is committed.

        """
        step, origin = then
        units = [each.unit for each in piece if isinstance(each.unit, (Transaction, LargeTransaction, SnapshotRow))]
        transactions = [unit for unit in units if isinstance(unit, (Transaction, LargeTransaction))]
        step.generation = self._generations.number
        step.processed = [(unit.lsn, unit.xid, unit.change_count) for unit in transactions]
        step.last_time_ms = transactions[-1].time_us // 1000 if transactions else 0
        capture = self._capture._replace(halted=self._halted.tables)
        heartbeat = newest_heartbeat(self._source, self._position.heartbeat, transactions, capture)
        commit_lsn = transactions[-1].lsn if transactions else self._position.commit_lsn
        position = replace(
            self._position,
            next_offset=piece[-1].next_offset if piece else self._position.next_offset,
            commit_lsn=commit_lsn,
            heartbeat=heartbeat,
            sub_position=self._unmerged(commit_lsn) if origin is None else origin.to_dict(),
        )
        work = [unit for unit in units if not isinstance(unit, LargeTransaction)]
        loose = [each.unit for each in piece if isinstance(each.unit, LooseMessage)]
        step.refused += len(loose)
        refused = [refuse_loose(each, rfc3339(each.time_us)) for each in loose]
        step.refused_statements = [*step.refused_statements, *refused]
        self._fold_and_land(work, reading, step, position)
        if heartbeat is not None and self._capture.truncated:
            self._capture = self._capture._replace(truncated=frozenset())  # it has them

    def _fold_and_land(self, units: Sequence[Work], reading: frozenset[str], step: Step, position: Position) -> None:
        view = View(emptied=frozenset(step.truncated_types))
        emitted = Emitted(unready=self._unready, refused=step.refused)
        emitted.refused_statements += step.refused_statements
        if self._halted.tables:
            units = [
                unit._replace(rows=self._halted.placeable(unit.rows)) if isinstance(unit, Transaction) else unit
                for unit in units
            ]
        sure = not self._tail
        self._fold(sequence(self._mapping, view, units, reading, (emitted, self._tail)), view)
        if sure:
            rows = (row for unit in units if isinstance(unit, Transaction) for row in unit.rows)
            self._refuse_wave(view, emitted, rows)
        self._land(view, emitted, step, position)
        self._metrics.batch(_row_count(units), emitted.events, emitted.refused, emitted.repeated)

    def _emit_pending(self) -> None:
        """Emit what is pending chunk by chunk until it is out."""
        sub_position = self._position.sub_position
        assert sub_position is not None, "chunks have a sub-position"
        beside = ("last", "command", "outcome")
        origin = Origin(**{name: value for name, value in sub_position.items() if name not in beside})
        # They stand in the control database once the step that left them pending is committed.
        self._landing.wait()
        after = None
        said = self._reads.has_statements()
        while keys := self._reads.pending(self._chunk_max, after):
            if self._stopping():
                raise _InterruptedError
            keys, stated = self._reads.stated(keys) if said else (keys, {})
            view, emitted, sure = View(), Emitted(unready=self._unready), not self._tail
            self._fold(emit_pending(self._mapping, view, keys, origin, (emitted, self._tail), stated), view)
            try:
                if sure:
                    self._refuse_wave(view, emitted)
            except TableDefectError as fault:
                self._halt(fault, self._idle_origin().time)
                continue
            after = keys[-1]
            last = {**sub_position, "last": [after.aggregate, after.id_text]}
            step = Step(pending_done=after, said=said)
            self._land(view, emitted, step, replace(self._position, sub_position=last))
            self._metrics.batch(0, emitted.events, emitted.refused, emitted.repeated)
        self._generations.complete()
        step = Step()
        if "command" in sub_position:
            step.commands_done = [(sub_position["command"], sub_position.get("outcome", "sent again"))]
        self._land(View(), Emitted(), step, replace(self._position, sub_position=None))
        self._landing.wait()

    def _run_commands(self) -> None:
        """Execute what operators asked for; at most once a second."""
        if time.monotonic() < self._commands_s:
            return
        self._commands_s = time.monotonic() + COMMANDS_INTERVAL_S
        unread = self._generations.comparing and not self._drift.is_read()
        commands = self._reads.commands()
        if unread and all(verb != "resync_apply" for _, verb, _ in commands):
            # Who asked for it has died: what it waits for would be kept for ever.
            self._generations.cancel_comparing()
            self._land_alone(View(), Emitted(), Step(), self._position)
        for number, verb, arguments in commands:
            if self._tail and verb in ("retry", "resend", "resync_apply"):
                # Row state is behind what a former claim published: it would go out as if it were newer.
                continue
            if verb == "resend":
                self._resend(number, arguments["aggregates"], arguments["ids"])
            elif verb == "resync_apply" and self._can_apply(arguments):
                # Before that the log has older changes than what was read.
                if self._position.commit_lsn >= arguments["behind"]:
                    self._resync(number, arguments["generation"], arguments.get("lifts") or {})
            else:
                self._execute(number, verb, arguments)

    def _execute(self, number: int, verb: str, arguments: Mapping[str, Any]) -> None:
        """Execute a command in one step."""
        view, emitted = View(), Emitted(unready=self._unready)
        done = self._position
        if verb == "retry":
            outcome = self._retry(Key(arguments["aggregate"], arguments["id_text"]), view, emitted)
        elif verb == "resync_begin":
            outcome = self._begin_comparing(arguments["aggregates"])
        elif verb == "resync_apply":
            outcome = SUPERSEDED
        elif verb == "skip_snapshot":
            outcome, offset = self._skip_snapshot(int(arguments["next_offset"]))
            done = replace(done, next_offset=offset, heartbeat=forget_catalogue(done.heartbeat))
        else:
            outcome = f"unknown verb {verb!r}"
        moved = done.next_offset != self._position.next_offset
        self._land_alone(view, emitted, Step(commands_done=[(number, outcome)]), done)
        if moved:
            self._reader.close()
            self._open_log()

    def _begin_comparing(self, aggregates: Sequence[str]) -> str:
        number = self._generations.begin_comparing(aggregates)
        return "a snapshot is to be read first" if number is None else f"generation {number}"

    def _can_apply(self, arguments: Mapping[str, Any]) -> bool:
        """Whether what was read still is what the generation that compares waits for."""
        _, revision = self._applied
        return (self._generations.comparing, revision) == (arguments["generation"], arguments["revision"])

    def _resync(self, number: int, generation: int, lifts: Mapping[str, Any]) -> None:
        """
        Make row state as a resync has read the database, and send what that changes.

        *lifts*: the halted types whose tables were read whole, and what the catalogue told of these then.
        """
        self._generations.begin_applying(generation)
        sub_position = self._idle_origin(snapshot=True).to_dict()
        done = {"generation": generation, "differed": 0, "gone": 0, "lifts": lifts.get("types", [])}
        sub_position |= {"command": number, "resync": done}
        heartbeat = self._position.heartbeat
        if done["lifts"] and heartbeat is not None:
            heartbeat = forget_tables(heartbeat, self._halted.feeding(done["lifts"]), lifts["told"])
        position = replace(self._position, sub_position=sub_position, heartbeat=heartbeat)
        self._land(View(), Emitted(), Step(), position)
        self._apply_drift()

    def _apply_drift(self) -> None:
        """Fold what differs chunk by chunk, then emit. What a former claim applied is marked, so it is not found."""
        sub_position = dict(self._position.sub_position or {})
        done = sub_position.pop("resync")
        after: tuple[str, str] | None = ("", "")
        self._landing.wait()
        while after is not None:
            if self._stopping():
                raise _InterruptedError
            rows, after = self._drift.rows(done["generation"], after, self._chunk_max)
            if not rows:
                continue
            gone = sum(row.found is None for row in rows)
            done = {**done, "differed": done["differed"] + len(rows) - gone, "gone": done["gone"] + gone, "last": after}
            part = as_transaction(rows, self._position.commit_lsn)
            step = Step(
                generation=self._generations.number,
                pending_touched=True,
                pending_children=True,
                pending_referring=referring(self._mapping.references, part.rows),
            )
            position = replace(self._position, sub_position={**sub_position, "resync": done})
            self._fold_and_land([part], frozenset(self._mapping.by_type), step, position)
            self._landing.wait()
            failpoint("sequencer.in_resync")
        sub_position["outcome"] = f"{done['differed']} rows differed, {done['gone']} were gone"
        # What was published of them is brought up to date, whether a resync or the stream has changed their rows.
        step = Step(pending_types=self._halted.lift(done.get("lifts", ())))
        self._land(View(), Emitted(), step, replace(self._position, sub_position=sub_position))
        for each in step.pending_types:
            log.info("source %s: aggregate type %s goes on", self._source, each)
        self._metrics.halted(self._halted.types)
        self._emit_pending()

    def _land_alone(self, view: View, emitted: Emitted, step: Step, position: Position) -> None:
        """Land what no unit of the change log stands for; the position has to move, so it moves there and back."""
        alone = Origin(position.commit_lsn, "").to_dict()
        self._landing.wait()
        self._land(view, emitted, step, replace(position, sub_position=alone))
        self._land(View(), Emitted(), Step(), position)
        self._landing.wait()

    def _skip_snapshot(self, next_offset: int) -> tuple[str, int]:
        """
        Leave an interrupted snapshot behind.

        Whoever asks has dropped the slot: everything before *next_offset*, rows and stream, is read anew by the
        snapshot that follows.
        """
        self._generations.abandon()
        return "skipped", max(next_offset, self._position.next_offset)

    def _retry(self, key: Key, view: View, emitted: Emitted) -> str:
        if key.aggregate not in self._mapping.by_type:
            return f"unknown aggregate type {key.aggregate!r}"
        if key.aggregate in self._halted:
            return f"still refused: {self._halted.why(key.aggregate).told()}"
        self._fold(emit_pending(self._mapping, view, [key], self._idle_origin(), (emitted, self._tail)), view)
        refusal = view.state(key).refusal
        return "still refused: " + refusal.reason if refusal else "accepted"

    def _idle_origin(self, *, snapshot: bool = False, resend: bool = False) -> Origin:
        """Where events come from that no unit of the change log stands for."""
        at = str((self._position.heartbeat or {}).get("at") or rfc3339(0))
        return Origin(self._position.commit_lsn, at, snapshot=snapshot, resend=resend)

    def _fold(self, lookups: Lookups, view: View) -> None:
        """Run the core, loading what it asks for."""
        started_s, loading_s = time.monotonic(), 0.0
        for lookup in lookups:
            load_s = time.monotonic()
            self._reads.load(lookup, view)
            for newer in self._landing.views:
                view.lay_over(newer, lookup)
            loading_s += time.monotonic() - load_s
        self._metrics.stage("load", loading_s)
        self._metrics.stage("core", time.monotonic() - started_s - loading_s)

    def _land(self, view: View, emitted: Emitted, step: Step, position: Position) -> None:
        """Publish, then commit; the position moves with what it stands for or not at all."""
        # What is stated of halted types says nothing of the others.
        halted = sum(each.aggregate in self._halted for each in emitted.refused_statements)
        self._refusals.check(emitted.events, emitted.refused - halted, view, emitted.refused_statements)
        step.statements, step.refused_statements = emitted.statements, emitted.refused_statements
        step.generations = self._generations.take_changed()
        step.halted, step.lifted = self._halted.take_changed()
        step.comparing = self._generations.comparing
        tail_open = bool(self._tail)
        parcel = Parcel(view=view, emitted=emitted, step=step, position=position, tail_open=tail_open)
        self._landing.submit(parcel, self._metrics)
        self._position = position
        self._window.check()


def _row_count(units: Sequence[Work]) -> int:
    return sum(len(unit.rows) if isinstance(unit, Transaction) else 1 for unit in units)
