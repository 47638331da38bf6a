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

from rowcast.annotation import STATED_PREFIX
from rowcast.errors import MalformedChangeError, StopError
from rowcast.limit import limit
from rowcast.sources.tenant import TableNames
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
class Spill:
    """
    Changes and stated events of an open transaction that is too large for memory, each in order.

    Nothing of it may go out yet.
    """

    changes: tuple[tuple[int, RowChange], ...]
    statements: tuple[Message, ...] = ()


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


class _Bucket:
    """
    An open transaction. Its changes 1..*spilled* are in the shell's hands already; *changes* follow them without a gap.

    What came before its turn waits in *early*, by order: changes are missing before it. *cut*: the connector has not
    sent it from its BEGIN since it was started last, and may number its changes otherwise than it did before.
    """

    # As most transactions have them to their end; one is made of every transaction.
    early: dict[int, RowChange | Message] | None = None
    spilled = 0
    cut = True
    tail: tuple[RowChange | Message, ...] = ()  # the last of those that were spilled
    first_of: int | None = None  # the LSN of a COPY's rows of which only the first had come when the connector went on
    rows_alone = True  # no message among the changes
    messages: dict[str, Message] | None = None
    time_us = 0

    def __init__(self, first_offset: int) -> None:
        self.first_offset = first_offset
        self.changes: list[RowChange | Message] = []

    def put(self, order: int, change: RowChange | Message) -> None:
        """Keep *change*, which is number *order* of the transaction, unless it was delivered before."""
        if change.__class__ is Message:
            self.rows_alone = False
        changes = self.changes
        place = order - self.spilled - len(changes)
        if self.first_of is not None:
            # What was delivered before says that it goes on earlier.
            self._check_next(change if place > 0 else None)
        if place == 1:
            changes.append(change)
            if self.early:
                self._follow(self.early)
        elif place > 1:
            self.early = self.early or {}
            self.early.setdefault(order, change)

    def _follow(self, early: dict[int, RowChange | Message]) -> None:
        while change := early.pop(self.spilled + len(self.changes) + 1, None):
            self.changes.append(change)

    def resume(self) -> None:
        """
        Note that the connector goes on in the middle of it.

        The rows of a COPY share an LSN page by page. Debezium 3.7.0 that has stored its place at the first of a page
        leaves the others out, and counts in END what it sent.
        """
        self.cut = True
        last = [each for each in (*self.tail, *self.changes)[-3:] if isinstance(each, RowChange)]
        if len(last) == 3 and {(each.operation, each.table) for each in last} == {(Operation.CREATE, last[0].table)}:
            one, two, three = (each.lsn for each in last)
            self.first_of = three if one == two != three else None

    def begin(self) -> None:
        """Note that it is sent from its BEGIN."""
        self.cut, self.first_of = False, None

    def end(self) -> None:
        """
        See that nothing was left out before its END.

        Raises:
            StopError: the connector has left rows out.

        """
        if self.first_of is not None:
            self._refuse_gap(self.first_of)

    def _check_next(self, change: RowChange | Message | None) -> None:
        lsn, self.first_of = self.first_of, None
        if lsn is not None and change is not None and not (isinstance(change, RowChange) and change.lsn == lsn):
            self._refuse_gap(lsn)

    @staticmethod
    def _refuse_gap(lsn: int) -> None:
        raise StopError(
            "INCOMPLETE_TRANSACTION",
            f"the connector was started again at LSN {lsn}, in the middle of a COPY, and left rows of it out",
        )

    def forget(self) -> None:
        """Drop what stands here: if END does not say that it is known, it is missing."""
        self.changes, self.early = [], None

    @property
    def count(self) -> int:
        """How many changes stand here."""
        return len(self.changes) + len(self.early or ())

    def misses(self, change_count: int) -> list[int]:
        """The first few of the changes 1..*change_count* that are not there; or those that are too many."""
        known = self.spilled + len(self.changes)
        if known == change_count and not self.early:
            return []
        there = {*range(1, known + 1), *(self.early or ())}
        return sorted(there ^ set(range(1, change_count + 1)))[:5]

    def spill(self, xid: int) -> Spill:
        """Hand the changes over; they have to follow what was handed over before."""
        if self.early:
            raise StopError("INCOMPLETE_TRANSACTION", f"transaction {xid} misses changes before {max(self.early)}")
        taken = self.changes
        placed = enumerate(taken, self.spilled + 1)
        rows = tuple([(order, each) for order, each in placed if isinstance(each, RowChange)])
        said = [] if self.rows_alone else [each for each in taken if isinstance(each, Message)]
        # Only the last context counts; a transaction may hold any number of messages.
        kept = {each.prefix: each for each in said if each.prefix != STATED_PREFIX}
        self.messages = {**(self.messages or {}), **kept}
        self.time_us = taken[-1].time_us if taken else self.time_us
        self.spilled += len(taken)
        self.changes, self.tail = [], tuple(taken[-3:])
        return Spill(rows, tuple(each for each in said if each.prefix == STATED_PREFIX))


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
        self._buckets: dict[int, _Bucket] = {}
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
                self._buckets[change.xid] = _Bucket(offset)
            self._buckets[change.xid].begin()
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
                bucket.resume()
                if self._may_be_processed(xid):
                    bucket.first_of = None  # it was whole before
        nothing = None if self._buckets else _SKIPPED
        return change if isinstance(change, LooseMessage) else nothing

    def _put(self, offset: int, change: RowChange | Message) -> Unit | None:
        if change.xid is None or change.order is None:
            raise StopError("MALFORMED_CHANGE", f"offset {offset}: a streamed change without its transaction")
        bucket = self._buckets.get(change.xid)
        if bucket is None:
            bucket = self._buckets[change.xid] = _Bucket(offset)
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
        bucket = self._buckets.pop(end.xid, None) or _Bucket(offset)
        known = self._processed.get((end.lsn, end.xid))
        # Started again between changes of one LSN, Debezium counts some of them twice, or leaves the rest of them out:
        # such a count says nothing of a transaction that was whole before.
        if known == end.change_count or (known is not None and bucket.cut):
            return _SKIPPED
        if end.lsn <= self.commit_lsn:
            raise StopError(
                "SOURCE_WENT_BACK",
                f"transaction {end.xid} at LSN {end.lsn} follows LSN {self.commit_lsn} and was never processed",
            )
        bucket.end()
        if self._buckets or bucket.early or bucket.spilled + len(bucket.changes) != end.change_count:
            self._check_whole(end, bucket)
        self.commit_lsn = end.lsn
        self._processed[end.lsn, end.xid] = end.change_count
        if len(self._processed) > RESEND_WINDOW_TRANSACTIONS:
            del self._processed[next(iter(self._processed))]
        return self._large(end, bucket) if bucket.spilled else self._small(end, bucket)

    def _small(self, end: End, bucket: _Bucket) -> Transaction:
        ordered = bucket.changes
        rows: Iterable[Any] = ordered
        messages: Iterable[Message] = ()
        if not bucket.rows_alone:
            rows = [change for change in ordered if isinstance(change, RowChange)]
            messages = [change for change in ordered if isinstance(change, Message)]
        # Every change carries the commit time in microseconds; END only in milliseconds.
        time_us = ordered[-1].time_us if ordered else end.time_ms * 1000
        fields = (end.xid, end.lsn, end.change_count, time_us, tuple(rows), tuple(messages))
        return _new(Transaction, fields)

    def _large(self, end: End, bucket: _Bucket) -> LargeTransaction:
        rest = bucket.spill(end.xid)
        return LargeTransaction(
            end.xid, end.lsn, end.change_count, bucket.time_us, tuple((bucket.messages or {}).values()), rest
        )

    def _check_whole(self, end: End, bucket: _Bucket) -> None:
        if missing := bucket.misses(end.change_count):
            raise StopError(
                "INCOMPLETE_TRANSACTION",
                f"transaction {end.xid} at LSN {end.lsn} has {bucket.spilled + bucket.count}"
                f" of {end.change_count} changes (missing: {missing})",
            )
        if self._buckets:
            raise StopError(
                "INCOMPLETE_TRANSACTION",
                f"transaction {next(iter(self._buckets))} never ended, but transaction {end.xid} followed it",
            )

    def _safe_offset(self, next_offset: int) -> int:
        # What an open transaction has delivered so far must be read again after a restart.
        return min([next_offset, *(bucket.first_offset for bucket in self._buckets.values())])
