"""What a service says to its consumer: handlers, and the bounds of a transaction. Needs neither Kafka nor database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from rowcast.event import DomainEvent

if TYPE_CHECKING:
    import psycopg

Handler: TypeAlias = "Callable[[DomainEvent, psycopg.Connection], None]"
BatchHandler: TypeAlias = "Callable[[Sequence[DomainEvent], psycopg.Connection], None]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a consumer was told: *batch_events* and *batch_s* bound one transaction."""

    name: str
    database: str = field(repr=False)
    brokers: str
    batch_events: int
    batch_s: float
    security: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Handling:
    """
    What is done with the events of one topic: *call* takes them one by one, or *at_once* all that there are.

    *check* raises for one that its contract does not accept, *upcast* turns each into the handler's major, where an
    older one is read.
    """

    call: BatchHandler
    at_once: bool
    check: Callable[[DomainEvent], None] | None = None
    upcast: Callable[[DomainEvent], DomainEvent] | None = None

    @classmethod
    def one_by_one(cls, handler: Handler) -> Handling:
        """A handler of single events."""

        def call(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
            for event in events:
                handler(event, connection)

        return cls(call, at_once=False)
