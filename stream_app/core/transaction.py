"""
Whole transactions out of the change log.

Rows are bucketed by transaction id. A transaction is whole when END is there and its changes
1..change_count are. What Debezium delivers again after a restart is recognised and dropped; what is missing
or runs backwards stops the source. Order and completeness are never assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from rowcast.errors import MalformedChangeError, StopError
from rowcast.limit import limit
from rowcast.sources.tenant import TableNames
from stream_app.core.bucket import Bucket, Spill
from stream_app.core.change import (
    Begin,
    End,
    LooseMessage,
    Message,
    Operation,
    Resumption,
    RowChange,
    SnapshotStart,
    parse_change,
)
from stream_app.core.shield import Shield
from stream_app.core.tenant import of_tenant

# Above this many changes a transaction is spilled, so that its size does not become the worker's.
TRANSACTION_CHANGES_MAX = limit("transaction_changes", 20_000)
# Debezium repeats at most what it delivered since its last flushed offset (offset.flush.interval.ms).
RESEND_WINDOW_TRANSACTIONS = 200_000


class Transaction(NamedTuple):
    """A committed transaction: its row changes and messages in their order inside it."""

    xid: int
    lsn: int
    change_count: int
    time_us: int
    rows: tuple[RowChange, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class LargeTransaction:
    """A committed transaction whose changes were spilled, but for those in *rest*; END was checked."""

    xid: int
    lsn: int
    change_count: int
    time_us: int
    messages: tuple[Message, ...]
    rest: Spill


class SnapshotRow(NamedTuple):
    """A row that a snapshot read; it belongs to no transaction."""

    row: RowChange


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that moves the position and nothing else: noise, or a transaction delivered again."""


Unit = Transaction | LargeTransaction | Spill | SnapshotStart | SnapshotRow | LooseMessage | Skipped


class PlacedUnit(NamedTuple):
    """A finished unit and *next_offset*, from which reading goes on once it is committed."""

    unit: Unit
    next_offset: int


_SKIPPED = Skipped()
# Named tuples by this are made in half the time that they take to make themselves.
_new = tuple.__new__


class Assembler:
    """
    Turns records into finished units, in log order.

    *commit_lsn* is that of the last processed transaction (0: none); *processed* holds (LSN, xid, count)
    of the re-send window. Both are advanced as transactions come out; an Assembler lives as long as one
    claim of a source and is thrown away with it. *shield* changes every row before anything else sees it;
    *tenant_tables* finds the declared table and the tenant of each before that.
    """

    def __init__(
        self,
        commit_lsn: int,
        processed: Iterable[tuple[int, int, int]],
        changes_max: int = TRANSACTION_CHANGES_MAX,
        shield: Shield | None = None,
        tenant_tables: TableNames | None = None,
    ) -> None:
        self._shield = shield
        self._tenant_tables = tenant_tables
        self.commit_lsn = commit_lsn
        self._changes_max = changes_max
        self._processed = {(lsn, xid): count for lsn, xid, count in processed}
        self._buckets: dict[int, Bucket] = {}
        self._snapshot_start: SnapshotStart | None = None  # the last one; its producer may send it twice

    def feed(self, records: Iterable[tuple[int, bytes | None]]) -> Iterator[PlacedUnit]:
        """
        The units that *records* (offset, value) finish.

        Raises:
            StopError: a record cannot be read, a transaction is incomplete, or the source went back.

        """
        for offset, value in records:
            unit = self._take(offset, value)
            if unit is not None:
                yield _new(PlacedUnit, (unit, self._safe_offset(offset + 1) if self._buckets else offset + 1))

    def _take(self, offset: int, value: bytes | None) -> Unit | None:
        try:
            change = parse_change(value)
        except MalformedChangeError as error:
            # Its table and key are unknown, so no aggregate can be held alone.
            raise StopError("MALFORMED_CHANGE", f"offset {offset}: {error}") from error
        if isinstance(change, RowChange):
            if self._tenant_tables is not None:
                change = of_tenant(self._tenant_tables, change)
            if self._shield is not None:
                change = self._shield.change(change)
            return SnapshotRow(change) if change.operation is Operation.READ else self._put(offset, change)
        if isinstance(change, Begin):
            if change.xid not in self._buckets:
                self._buckets[change.xid] = Bucket(offset)
            self._buckets[change.xid].begin(change.lsn)
            return None
        if isinstance(change, End):
            return self._finish(change, offset)
        if isinstance(change, Message):
            return self._put(offset, change)
        if isinstance(change, SnapshotStart):
            # What was open will not go on: either the snapshot reads it, or nobody asked for one.
            self._buckets.clear()
            repeated, self._snapshot_start = change == self._snapshot_start, change
            return _SKIPPED if repeated else change
        if isinstance(change, Resumption):
            for xid, bucket in self._buckets.items():
                bucket.resume(self.commit_lsn, whole_before=self._may_be_processed(xid))
        nothing = None if self._buckets else _SKIPPED
        return change if isinstance(change, LooseMessage) else nothing

    def _put(self, offset: int, change: RowChange | Message) -> Unit | None:
        if change.xid is None or change.order is None:
            raise StopError("MALFORMED_CHANGE", f"offset {offset}: a streamed change without its transaction")
        bucket = self._buckets.get(change.xid)
        if bucket is None:
            bucket = self._buckets[change.xid] = Bucket(offset)
        bucket.put(change.order, change)
        if len(bucket.changes) < self._changes_max and bucket.early is None:
            return None
        if bucket.count < self._changes_max:
            return None
        if self._may_be_processed(change.xid):
            bucket.forget()  # nobody would take back what is handed over, and of its beginning nothing may come
            return None
        return bucket.spill(change.xid)

    def _may_be_processed(self, xid: int) -> bool:
        """Whether the open transaction *xid* is one of the re-send window, delivered again; only its END tells."""
        return any(known == xid for _, known in self._processed)

    def _finish(self, end: End, offset: int) -> Unit:
        bucket = self._buckets.pop(end.xid, None) or Bucket(offset)
        known = self._processed.get((end.lsn, end.xid))
        # A count that was taken up in the middle says nothing of a transaction that was whole before.
        if known == end.change_count or (known is not None and bucket.cut):
            return _SKIPPED
        if end.lsn <= self.commit_lsn:
            raise StopError(
                "SOURCE_WENT_BACK",
                f"transaction {end.xid} at LSN {end.lsn} follows LSN {self.commit_lsn} and was never processed",
            )
        count = bucket.end(end.change_count)
        if self._buckets or bucket.early or bucket.spilled + len(bucket.changes) != count:
            self._check_whole(end, bucket, count)
        self.commit_lsn = end.lsn
        self._processed[end.lsn, end.xid] = count
        if len(self._processed) > RESEND_WINDOW_TRANSACTIONS:
            del self._processed[next(iter(self._processed))]
        return self._large(end, bucket) if bucket.spilled else self._small(end, bucket)

    def _small(self, end: End, bucket: Bucket) -> Transaction:
        ordered = bucket.changes
        rows: Iterable[Any] = ordered
        messages: Iterable[Message] = ()
        if not bucket.rows_alone:
            rows = [change for change in ordered if isinstance(change, RowChange)]
            messages = [change for change in ordered if isinstance(change, Message)]
        # Every change carries the commit time in microseconds; END only in milliseconds.
        time_us = ordered[-1].time_us if ordered else end.time_ms * 1000
        fields = (end.xid, end.lsn, len(ordered), time_us, tuple(rows), tuple(messages))
        return _new(Transaction, fields)

    def _large(self, end: End, bucket: Bucket) -> LargeTransaction:
        rest = bucket.spill(end.xid)
        return LargeTransaction(
            end.xid, end.lsn, bucket.spilled, bucket.time_us, tuple((bucket.messages or {}).values()), rest
        )

    def _check_whole(self, end: End, bucket: Bucket, count: int) -> None:
        if missing := bucket.misses(count):
            raise StopError(
                "INCOMPLETE_TRANSACTION",
                f"transaction {end.xid} at LSN {end.lsn} has {bucket.spilled + bucket.count}"
                f" of {count} changes (missing: {missing})",
            )
        if self._buckets:
            raise StopError(
                "INCOMPLETE_TRANSACTION",
                f"transaction {next(iter(self._buckets))} never ended, but transaction {end.xid} followed it",
            )

    def _safe_offset(self, next_offset: int) -> int:
        # What an open transaction has delivered so far must be read again after a restart.
        return min([next_offset, *(bucket.first_offset for bucket in self._buckets.values())])
