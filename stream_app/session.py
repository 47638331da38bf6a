"""
One claim of one source, from the first read to the last commit: read, fold, publish, commit, again.

A session never repairs itself: whatever fails or is unknown ends it, and the next claim starts from what the
control database holds. A crash between publish and commit repeats the batch with byte-identical events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
import psycopg

from rowcast.errors import MalformedEventError, StopError
from rowcast.failpoint import failpoint
from rowcast.sources.definition import SourceDefinition
from stream_app.core.change import HEARTBEAT_PREFIX, Operation
from stream_app.core.emission import Emitted, Origin, rfc3339
from stream_app.core.mapping import SourceMapping
from stream_app.core.sequencing import Lookups, Work, emit_pending, origin_of, sequence, split_truncates, types_below
from stream_app.core.state import Key, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, LargeTransaction, PlacedUnit, SnapshotRow, Spill, Transaction
from stream_app.generation import Generations
from stream_app.metrics import SourceMetrics
from stream_app.position import EndOffsets, Position
from stream_app.progress import Progress
from stream_app.publisher import Publisher
from stream_app.refusal import RefusalWatch
from stream_app.staging import Staging
from stream_app.store import Ownership, Step, Store, read_position
from stream_app.transport import ChangeLogReader, read_ends, read_extent, read_tail

BATCH_RECORDS_MAX = 2_000
CHUNK_AGGREGATES_MAX = 1_000
READ_TIMEOUT_S = 0.2
LINGER_S = 0.04
COMMANDS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a session is opened with: its *ownership*, the compiled *mapping*, an open control *connection*."""

    ownership: Ownership
    mapping: SourceMapping
    connection: psycopg.Connection
    brokers: str


class Session:
    """The work on one owned source. Not thread-safe; lives in the thread of its source."""

    def __init__(self, claim: Claim, metrics: SourceMetrics) -> None:
        self._source = claim.ownership.source
        self._mapping = claim.mapping
        self._metrics = metrics
        self._store = Store(claim.connection, claim.ownership, claim.mapping)
        # Fences every older producer, so that the ends and the tail below cannot move any more.
        self._publisher = Publisher(claim.brokers, self._source)
        self._position = _open_position(claim, self._store)
        self._tail, self._ends = _open_tail(claim, self._position)
        self._brokers = claim.brokers
        self._open_log()
        self._generations = Generations(self._source, self._mapping.by_type, self._store.generations())
        self._progress = Progress(claim.ownership, self._publisher, self._store)
        self._refusals = RefusalWatch(self._source, self._mapping.definition.refused_share_max)
        self._commands_s = 0.0
        # What a former claim staged is read again from the change log.
        self._staging = Staging(claim.connection, claim.mapping, self._store.hold)
        self._staging.clear()
        if "merging" in (self._position.sub_position or {}):
            self._forget_merging()

    def _open_log(self) -> None:
        """Read the change log from the committed position on."""
        topic = self._mapping.definition.change_log
        self._reader = ChangeLogReader(self._brokers, self._source, topic, self._position.next_offset)
        self._assembler = Assembler(self._position.commit_lsn, self._store.processed())

    @property
    def next_offset(self) -> int:
        """The committed offset: the place at which an unexpected error is counted."""
        return self._position.next_offset

    def close(self) -> None:
        """Let go of everything; nothing uncommitted survives."""
        self._reader.close()
        self._publisher.close()
        self._store.close()

    def step(self, stopping: Callable[[], bool]) -> None:
        """
        Do one piece of work: a chunk of a snapshot, open commands, or a batch of the change log.

        Raises:
            RowcastError: the session is over and nothing half-done is committed.

        """
        if self._position.sub_position is None:
            self._run_commands()
            started_s = time.monotonic()
            records = self._reader.read(BATCH_RECORDS_MAX, READ_TIMEOUT_S, LINGER_S)
            if records:
                self._metrics.stage("read", time.monotonic() - started_s)
                self._metrics.read(len(records))
                self._process(list(self._assembler.feed(records)), stopping)
        else:
            self._emit_pending(stopping)
        if not self._tail and self._position.sub_position is None:
            self._progress.publish(self._position)
        self._metrics.position(self._position)

    def _process(self, placed: Sequence[PlacedUnit], stopping: Callable[[], bool]) -> None:
        """Commit *placed*, in pieces that end where events have to go out in chunks."""
        piece: list[PlacedUnit] = []
        for each in placed:
            unit = each.unit
            if isinstance(unit, Spill):
                self._staging.stage(unit.changes)
                continue
            if isinstance(unit, (Transaction, LargeTransaction)) and self._generations.ends_with_stream:
                # Streaming begins when the snapshot is over, also where it found no row at all.
                piece = self._finish_reading(piece, unit.lsn, unit.time_us, stopping)
            if isinstance(unit, Transaction) and _truncates(unit):
                self._commit_piece(piece, None)
                piece = []
                self._commit_truncating(each, unit)
                self._emit_pending(stopping)
            elif isinstance(unit, LargeTransaction):
                self._commit_piece(piece, None)
                piece = []
                self._commit_large(each, unit, stopping)
            else:
                if isinstance(unit, SnapshotRow) and not self._generations.reading:
                    # What was streamed before a new snapshot is committed as it was: with events.
                    self._commit_piece(piece, None)
                    piece = []
                piece.append(each)
            if isinstance(unit, SnapshotRow):
                self._generations.note_row(unit.row, each.next_offset - 1)
                if unit.row.last:
                    piece = self._finish_reading(piece, unit.row.lsn, unit.row.time_us, stopping)
            if stopping():
                return
        self._commit_piece(piece, None)

    def _finish_reading(
        self, piece: Sequence[PlacedUnit], lsn: int, time_us: int, stopping: Callable[[], bool]
    ) -> list[PlacedUnit]:
        """Commit *piece* and emit the generation that it ends; returns the next, empty piece."""
        offset = piece[-1].next_offset if piece else self._position.next_offset
        # The rows before this point are folded while their types still count as being read.
        reading = self._generations.reading
        origin = self._generations.begin_emitting(offset, lsn, rfc3339(time_us))
        self._commit_piece(piece, origin, reading)
        self._emit_pending(stopping)
        return []

    def _commit_piece(
        self, piece: Sequence[PlacedUnit], emitting: Origin | None, reading: frozenset[str] | None = None
    ) -> None:
        """Fold, publish and commit *piece*; *emitting* is the origin of the chunks that follow it."""
        if not piece and emitting is None:
            return
        units = [each.unit for each in piece if isinstance(each.unit, (Transaction, SnapshotRow))]
        step = self._step([unit for unit in units if isinstance(unit, Transaction)])
        if emitting is not None:
            step.pending_types = [each.aggregate for each in self._generations.emitting()]
            step.ended_generations = self._generations.emitting()
        position = replace(
            self._position_after(units),
            next_offset=piece[-1].next_offset if piece else self._position.next_offset,
            sub_position=None if emitting is None else emitting.to_dict(),
        )
        self._fold_and_land(units, self._generations.reading if reading is None else reading, step, position)

    def _commit_truncating(self, placed: PlacedUnit, unit: Transaction) -> None:
        """Empty the tables, fold the rest, and leave all events to the chunks that follow."""
        types, rest = split_truncates(self._mapping, unit)
        step = self._step([unit])
        step.truncated_types = list(types)
        # Whatever else the transaction touched may stand anywhere in the order of the events.
        touched = [self._mapping.by_table[row.table].name for row in rest.rows if row.table in self._mapping.by_table]
        step.pending_types = types_below(self._mapping, {*types, *touched})
        origin = origin_of(unit)
        position = replace(self._position_after([unit]), next_offset=placed.next_offset, sub_position=origin.to_dict())
        self._fold_and_land([rest], frozenset(self._mapping.by_type), step, position)

    def _commit_large(self, placed: PlacedUnit, unit: LargeTransaction, stopping: Callable[[], bool]) -> None:
        """Fold the staged changes key by key, then let the events go out in chunks."""
        self._staging.stage(unit.rest.changes)
        truncated = self._staging.apply_truncates()
        merging = {"merging": unit.lsn}
        self._land(View(), Emitted(), Step(truncated_types=truncated), replace(self._position, sub_position=merging))
        for keys, rows in self._staging.batches(CHUNK_AGGREGATES_MAX):
            if stopping():
                return
            step = Step(generation=self._generations.number, pending=keys)
            position = replace(self._position, sub_position={**merging, "last": list(keys[-1])})
            part = Transaction(unit.xid, unit.lsn, unit.change_count, unit.time_us, rows, ())
            self._fold_and_land([part], frozenset(self._mapping.by_type), step, position)
        step = self._step([unit])
        step.pending_types = types_below(self._mapping, truncated)
        step.pending_children = True
        position = replace(
            self._position_after([unit]), next_offset=placed.next_offset, sub_position=origin_of(unit).to_dict()
        )
        self._land(View(), Emitted(), step, position)
        self._staging.clear()
        self._emit_pending(stopping)

    def _forget_merging(self) -> None:
        """A large transaction was being folded when the claim ended: it is read again from its BEGIN."""
        self._land(View(), Emitted(), Step(forget_pending=True), replace(self._position, sub_position=None))

    def _step(self, transactions: Sequence[Transaction | LargeTransaction]) -> Step:
        return Step(
            generation=self._generations.number,
            processed=[(unit.lsn, unit.xid, unit.change_count) for unit in transactions],
            last_time_ms=transactions[-1].time_us // 1000 if transactions else 0,
        )

    def _position_after(self, units: Sequence[Work | LargeTransaction]) -> Position:
        transactions = [unit for unit in units if isinstance(unit, (Transaction, LargeTransaction))]
        return replace(
            self._position,
            commit_lsn=transactions[-1].lsn if transactions else self._position.commit_lsn,
            heartbeat=_last_heartbeat(self._source, transactions) or self._position.heartbeat,
        )

    def _fold_and_land(self, units: Sequence[Work], reading: frozenset[str], step: Step, position: Position) -> None:
        view, emitted = View(), Emitted()
        self._fold(sequence(self._mapping, view, units, reading, (emitted, self._tail)), view)
        self._land(view, emitted, step, position)
        self._metrics.batch(_row_count(units), emitted.events, emitted.refused, emitted.repeated)

    def _emit_pending(self, stopping: Callable[[], bool]) -> None:
        """Emit what is pending chunk by chunk until it is out, or until the worker stops."""
        sub_position = self._position.sub_position
        assert sub_position is not None, "chunks have a sub-position"
        origin = Origin(**{name: value for name, value in sub_position.items() if name != "last"})
        while not stopping():
            keys = self._store.pending(CHUNK_AGGREGATES_MAX)
            if not keys:
                self._generations.complete()
                self._land(View(), Emitted(), Step(), replace(self._position, sub_position=None))
                return
            view, emitted = View(), Emitted()
            self._fold(emit_pending(self._mapping, view, keys, origin, (emitted, self._tail)), view)
            last = {**sub_position, "last": [keys[-1].aggregate, keys[-1].id_text]}
            self._land(view, emitted, Step(pending_done=keys), replace(self._position, sub_position=last))
            self._metrics.batch(0, emitted.events, emitted.refused, emitted.repeated)
            self._metrics.position(self._position)

    def _run_commands(self) -> None:
        """Execute what operators asked for; at most once a second."""
        if time.monotonic() < self._commands_s:
            return
        self._commands_s = time.monotonic() + COMMANDS_INTERVAL_S
        for number, verb, arguments in self._store.commands():
            view, emitted = View(), Emitted()
            former = self._position.next_offset
            done = replace(self._position, sub_position=Origin(number, "").to_dict())
            if verb == "retry":
                outcome = self._retry(Key(arguments["aggregate"], arguments["id_text"]), view, emitted)
            elif verb == "skip_snapshot":
                outcome, offset = self._skip_snapshot(int(arguments["next_offset"]))
                done = replace(done, next_offset=offset)
            else:
                outcome = f"unknown verb {verb!r}"
            # Nothing is pending, but the position has to move with the outcome: a sub-position, then none.
            self._land(view, emitted, Step(commands_done=[(number, outcome)]), done)
            self._land(View(), Emitted(), Step(), replace(self._position, sub_position=None))
            if self._position.next_offset != former:
                self._reader.close()
                self._open_log()

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
        heartbeat = self._position.heartbeat or {}
        origin = Origin(self._position.commit_lsn, str(heartbeat.get("at") or rfc3339(0)))
        self._fold(emit_pending(self._mapping, view, [key], origin, (emitted, self._tail)), view)
        refusal = view.state(key).refusal
        return "still refused: " + refusal.reason if refusal else "accepted"

    def _fold(self, lookups: Lookups, view: View) -> None:
        """Run the core, loading what it asks for."""
        started_s, loading_s = time.monotonic(), 0.0
        for lookup in lookups:
            load_s = time.monotonic()
            self._store.load(lookup, view)
            loading_s += time.monotonic() - load_s
        self._metrics.stage("load", loading_s)
        self._metrics.stage("core", time.monotonic() - started_s - loading_s)

    def _land(self, view: View, emitted: Emitted, step: Step, position: Position) -> None:
        """Publish, then commit; the position moves with what it stands for or not at all."""
        self._refusals.check(emitted.events, emitted.refused)
        if emitted.records:
            failpoint("sequencer.before_publish")
            started_s = time.monotonic()
            ends = self._publisher.publish(emitted.records)
            self._metrics.stage("publish", time.monotonic() - started_s)
            failpoint("sequencer.after_publish")
            self._ends = {topic: {**offsets, **ends.get(topic, {})} for topic, offsets in self._ends.items()}
        if not self._tail:
            # While the tail holds unmatched versions the next claim has to read it again from its beginning.
            position = replace(position, end_offsets=self._ends)
        step.generations = self._generations.take_changed()
        started_s = time.monotonic()
        self._store.commit(view, step, self._position, position)
        self._metrics.stage("commit", time.monotonic() - started_s)
        self._position = position
        failpoint("sequencer.after_commit")


def _open_position(claim: Claim, store: Store) -> Position:
    definition = claim.mapping.definition
    position = read_position(claim.connection, definition.source)
    extent = read_extent(claim.brokers, definition.change_log)
    if position is None:
        return _first_position(claim, store, extent.topic_id, extent.start)
    if position.change_log_topic_id != extent.topic_id:
        raise StopError("CHANGE_LOG_RECREATED", f"topic {definition.change_log} is not the one that was read before")
    if not extent.start <= position.next_offset <= extent.end:
        raise StopError(
            "CHANGE_LOG_TRUNCATED",
            f"offset {position.next_offset} is not in {definition.change_log} ({extent.start} to {extent.end})",
        )
    return position


def _first_position(claim: Claim, store: Store, topic_id: str, start: int) -> Position:
    definition = claim.mapping.definition
    ends = read_ends(claim.brokers, _partitions(definition))
    written = sorted(topic for topic, offsets in ends.items() if any(offsets.values()))
    if written or start:
        raise StopError(
            "CONTROL_DATABASE_BEHIND",
            f"nothing is known of source {definition.source}, but {', '.join(written) or definition.change_log}"
            " was written before",
            remedy=f"rowcast sources rebuild {definition.source}",
        )
    position = Position(change_log_topic_id=topic_id, next_offset=0, commit_lsn=0, end_offsets=ends)
    store.commit(View(), Step(), None, position)
    return position


def _partitions(definition: SourceDefinition) -> dict[str, int]:
    return {definition.topic(each): definition.partitions for each in definition.aggregates}


def _open_tail(claim: Claim, position: Position) -> tuple[Tail, EndOffsets]:
    """The events behind the committed position, and the end offsets behind them."""
    partitions = _partitions(claim.mapping.definition)
    # A topic that was declared since the last commit has no end offset yet: it is read from its beginning.
    known = {
        topic: position.end_offsets.get(topic, {str(number): 0 for number in range(count)})
        for topic, count in partitions.items()
    }
    try:
        tail = Tail(read_tail(claim.brokers, claim.ownership.source, known))
    except MalformedEventError as error:
        raise StopError("FOREIGN_WRITER", f"a domain topic holds what the owner did not write: {error}") from error
    # Nobody else can append any more: this claim has fenced every older producer.
    return tail, read_ends(claim.brokers, partitions) if tail else known


def _last_heartbeat(source: str, transactions: Sequence[Transaction | LargeTransaction]) -> dict[str, Any] | None:
    for transaction in reversed(transactions):
        for message in transaction.messages:
            if message.prefix == HEARTBEAT_PREFIX and (content := _heartbeat(message.content, source)) is not None:
                return content
    return None


def _heartbeat(content: bytes, source: str) -> dict[str, Any] | None:
    """A heartbeat of *source*; None for anything else, because every role of the database may emit messages."""
    try:
        heartbeat = orjson.loads(content)
        datetime.fromisoformat(heartbeat["at"])
    except (ValueError, KeyError, TypeError):
        return None
    return heartbeat if heartbeat.get("source") == source else None


def _truncates(unit: Transaction) -> bool:
    return any(row.operation is Operation.TRUNCATE for row in unit.rows)


def _row_count(units: Sequence[Work]) -> int:
    return sum(len(unit.rows) if isinstance(unit, Transaction) else 1 for unit in units)
