"""
A batch: events applied in one transaction of the consumer's database, with their marks and offsets.

All of it commits, or nothing. Events are applied in order; a duplicate is skipped, a gap ends the batch before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.pq import TransactionStatus

from rowcast.consumer.continuity import Verdict, judge
from rowcast.consumer.inbox import Inbox
from rowcast.consumer.partitions import Delivery, Ownership, Partition
from rowcast.errors import MalformedEventError, RowcastError
from rowcast.event import DomainEvent
from rowcast.failpoint import failpoint

Handler = Callable[[DomainEvent, psycopg.Connection], None]


class EventFailedError(RowcastError):
    """The handler of *delivery* failed, or the record carries no event; nothing of the batch was committed."""

    def __init__(self, delivery: Delivery, cause: Exception) -> None:
        self.delivery, self.cause = delivery, cause
        super().__init__(f"{delivery}: {type(cause).__name__}: {cause}")


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
    """What a batch needs to know: the handlers, the horizon of compaction, and when to end early."""

    handlers: Mapping[str, Handler]
    horizon_ms: Callable[[str], float]
    enough: Callable[[], bool]


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
        OwnershipLostError: another instance owns one of the partitions now; rolled back.
        psycopg.Error: the database failed; rolled back, or the outcome of COMMIT is unknown.
    """
    outcome = Outcome()
    failpoint("consumer.before_transaction")
    with connection.transaction():
        inbox.lock_positions([owned[each] for each in sorted({delivery.partition for delivery in batch})])
        marks = inbox.lock_marks({each.identity for each in batch if each.identity})
        failpoint("consumer.after_lock")
        raised = _apply_in_order(connection, batch, marks, rules, outcome)
        inbox.raise_marks(raised)
        outcome.targets = {partition: owned[partition].target(last) for partition, last in outcome.last.items()}
        if outcome.targets:
            inbox.store_positions(outcome.targets, owned)
        failpoint("consumer.in_commit")
    failpoint("consumer.after_commit")
    return outcome


def _apply_in_order(
    connection: psycopg.Connection,
    batch: Sequence[Delivery],
    marks: Mapping[str, int],
    rules: Rules,
    outcome: Outcome,
) -> dict[str, int]:
    raised: dict[str, int] = {}
    for delivery in batch:
        event = delivery.content
        if isinstance(event, MalformedEventError):
            raise EventFailedError(delivery, event)
        mark = raised.get(delivery.identity, marks.get(delivery.identity, 0))
        horizon_ms = rules.horizon_ms(delivery.partition.topic)
        verdict = judge(mark, event.version, event.kind, delivery.appended_ms, horizon_ms)
        if verdict is Verdict.GAP:
            outcome.gap = (delivery, mark)
            break
        if verdict is Verdict.APPLY:
            _handle(connection, delivery, event, rules.handlers[delivery.partition.topic])
            raised[delivery.identity] = event.version
            outcome.applied += 1
        else:
            outcome.skipped += 1
        outcome.last[delivery.partition] = delivery
        if rules.enough():
            break
    return raised


def _handle(connection: psycopg.Connection, delivery: Delivery, event: DomainEvent, handler: Handler) -> None:
    try:
        handler(event, connection)
    # Handlers are foreign code: whatever one raises, its event is not applied and never skipped.
    except Exception as error:
        raise EventFailedError(delivery, error) from error
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise EventFailedError(delivery, RuntimeError("the handler went on after a failed statement"))
    if status != TransactionStatus.INTRANS:
        raise EventFailedError(delivery, RuntimeError("the handler ended the transaction"))
