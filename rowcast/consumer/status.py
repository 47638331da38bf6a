"""What a running consumer says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BlockedEvent:
    """An event that fails again and again: its partition waits for it, in order."""

    event_id: str | None  # None: the record carries no event
    topic: str
    partition: int
    offset: int
    reason: str
    tries: int


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """
    A consumer instance at one moment.

    *running* is True between start and end of `run`. *positions* maps (topic, partition) of the owned partitions
    to the offset that the database holds. *applied* and *skipped* count the events since the start. *absent* are
    the topics with a handler that do not exist. *deprecated* maps those whose events say that their major ends to the
    last day on which it is published.
    """

    running: bool = False
    positions: Mapping[tuple[str, int], int] = field(default_factory=dict)
    applied: int = 0
    skipped: int = 0
    blocked: tuple[BlockedEvent, ...] = ()
    absent: tuple[str, ...] = ()
    deprecated: Mapping[str, str] = field(default_factory=dict)
