"""
The tail of the domain topics: events that were published but whose position was not committed.

A worker that claims a source reads them back. The repeated batch skips what is byte-equal; where it would
give other bytes (the mapping changed in between), the published versions stand and it numbers on above them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from rowcast.event import DomainEvent, Record, decode
from stream_app.core.state import Key, Published, publish


@dataclass(frozen=True, slots=True)
class Match:
    """What the tail holds at a version: the *same* record, or others up to *version* that left *published*."""

    same: bool
    version: int = 0
    published: Published | None = None


_SAME = Match(True)


class Tail:
    """The published and uncommitted events of one claim, by aggregate, in version order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._by_key: dict[Key, list[tuple[DomainEvent, Record]]] = {}
        self._stated: Counter[tuple[Key, int, str, bytes]] = Counter()
        for record in records:
            event = decode(*record)
            key = Key(event.identity.aggregate, event.identity.id_text)
            self._by_key.setdefault(key, []).append((event, record))

    def __bool__(self) -> bool:
        return bool(self._by_key)

    @property
    def keys(self) -> frozenset[Key]:
        """The aggregates that still have unmatched versions."""
        return frozenset(self._by_key)

    @property
    def position(self) -> int:
        """The highest commit LSN in the tail: beyond it, nothing can be a repetition."""
        return max(event.position for entries in self._by_key.values() for event, _ in entries)

    def match(self, record: Record, key: Key, version: int) -> Match | None:
        """
        Whether *record*, about to be published as *version* of *key*, stands there already.

        None: the tail knows nothing of it. A matched version is taken off; a mismatch takes all of them.
        """
        entries = self._by_key.get(key)
        # Versions that were committed since the tail's beginning are not news.
        while entries and entries[0][0].version < version:
            del entries[0]
        if not entries:
            self._by_key.pop(key, None)
            return None
        event, published = entries[0]
        if event.version == version and published == record:
            del entries[0]
            if not entries:
                del self._by_key[key]
            return _SAME
        return self.take(key)

    def take(self, key: Key) -> Match:
        """All remaining versions of *key*, which stand although nothing repeated them."""
        taken = self._by_key.pop(key)
        self._stated.update(
            (key, event.position, event.stated, orjson.dumps(event.data, option=orjson.OPT_SORT_KEYS))
            for event, _ in taken
            if event.stated is not None
        )
        last = taken[-1][0]
        state = None if last.after is None else publish(last.after, last.ancestors)
        return Match(False, last.version, state)

    def was_stated(self, key: Key, lsn: int, event: str, data: bytes) -> bool:
        """Whether one of the versions that stand says this already; once for each of them."""
        said = key, lsn, event, data
        if not self._stated[said]:
            return False
        self._stated[said] -= 1
        return True
