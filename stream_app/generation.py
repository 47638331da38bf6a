"""
Generations: numbered snapshots of the aggregate types of a source, followed from row to row.

A generation is `reading` while its rows arrive, `emitting` while its events go out in chunks, then
`complete`. It is decided here, from the log alone, when one begins and when it has been read.

One that compares is no snapshot: the events of its types go on, and their rows are marked with its number, so that what
was read beside the log is never put over what the log has brought since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rowcast.errors import StopError
from stream_app.core.change import RowChange
from stream_app.core.emission import Origin, rfc3339

READING, EMITTING, COMPLETE, ABANDONED = "reading", "emitting", "complete", "abandoned"
COMPARING, CANCELLED = "comparing", "cancelled"


class Generation(NamedTuple):
    """*lsn* and *time* are those of its first row, and 0 and empty before it; its events carry them."""

    aggregate: str
    number: int
    status: str
    started_offset: int
    lsn: int
    time: str


class Generations:
    """
    The newest generation of each type, and what of them has changed since the last commit.

    *snapshot_from* tells behind which offset of the change log a snapshot is expected, None when it was never noted.
    While `begun`, rows of a snapshot are arriving. `ends_with_stream`: the next streamed transaction shows that one is
    over, because streaming begins when it has ended.
    """

    def __init__(
        self,
        source: str,
        types: Iterable[str],
        newest: Iterable[Generation],
        snapshot_from: Callable[[], int | None],
    ) -> None:
        self._source = source
        self._snapshot_from = snapshot_from
        self._types = tuple(types)
        self._newest = {each.aggregate: each for each in newest}
        self._changed: list[Generation] = []
        # Asked for with every transaction, so kept and not made each time.
        self.begun = self.ends_with_stream = False
        self._judge()

    @property
    def number(self) -> int:
        """The highest number so far; rows that the stream changes are marked with it."""
        return max((each.number for each in self._newest.values()), default=0)

    @property
    def reading(self) -> frozenset[str]:
        """The types whose rows are still being read: their stream changes go to row state only."""
        return frozenset(name for name in self._types if self._status(name) in (None, READING, ABANDONED))

    @property
    def comparing(self) -> int:
        """The number of the generation that compares; 0: none does."""
        return max((each.number for each in self._newest.values() if each.status == COMPARING), default=0)

    @property
    def expected(self) -> bool:
        """Whether a snapshot is to come that was asked for: the source was set up anew."""
        newest = max((each.started_offset for each in self._newest.values()), default=None)
        asked = self._snapshot_from()
        return newest is not None and asked is not None and newest < asked

    def _status(self, name: str) -> str | None:
        return self._newest[name].status if name in self._newest else None

    def take_changed(self) -> list[Generation]:
        """What has to be written with the next commit."""
        changed, self._changed = self._changed, []
        return changed

    def note_start(self, offset: int) -> None:
        """
        The connector says at *offset* that it begins a snapshot: so does a generation.

        Raises:
            StopError: nobody asked for it: an earlier one was not finished, or is there already. The connector has
                lost its place, goes on with the slot of the first, and the slot's position does not fit what it
                reads now.

        """
        if self.begun:
            raise self._unasked(offset, "while an earlier one was not finished")
        newest = max((each.started_offset for each in self._newest.values()), default=None)
        asked = self._snapshot_from()
        if newest is not None and not (asked is not None and newest < asked <= offset):
            raise self._unasked(offset, "although there was one, and the connector was not set up anew")
        self._begin(READING, offset, 0, "")

    def note_row(self, row: RowChange, offset: int) -> None:
        """
        A snapshot row stands at *offset*.

        Raises:
            StopError: it belongs to a snapshot for which nobody asked, as in `note_start`.

        """
        if not self.begun:
            self.note_start(offset)
        for name, each in self._newest.items():
            if each.status != READING:
                continue
            if not each.lsn:
                self._set(name, each._replace(lsn=row.lsn, time=rfc3339(row.time_us)))
            # All rows of one snapshot carry its LSN; the first table may be empty, then no row is marked as first.
            elif row.first or row.lsn != each.lsn:
                raise self._unasked(offset, "while an earlier one was not finished")

    def _unasked(self, offset: int, why: str) -> StopError:
        return StopError(
            "SNAPSHOT_INTERRUPTED",
            f"a snapshot began at offset {offset} {why}",
            remedy=f"rowcast sources resnapshot {self._source} --yes",
        )

    def begin_emitting(self, offset: int, lsn: int, time: str) -> Origin:
        """
        All rows are read. Returns the origin of the events that go out now.

        *offset*, *lsn* and *time* are those of the unit that shows it; they stand in where no row was read.
        """
        if not self.begun:
            self._begin(READING, offset, lsn, time)
        for name, each in self._newest.items():
            if each.status == READING:
                placed = each if each.lsn else each._replace(lsn=lsn, time=time)
                self._set(name, placed._replace(status=EMITTING))
        emitting = [each for each in self._newest.values() if each.status == EMITTING]
        return Origin(emitting[0].lsn, emitting[0].time, snapshot=True)

    def begin_comparing(self, types: Iterable[str]) -> int | None:
        """
        Mark rows of *types* with a new number from now on, which is returned; None while one of them has no snapshot.

        One that compared until now is cancelled. The place of the types' snapshot stays what it was.
        """
        wanted = [name for name in types if name in self._types]
        if not wanted or self.expected or not self.reading.isdisjoint(wanted):
            return None
        self.cancel_comparing()
        number = self.number + 1
        for name in wanted:
            self._set(name, self._newest[name]._replace(number=number, status=COMPARING))
        return number

    def cancel_comparing(self) -> None:
        """What was read is not applied any more."""
        for name, each in self._newest.items():
            if each.status == COMPARING:
                self._set(name, each._replace(status=CANCELLED))

    def begin_applying(self, number: int) -> bool:
        """The events of what was found different go out now; False: that generation does not compare any more."""
        if self.comparing != number:
            return False
        for name, each in self._newest.items():
            if each.status == COMPARING:
                self._set(name, each._replace(status=EMITTING))
        return True

    def abandon(self) -> None:
        """What was being read will never end; another snapshot follows."""
        for name, each in self._newest.items():
            if each.status == READING:
                self._set(name, each._replace(status=ABANDONED))

    def complete(self) -> None:
        """All events of the running generation are out."""
        for name, each in self._newest.items():
            if each.status == EMITTING:
                self._set(name, each._replace(status=COMPLETE))

    def emitting(self) -> list[Generation]:
        """The generations whose events go out now."""
        return [each for each in self._newest.values() if each.status == EMITTING]

    def _begin(self, status: str, offset: int, lsn: int, time: str) -> None:
        self.cancel_comparing()
        number = self.number + 1
        for name in self._types:
            self._set(name, Generation(name, number, status, offset, lsn, time))

    def _set(self, name: str, generation: Generation) -> None:
        self._newest[name] = generation
        self._changed.append(generation)
        self._judge()

    def _judge(self) -> None:
        statuses = {self._status(name) for name in self._types}
        self.begun = READING in statuses
        # A type that was declared later waits for a snapshot of its own; until then its changes go to row state only.
        self.ends_with_stream = self.begun or statuses <= {None, ABANDONED}
