"""
One claim of one source, from the first read to the last commit: read, fold, publish, commit, again.

A session never repairs itself: whatever fails or is unknown ends it, and the next claim starts from what the
control database holds. A crash between publish and commit repeats the batch with byte-identical events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeGuard

from rowcast.errors import OwnershipLostError
from rowcast.limit import limit
from stream_app.commands import Commands
from stream_app.core.bucket import Spill
from stream_app.core.change import Operation, SnapshotStart
from stream_app.core.defect import TableDefectError
from stream_app.core.emission import Emitted, rfc3339
from stream_app.core.heartbeat import forget_catalogue, tells_of_tables
from stream_app.core.loading import LargeFanOutError
from stream_app.core.reference import referring
from stream_app.core.sequencing import emptied_below, origin_of, split_truncates
from stream_app.core.state import View
from stream_app.core.transaction import (
    Assembler,
    LargeTransaction,
    PlacedUnit,
    Skipped,
    SnapshotRow,
    Transaction,
    Unit,
)
from stream_app.drift import Drift
from stream_app.folding import Folding, InterruptedWorkError
from stream_app.large_transaction import LargeTransactions
from stream_app.live_majors import Waiting
from stream_app.metrics import SourceMetrics
from stream_app.opening import Claim
from stream_app.position import read_revision
from stream_app.step import Step
from stream_app.transport import ChangeLogReader

BATCH_RECORDS_MAX = 4_000
CHUNK_AGGREGATES_MAX = limit("chunk_aggregates", 2_000)
# With embedded rows each aggregate may bring many: a quarter of both.
_SHARE_WITH_EMBEDDED = 4
READ_TIMEOUT_S = 0.2


class Session:
    """The work on one owned source. Not thread-safe; lives in the thread of its source."""

    def __init__(self, claim: Claim, metrics: SourceMetrics) -> None:
        self._source = claim.ownership.source
        self._mapping = claim.mapping
        self._brokers = claim.brokers
        self._applied = claim.reading, claim.revision
        share = _SHARE_WITH_EMBEDDED if claim.mapping.embedded else 1
        self._records_max = BATCH_RECORDS_MAX // share
        self._folding = Folding(claim, metrics, max(1, CHUNK_AGGREGATES_MAX // share))
        self._vacant = False
        self._commands = Commands(self._folding, Drift(claim.reading, self._source), claim.revision, self._reopen_log)
        try:
            self._large = LargeTransactions(claim, self._folding)
            self._open_log()
        except BaseException:
            self._folding.abandon()
            raise

    def _open_log(self) -> None:
        """Read the change log from the committed position on."""
        topic, position = self._mapping.definition.change_log, self._folding.position
        self._reader = ChangeLogReader(self._brokers, self._source, topic, position.next_offset)
        processed = self._folding.noted.processed()
        self._assembler = Assembler(
            position.commit_lsn, processed, shield=self._mapping.shield, tenant_tables=self._mapping.tenant_tables
        )

    def _reopen_log(self) -> None:
        self._reader.close()
        self._open_log()

    @property
    def next_offset(self) -> int:
        """The committed offset: the place at which an unexpected error is counted."""
        return self._folding.landing.committed.next_offset

    @property
    def halted(self) -> frozenset[str]:
        """The types and tenants of which nothing goes out until their tables are read anew."""
        return frozenset(self._folding.halted.places)

    @property
    def caught_up(self) -> bool:
        """Whether the change log had nothing left when it was asked last."""
        return self._reader.quiet_since_s is not None

    @property
    def silent_s(self) -> float:
        """For how long nothing has come, 0 before the connector streams: from then on there are heartbeats."""
        since_s = self._reader.quiet_since_s
        streams = self._folding.position.heartbeat is not None and not self._folding.generations.reading
        return time.monotonic() - since_s if streams and since_s is not None else 0.0

    def close(self) -> None:
        """Let go of everything; what is being landed comes to its end, nothing else survives."""
        self._reader.close()
        self._folding.close()

    def step(self, stopping: Callable[[], bool]) -> None:
        """
        Do one piece of work: what a former claim left, open commands, or a batch of the change log.

        It ends early, between two commits, when *stopping* says so.

        Raises:
            RowcastError: the session is over and nothing half-done is committed.

        """
        folding = self._folding
        folding.stopping = stopping
        try:
            if folding.position.sub_position is None:
                self._commands.run()
                # What a former claim published comes to its end first: the state is not behind it then.
                if folding.opening is not None and not folding.tail:
                    self._open_majors(folding.opening)
                self._read()
            elif "unmerged" in folding.position.sub_position:
                self._read()
            elif "resync" in folding.position.sub_position:
                self._commands.apply_drift()
            else:
                folding.emit_pending()
        except InterruptedWorkError:
            return

    def _open_majors(self, waiting: Waiting) -> None:
        """Open newly live majors with an event of every aggregate."""
        folding = self._folding
        folding.opening = None
        step = Step(opened=True, pending_types=list(waiting.types))
        folding.land(View(), Emitted(), step, replace(folding.position, sub_position=waiting.origin))
        folding.emit_pending()

    def _read(self) -> None:
        started_s = time.monotonic()
        landing, window, metrics = self._folding.landing, self._folding.window, self._folding.metrics
        records = self._reader.read(self._records_max, READ_TIMEOUT_S, lambda: landing.busy)
        window.note(self._reader.oldest_ms)
        window.check()
        if records:
            metrics.stage("read", time.monotonic() - started_s)
            metrics.read(len(records))
            # From the batch behind the snapshot's first on: where a row comes twice, which none should, its commit
            # fails, and the next claim looks for all rows.
            self._folding.state.vacant = self._vacant
            self._process(list(self._assembler.feed(records)))
        else:
            landing.check()
            landing.tell_progress(bool(self._folding.tail))

    def _process(self, placed: Sequence[PlacedUnit]) -> None:
        """Commit *placed*, in pieces that end where events have to go out in chunks."""
        generations = self._folding.generations
        piece: list[PlacedUnit] = []
        for each in placed:
            unit = each.unit
            if self._is_plain(unit):
                piece.append(each)
                continue
            self._folding.interrupt()
            if isinstance(unit, Spill):
                self._large.stage(unit)
                continue
            if isinstance(unit, SnapshotStart) or (isinstance(unit, SnapshotRow) and not generations.begun):
                piece = self._begin_reading(piece, each)
            if isinstance(unit, SnapshotStart):
                continue
            if isinstance(unit, (Transaction, LargeTransaction)) and generations.ends_with_stream:
                # Streaming begins when the snapshot is over, also where it found no row at all.
                piece = self._finish_reading(piece, unit.lsn, unit.time_us)
            if self._tells_of_tenants(unit):
                self._commit_piece(piece)
                piece = []
                unit = self._folding.with_dropped(unit)
            if isinstance(unit, LargeTransaction) or (isinstance(unit, Transaction) and self._stands_alone(unit)):
                self._commit_piece(piece)
                piece = []
                self._commit_apart(each, unit)
            else:
                piece.append(each)
            if isinstance(unit, SnapshotRow):
                generations.note_row(unit.row, each.next_offset - 1)
                if unit.row.last:
                    piece = self._finish_reading(piece, unit.row.lsn, unit.row.time_us)
        self._commit_piece(piece)

    def _commit_apart(self, placed: PlacedUnit, unit: Transaction | LargeTransaction) -> None:
        self._folding.wait()  # what it truncates must not be laid over again
        self._folding.settle_before(unit)
        if isinstance(unit, Transaction):
            self._commit_alone(placed, unit)
        else:
            self._large.commit(placed, unit)

    def _is_plain(self, unit: Unit) -> bool:
        """Whether *unit* is as most are: a transaction that waits for nothing and leaves nothing behind."""
        waits = self._folding.generations.ends_with_stream
        if not isinstance(unit, Transaction) or waits or self._stands_alone(unit):
            return False
        return not self._tells_of_tenants(unit)

    def _tells_of_tenants(self, unit: Unit) -> TypeGuard[Transaction]:
        """Whether a heartbeat in *unit* may tell of tables that were dropped; what came before it has to be folded."""
        if self._mapping.tenant_tables is None or not isinstance(unit, Transaction) or not unit.messages:
            return False
        return tells_of_tables(self._source, unit)

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
        folding = self._folding
        self._commit_piece(piece)
        connection, revision = self._applied
        if read_revision(connection, self._source) != revision:
            # The connector is set up after its definition is stored. Under the former one types would be missing in
            # the generation, and columns in row state.
            raise OwnershipLostError(f"{self._source}: a snapshot begins that was set up by a newer definition")
        folding.generations.note_start(start.next_offset - 1)
        folding.halted.lift_all()
        folding.metrics.halted(())
        folding.position = replace(folding.position, heartbeat=forget_catalogue(folding.position.heartbeat))
        folding.note_capture()
        self._large.forget()
        self._vacant = folding.state.is_empty()
        return [start._replace(unit=Skipped())]

    def _finish_reading(self, piece: Sequence[PlacedUnit], lsn: int, time_us: int) -> list[PlacedUnit]:
        """Commit *piece* and emit the generation that it ends; returns the next, empty piece."""
        folding = self._folding
        offset = piece[-1].next_offset if piece else folding.position.next_offset
        self._vacant = False
        # The rows before this point are folded while their types still count as being read.
        reading = folding.generations.reading
        origin = folding.generations.begin_emitting(offset, lsn, rfc3339(time_us))
        step = Step(
            pending_types=[each.aggregate for each in folding.generations.emitting()],
            ended_generations=folding.generations.emitting(),
        )
        folding.commit_units(piece, (step, origin), reading)
        folding.state.vacant = False
        folding.load_references()  # without those that the snapshot did not find any more
        folding.emit_pending()
        return []

    def _commit_piece(self, piece: Sequence[PlacedUnit]) -> None:
        """Fold, publish and commit *piece*; where its moved parents have too many descendants, bit by bit."""
        if not piece:
            return
        try:
            self._folding.fold_units(piece, (Step(), None), self._folding.generations.reading)
        except (LargeFanOutError, TableDefectError) as fault:
            if len(piece) > 1:
                middle = len(piece) // 2
                self._commit_piece(piece[:middle])
                self._commit_piece(piece[middle:])
            elif isinstance(fault, TableDefectError):
                self._folding.halt(fault, self._folding.time_of(piece))
                self._commit_piece(piece)
            else:
                self._commit_fanning(piece[0])

    def _commit_fanning(self, placed: PlacedUnit) -> None:
        """Fold a transaction that moves a parent of many, and leave its events to the chunks that follow."""
        unit = placed.unit
        assert isinstance(unit, Transaction), "nothing else moves what was published"
        self._folding.settle_before(unit)
        step = Step(pending_touched=True, pending_children=True)
        self._folding.commit_units([placed], (step, origin_of(unit)), frozenset(self._mapping.by_type))
        self._folding.emit_pending()

    def _commit_alone(self, placed: PlacedUnit, unit: Transaction) -> None:
        """Empty truncated tables, fold the rest, and leave all events to the chunks that follow."""
        folding = self._folding
        try:
            folding.halted.refuse_nameless(unit.rows)
        except TableDefectError as fault:
            folding.halt(fault, folding.time_of([placed]))
        unit = unit._replace(rows=folding.halted.placeable(unit.rows))
        truncated, rest = split_truncates(self._mapping, unit)
        folding.note_truncated(unit, truncated)
        types, of_tenants = emptied_below(self._mapping, truncated)
        # Whatever else the transaction touched may stand anywhere in the order of the events.
        step = Step(
            truncated=list(truncated),
            pending_types=types,
            pending_tenants=of_tenants,
            pending_touched=True,
            pending_children=True,
            pending_referring=referring(self._mapping.references, unit.rows),
        )
        rest_placed = PlacedUnit(rest, placed.next_offset)
        folding.commit_units([rest_placed], (step, origin_of(unit)), frozenset(self._mapping.by_type))
        folding.emit_pending()
