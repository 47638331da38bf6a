"""
An open transaction, as its changes come in.

Debezium numbers them, and counts them in END. Started again between changes of one LSN (the rows of a COPY share one
page by page, a changed key is a DELETE and an INSERT), Debezium 3.7.0 may leave the rest of them out or send some
twice, and numbers what follows accordingly. What was delivered before brings such numbers back to those of before;
where it cannot, the source stops.

Started again right behind a BEGIN, it looks for the place where the transaction before it was committed, and takes a
change for it that was written right there: what the transaction had written earlier is left out, and nothing but the
BEGIN that is not sent again tells.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from rowcast.annotation import STATED_PREFIX
from rowcast.errors import StopError
from stream_app.core.change import Message, Operation, RowChange

# Of so many changes that are no longer in memory the LSNs still are: more than a connector is expected to send again.
_KNOWN_LSNS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Spill:
    """
    Changes and stated events of an open transaction that is too large for memory, each in order.

    Nothing of it may go out yet.
    """

    changes: tuple[tuple[int, RowChange], ...]
    statements: tuple[Message, ...] = ()


class Bucket:
    """
    An open transaction. Its changes 1..*spilled* are in the shell's hands already; *changes* follow them without a gap.

    What came before its turn waits in *early*, by order: changes are missing before it. *cut*: the connector has not
    sent it from its BEGIN since it was started last, and may number its changes otherwise than it did before: by
    *shift* less.
    """

    # As most transactions have them to their end; one is made of every transaction.
    early: dict[int, RowChange | Message] | None = None
    spilled = 0
    cut = True
    shift = 0
    whole_before = False  # it is sent again, and nothing of it is asked for
    tail: tuple[RowChange | Message, ...] = ()  # the last of those that were spilled
    spilled_lsns: array[int] | None = None  # of the last of them
    begin_lsn = 0
    # Of the next change, else some were left out: when the connector went on, only the first of a COPY's rows with this
    # LSN had come, or BEGIN alone.
    next_lsn: int | None = None
    rows_alone = True  # no message among the changes
    messages: dict[str, Message] | None = None
    time_us = 0

    def __init__(self, first_offset: int) -> None:
        self.first_offset = first_offset
        self.changes: list[RowChange | Message] = []

    def put(self, order: int, change: RowChange | Message) -> None:
        """
        Keep *change*, which the connector calls number *order* of the transaction, unless it was delivered before.

        Raises:
            StopError: the connector has left changes out.

        """
        if change.__class__ is Message:
            self.rows_alone = False
        changes = self.changes
        place = order + self.shift - self.spilled - len(changes)
        if self.next_lsn is not None:
            # What was delivered before says that it goes on earlier.
            self._check_next(change if place > 0 else None)
        if place == 1:
            changes.append(change)
            if self.early:
                self._follow(self.early)
        elif place > 1:
            self.early = self.early or {}
            self.early.setdefault(order + self.shift, change)
        elif self.cut and not self.whole_before:
            self._align(order, change)

    def _follow(self, early: dict[int, RowChange | Message]) -> None:
        while change := early.pop(self.spilled + len(self.changes) + 1, None):
            self.changes.append(change)

    def _align(self, order: int, change: RowChange | Message) -> None:
        """See that *change* is what was delivered before in its place; else find its place, and so that of others."""
        place = order + self.shift
        known = self._lsn_at(place)
        if known == change.lsn or not known or not change.lsn:
            return
        if there := self._place_of(change.lsn):
            self.shift = there - order
        elif self._is_left_of_a_changed_key(place):
            self.shift += 1
            self.put(order, change)
        else:
            # It comes behind all that was delivered, of which one LSN was the last: who knows what else it had.
            self._refuse_gap(known)

    def _lsn_at(self, place: int) -> int:
        """Of the change that was delivered as number *place*; 0 if nobody knows any more."""
        if place > self.spilled:
            return self.changes[place - self.spilled - 1].lsn
        lsns = self.spilled_lsns or array("q")
        index = place - 1 - self.spilled + len(lsns)
        return lsns[index] if index >= 0 else 0

    def _place_of(self, lsn: int) -> int | None:
        """The number of the first change with this *lsn*."""
        lsns = self.spilled_lsns or array("q")
        if lsn in lsns:
            return self.spilled - len(lsns) + lsns.index(lsn) + 1
        places = (number for number, each in enumerate(self.changes, self.spilled + 1) if each.lsn == lsn)
        return next(places, None)

    def _is_left_of_a_changed_key(self, place: int) -> bool:
        """Whether the last that was delivered is number *place*, and the INSERT of a changed key."""
        last = self._last(2)
        if len(last) < 2 or place != self.spilled + len(self.changes):
            return False
        one, two = last
        return (one.operation, two.operation, one.lsn) == (Operation.DELETE, Operation.CREATE, two.lsn)

    def _last(self, count: int) -> list[RowChange]:
        return [each for each in (*self.tail, *self.changes)[-count:] if isinstance(each, RowChange)]

    def resume(self, commit_lsn: int, *, whole_before: bool) -> None:
        """
        Note that the connector goes on in the middle of it; *whole_before*: of one that is known already.

        *commit_lsn* is that of the transaction before it.
        """
        self.cut, self.shift, self.whole_before = True, 0, whole_before
        last = self._last(3)
        self.next_lsn = None
        if whole_before:
            return
        if len(last) == 3 and {(each.operation, each.table) for each in last} == {(Operation.CREATE, last[0].table)}:
            one, two, three = (each.lsn for each in last)
            self.next_lsn = three if one == two != three else None
        elif self.spilled + self.count == 0 and 0 < self.begin_lsn < commit_lsn:
            self.next_lsn = self.begin_lsn

    def begin(self, lsn: int) -> None:
        """Note that it is sent from its BEGIN, which says *lsn*."""
        self.cut, self.shift, self.next_lsn, self.begin_lsn = False, 0, None, lsn

    def end(self, change_count: int) -> int:
        """
        How many changes it has, which its END counts as *change_count*.

        Raises:
            StopError: the connector has left changes out before its END.

        """
        if self.next_lsn is not None:
            self._refuse_gap(self.next_lsn)
        last = change_count + self.shift + 1
        if self.cut and self._is_left_of_a_changed_key(last):
            self.shift += 1
        return change_count + self.shift

    def _check_next(self, change: RowChange | Message | None) -> None:
        lsn, self.next_lsn = self.next_lsn, None
        if lsn is not None and change is not None and change.lsn != lsn:
            self._refuse_gap(lsn)

    def _refuse_gap(self, lsn: int) -> None:
        at_begin = self.spilled + self.count == 0
        where = "behind a BEGIN alone" if at_begin else "between changes that share it as rows of a COPY do"
        raise StopError(
            "INCOMPLETE_TRANSACTION", f"the connector was started again at LSN {lsn}, {where}, and left some out"
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
        lsns = self.spilled_lsns or array("q")
        self.spilled_lsns = (lsns + array("q", [each.lsn for each in taken]))[-_KNOWN_LSNS_MAX:]
        self.changes, self.tail = [], tuple(taken[-3:])
        return Spill(rows, tuple(each for each in said if each.prefix == STATED_PREFIX))
