"""Whether everything that was committed has arrived: on the topics, and at the consumer. Waits, never judges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from examples.inventory.published import GONE, Key, State
from examples.main_job.evidence import AppendedRecord
from examples.main_job.expectation import token
from rowcast.errors import MalformedEventError
from rowcast.event import decode


class Arrival:
    """Follows the domain topics: the newest state of each aggregate, and all event ids."""

    def __init__(self) -> None:
        self._newest: dict[Key, tuple[int, bytes]] = {}
        self._ids: set[str] = set()

    @property
    def published(self) -> int:
        """How many different events there are."""
        return len(self._ids)

    def follow(self, records: Iterable[AppendedRecord]) -> None:
        """Take in what a reader got; what is no event is left to the verdict."""
        for record in records:
            try:
                event = decode(record.topic, record.key, record.value, record.headers)
            except MalformedEventError:
                continue
            key = Key(event.identity.aggregate, event.identity.id_text)
            ancestors = {name: list(ids or ()) for name, ids in event.ancestors.items()}
            state = GONE if event.after is None else State(event.after, ancestors)
            if event.version > self._newest.get(key, (0, b""))[0]:
                self._newest[key] = event.version, token(state)
            self._ids.add(event.id)

    def missing(self, tokens: Mapping[Key, bytes]) -> int:
        """How many aggregates do not have the state that *tokens* name as their newest."""
        return sum(self._newest.get(key, (0, b""))[1] != wanted for key, wanted in tokens.items())

    def unapplied(self, applied: Collection[str]) -> int:
        """How many events are not among the *applied* ids."""
        return sum(event_id not in applied for event_id in self._ids)
