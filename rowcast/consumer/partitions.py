"""
The partitions that this instance owns: what has been read of them and waits to be applied. No I/O.

A failing event blocks its own partition, in order; the other partitions go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rowcast.errors import MalformedEventError
from rowcast.event import DomainEvent

_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 30.0


class Partition(NamedTuple):
    """A partition of a topic; sorts in the one order in which rows are locked."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Delivery(NamedTuple):
    """A record as read: the event it carries, or why it carries none."""

    partition: Partition
    offset: int
    appended_ms: int | None  # None: the topic does not keep the broker's append time
    content: DomainEvent | MalformedEventError
    identity: str = ""  # the aggregate's canonical text, made once

    def __str__(self) -> str:
        name = self.content.id if isinstance(self.content, DomainEvent) else "malformed record"
        return f"{name} at {self.partition} offset {self.offset}"


@dataclass(slots=True)
class Block:
    """An event that fails: since when, how often, why, and when it is tried again (monotonic seconds)."""

    delivery: Delivery
    reason: str
    since: float
    tries: int
    retry_at: float

    def failed_again(self, reason: str, now: float) -> None:
        """Counts a try and puts the next one off for twice as long, 30 s at most."""
        self.reason, self.tries = reason, self.tries + 1
        self.retry_at = now + min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(self.tries - 1, 20))


@dataclass(slots=True)
class Ownership:
    """
    One owned partition.

    *generation* and *next_offset* are what the database holds; *fetched* is the first offset not read yet.
    *fence* is the offset of an event that failed within a batch: those before it are applied first, then it alone.
    """

    partition: Partition
    generation: int
    next_offset: int
    fetched: int
    queue: deque[Delivery] = field(default_factory=deque)
    fence: int | None = None
    block: Block | None = None

    def take(self, limit: int) -> list[Delivery]:
        """The next deliveries to apply together, at most *limit*; a suspect one comes alone."""
        taken: list[Delivery] = []
        for delivery in self.queue:
            if len(taken) >= limit or (taken and self._suspect(delivery)):
                break
            taken.append(delivery)
            if self._suspect(delivery):
                break
        return taken

    def _suspect(self, delivery: Delivery) -> bool:
        return delivery.offset == self.fence or isinstance(delivery.content, MalformedEventError)

    def suspicious(self) -> bool:
        """Whether the next delivery has to be applied alone."""
        return bool(self.queue) and self._suspect(self.queue[0])

    def failed(self, delivery: Delivery, reason: str, now: float) -> Block:
        """The first delivery failed alone: it blocks this partition."""
        if self.block is None or self.block.delivery.offset != delivery.offset:
            self.block = Block(delivery, reason, now, 0, now)
        self.block.failed_again(reason, now)
        return self.block

    def moved(self, next_offset: int) -> Block | None:
        """The database holds *next_offset* now: drops what lies before; the block that this ended, if any."""
        self.next_offset = next_offset
        while self.queue and self.queue[0].offset < next_offset:
            self.queue.popleft()
        if self.fence is not None and self.fence < next_offset:
            self.fence = None
        ended = self.block if self.block is not None and self.block.delivery.offset < next_offset else None
        if ended is not None:
            self.block = None
        return ended

    def rewound(self, generation: int, next_offset: int) -> None:
        """The database says where to read on: what was read is forgotten."""
        self.generation, self.fetched = generation, next_offset
        self.queue.clear()
        self.moved(next_offset)

    def target(self, applied: Delivery) -> int:
        """The next offset after *applied*: behind everything read, when nothing else waits."""
        if applied.offset == self.queue[-1].offset:
            return self.fetched
        return applied.offset + 1


def choose(owned: Mapping[Partition, Ownership], limit: int, now: float) -> list[Delivery]:
    """
    The next batch: at most *limit* deliveries, each partition's in offset order.

    A suspect delivery makes a batch of its own, and not before its time to be retried has come.
    """
    ready = [each for each in owned.values() if each.queue and (each.block is None or each.block.retry_at <= now)]
    for ownership in ready:
        if ownership.suspicious():
            return ownership.take(1)
    batch: list[Delivery] = []
    # The partitions of a topic stand together, for the handlers that take many events at once.
    for ownership in sorted(ready, key=lambda each: each.partition):
        batch += ownership.take(limit - len(batch)) if len(batch) < limit else []
    return batch


def next_retry(owned: Iterable[Ownership]) -> float | None:
    """When the next blocked delivery is due, in monotonic seconds."""
    return min((each.block.retry_at for each in owned if each.block is not None), default=None)
