"""Topics that a consumer has a handler for and that do not exist: named after a while, and once a minute. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable

# A topic that was just created is not known everywhere at once.
_GRACE_S = 3.0
_REMINDER_S = 60.0


class AbsentTopics:
    """Fed with the topics that exist; *topics* are those that should."""

    def __init__(self, topics: Iterable[str]) -> None:
        self._wanted = sorted(topics)
        self._since: dict[str, float] = {}
        self._named_at: dict[str, float] = {}
        self.topics: tuple[str, ...] = ()

    def look(self, existing: Collection[str], now: float) -> list[str]:
        """Those that have to be named now; `topics` holds all that have been absent for longer than a moment."""
        for topic in self._wanted:
            if topic in existing:
                self._since.pop(topic, None)
                self._named_at.pop(topic, None)
            else:
                self._since.setdefault(topic, now)
        self.topics = tuple(topic for topic in self._wanted if now - self._since.get(topic, now) >= _GRACE_S)
        due = [topic for topic in self.topics if now - self._named_at.get(topic, now - _REMINDER_S) >= _REMINDER_S]
        self._named_at |= dict.fromkeys(due, now)
        return due
