"""
A batch: events applied in one transaction of the consumer's database, with their marks and offsets.

All of it commits, or nothing. Events are applied in order; a duplicate is skipped, a gap ends the batch before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import psycopg
from psycopg.pq import TransactionStatus

from rowcast.consumer.continuity import Verdict, judge
from rowcast.consumer.handling import Handling
from rowcast.consumer.inbox import Inbox
from rowcast.consumer.partitions import Delivery, Ownership, Partition
from rowcast.errors import MalformedEventError, RowcastError
from rowcast.event import DomainEvent
from rowcast.failpoint import failpoint


class EventFailedError(RowcastError):
    """The handler of *delivery* failed, or the record carries no event; nothing of the batch was committed."""

    def __init__(self, delivery: Delivery, cause: Exception) -> None:
        self.delivery, self.cause = delivery, cause
        super().__init__(f"{delivery}: {type(cause).__name__}: {cause}")


class EventsFailedError(RowcastError):
    """The handler of *deliveries* failed with all of them at once; nothing of the batch was committed."""

    def __init__(self, deliveries: Sequence[Delivery], cause: Exception) -> None:
        self.deliveries, self.cause = deliveries, cause
        super().__init__(f"{len(deliveries)} events from {deliveries[0]} on: {type(cause).__name__}: {cause}")


@dataclass(slots=True)
class Outcome:
    """
    What a transaction did: *last* is the last delivery of each partition that it passed, *targets* the offsets
    that it stored.
    """

    applied: int = 0
    skipped: int = 0
    last: dict[Partition, Delivery] = field(default_factory=dict)
    targets: dict[Partition, int] = field(default_factory=dict)
    gap: tuple[Delivery, int] | None = None  # the event behind a gap, and the mark before it


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What a batch needs to know: the handlers, the horizon of compaction, and when to end early.

    *singly*: every handler is called with one event at a time, so that a failure names its event.
    """

    handlers: Mapping[str, Handling]
    horizon_ms: Callable[[str], float]
    enough: Callable[[], bool]
    singly: bool = False


def apply(
    connection: psycopg.Connection,
    inbox: Inbox,
    batch: Sequence[Delivery],
    owned: Mapping[Partition, Ownership],
    rules: Rules,
) -> Outcome:
    """
    Applies *batch* in one transaction and returns what was committed.

    Raises:
        EventFailedError: a handler failed or a record is malformed; rolled back.
        EventsFailedError: a handler failed with several events at once; rolled back.
        OwnershipLostError: another instance owns one of the partitions now; rolled back.
        psycopg.Error: the database failed; rolled back, or the outcome of COMMIT is unknown.
    """
    failpoint("consumer.before_transaction")
    concerned = [owned[each] for each in sorted({delivery.partition for delivery in batch})]
    with inbox.transaction(concerned, {each.identity for each in batch if each.identity}) as marks:
        failpoint("consumer.after_lock")
        work = _Work(connection, rules, marks)
        work.apply_in_order(batch)
        outcome = work.outcome
        outcome.targets = {partition: owned[partition].target(last) for partition, last in outcome.last.items()}
        inbox.store(work.raised, outcome.targets, owned)
        failpoint("consumer.in_commit")
    failpoint("consumer.after_commit")
    return outcome


@dataclass(slots=True)
class _Work:
    """What happens inside the transaction: *raised* are the marks to be written, *marks* what they were."""

    connection: psycopg.Connection
    rules: Rules
    marks: Mapping[str, int]
    raised: dict[str, int] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)

    def apply_in_order(self, batch: Sequence[Delivery]) -> None:
        """Up to the end, to a gap, or until it is enough."""
        for topic, deliveries in groupby(batch, key=lambda each: each.partition.topic):
            handling = self.rules.handlers[topic]
            horizon_ms = self.rules.horizon_ms(topic)
            if handling.at_once and not self.rules.singly:
                self._handle(handling, [each for each in deliveries if self._due(each, horizon_ms)])
            elif not self._apply_singly(handling, deliveries, horizon_ms):
                break
            if self.outcome.gap is not None or self.rules.enough():
                break

    def _apply_singly(self, handling: Handling, deliveries: Iterable[Delivery], horizon_ms: float) -> bool:
        for delivery in deliveries:
            if self._due(delivery, horizon_ms):
                self._handle(handling, [delivery])
            if self.outcome.gap is not None or self.rules.enough():
                return False
        return True

    def _due(self, delivery: Delivery, horizon_ms: float) -> bool:
        """Whether the event is to be handled now; passes it if it is, or if it was before."""
        if self.outcome.gap is not None:
            return False
        event, identity = delivery.content, delivery.identity
        if isinstance(event, MalformedEventError):
            raise EventFailedError(delivery, event)
        mark = self.raised.get(identity) or self.marks.get(identity, 0)
        verdict = judge(mark, event.version, event.kind, delivery.appended_ms, horizon_ms)
        if verdict is Verdict.GAP:
            self.outcome.gap = (delivery, mark)
            return False
        self.outcome.last[delivery.partition] = delivery
        if verdict is Verdict.SKIP:
            self.outcome.skipped += 1
            return False
        self.raised[identity] = event.version
        self.outcome.applied += 1
        return True

    def _handle(self, handling: Handling, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        events = [each.content for each in deliveries if isinstance(each.content, DomainEvent)]
        try:
            if handling.check is not None:
                for each in events:
                    handling.check(each)
            if handling.upcast is not None:
                events = [handling.upcast(each) for each in events]
            handling.call(events, self.connection)
        # Handlers are foreign code: whatever one raises, its events are not applied and never skipped.
        except Exception as error:
            raise _failed(deliveries, error) from error
        status = self.connection.pgconn.transaction_status
        if status == TransactionStatus.INERROR:
            raise _failed(deliveries, RuntimeError("the handler went on after a failed statement"))
        if status != TransactionStatus.INTRANS:
            raise _failed(deliveries, RuntimeError("the handler ended the transaction"))


def _failed(deliveries: Sequence[Delivery], cause: Exception) -> RowcastError:
    if len(deliveries) == 1:
        return EventFailedError(deliveries[0], cause)
    return EventsFailedError(deliveries, cause)
