"""
The tail of the domain topics: events that were published but whose position was not committed.

A worker that claims a source reads them back. The repeated batch skips what is byte-equal; where it would
give other bytes (the mapping changed in between), the published versions stand and it numbers on above them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from rowcast.event import DomainEvent, Record, decode
from stream_app.core.state import Key, Published, publish


@dataclass(frozen=True, slots=True)
class Match:
    """
    What the tail holds at a version: the *same* records, or others up to *version* that left *published*.

    *majors* are those in which that version went out; *published* has the form of the newest.
    """

    same: bool
    version: int = 0
    published: Published | None = None
    majors: tuple[int, ...] = ()


_SAME = Match(True)


@dataclass(slots=True)
class _Version:
    """One version of an aggregate in all majors in which it was published, by topic."""

    number: int
    records: dict[str, Record] = field(default_factory=dict)
    events: dict[int, DomainEvent] = field(default_factory=dict)

    @property
    def newest(self) -> DomainEvent:
        """The event in the newest major."""
        return self.events[max(self.events)]


class Tail:
    """The published and uncommitted events of one claim: *waiting* has them by aggregate, in version order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._stated: Counter[tuple[Key, int, str, bytes]] = Counter()
        versions: dict[Key, dict[int, _Version]] = {}
        for record in records:
            event = decode(*record)
            key = Key(event.identity.aggregate, event.identity.id_text)
            version = versions.setdefault(key, {}).setdefault(event.version, _Version(event.version))
            version.records[record.topic] = record
            version.events[event.major] = event
        self.waiting = {key: [each[number] for number in sorted(each)] for key, each in versions.items()}

    def __bool__(self) -> bool:
        return bool(self.waiting)

    @property
    def keys(self) -> frozenset[Key]:
        """The aggregates that still have unmatched versions."""
        return frozenset(self.waiting)

    @property
    def position(self) -> int:
        """The highest commit LSN in the tail: beyond it, nothing can be a repetition."""
        versions = (version for entries in self.waiting.values() for version in entries)
        return max(event.position for version in versions for event in version.events.values())

    def match(self, records: Sequence[Record], key: Key, version: int) -> Match | None:
        """
        Whether *records*, about to be published as *version* of *key*, stand there already.

        None: the tail knows nothing of it. A matched version is taken off; a mismatch takes all of them.
        """
        entries = self.waiting.get(key)
        # Versions that were committed since the tail's beginning are not news.
        while entries and entries[0].number < version:
            del entries[0]
        if not entries:
            self.waiting.pop(key, None)
            return None
        published = entries[0]
        if published.number == version and published.records == {each.topic: each for each in records}:
            del entries[0]
            if not entries:
                del self.waiting[key]
            return _SAME
        return self.take(key)

    def take(self, key: Key) -> Match:
        """All remaining versions of *key*, which stand although nothing repeated them."""
        taken = self.waiting.pop(key)
        said = [version.newest for version in taken if version.newest.stated is not None]
        self._stated.update(
            (key, event.position, event.name, orjson.dumps(event.data, option=orjson.OPT_SORT_KEYS)) for event in said
        )
        last = taken[-1]
        event = last.newest
        state = None if event.after is None else publish(event.after, event.ancestors)
        return Match(False, last.number, state, tuple(sorted(last.events, reverse=True)))

    def was_stated(self, key: Key, lsn: int, event: str, data: bytes) -> bool:
        """Whether one of the versions that stand says this already; once for each of them, whatever their majors."""
        said = key, lsn, event, data
        if not self._stated[said]:
            return False
        self._stated[said] -= 1
        return True
