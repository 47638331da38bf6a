"""
One running instance of a consumer: membership, reader and database brought together in a single loop.

Each round takes over what the group assigned, applies what has been read, or reads more. What can be retried is
retried here with backoff; only an integrity fault or a wrong configuration ends the loop.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import psycopg

from rowcast.consumer.batch import EventFailedError, EventsFailedError, Outcome, Rules, apply
from rowcast.consumer.clock import BrokerClock
from rowcast.consumer.connection import client_options
from rowcast.consumer.database import Database
from rowcast.consumer.handling import Handling, Settings
from rowcast.consumer.inbox import Position, changed
from rowcast.consumer.membership import HEARTBEAT_S, Assignment, Membership
from rowcast.consumer.partitions import Block, Delivery, Ownership, Partition, choose, next_retry
from rowcast.consumer.reader import OutOfRangeError, Reader
from rowcast.consumer.status import BlockedEvent, ConsumerStatus
from rowcast.consumer.succession import check_succession
from rowcast.consumer.window import Topics
from rowcast.errors import OwnershipLostError, StopError, TransientError
from rowcast.event import DomainEvent
from rowcast.failpoint import failpoint

_log = logging.getLogger("rowcast.consumer")

_POLL_S = 0.2
_IDLE_STORE_S = 1.0
_POSITIONS_S = 0.1
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0
_REMINDER_S = 60.0
# A zombie that the group has gone on without learns of it by its next heartbeat, before it claims again.
_RECLAIM_S = HEARTBEAT_S + 1.0
_DEADLOCK_TRIES = 3
# Cut off from its database for so long, an instance leaves its partitions to others, whose road may be better.
_CUT_OFF_S = 5.0


class Instance:
    """Runs until *stopping* says so; *publish* is told the status whenever it changes."""

    def __init__(
        self,
        settings: Settings,
        handlers: Mapping[str, Handling],
        stopping: Callable[[], bool],
        publish: Callable[[ConsumerStatus], None],
    ) -> None:
        self._settings, self._handlers = settings, handlers
        self._stopping, self._publish = stopping, publish
        self._options = client_options(settings.brokers, settings.security)
        self._membership = Membership(self._options, settings.name, handlers)
        self._database = Database(settings.database, settings.name)
        self._topics = Topics(self._options)
        self._clock = BrokerClock()
        self._reader: Reader | None = None
        self._assignment = Assignment(0, frozenset())
        self._owned: dict[Partition, Ownership] = {}
        self._reclaim_at: dict[Partition, float] = {}
        self._limit = settings.batch_events
        self._singly = False
        self._stored_at = 0.0
        self._doubtful: tuple[Partition, int] | None = None
        self._deadlocks = 0
        self._named_at_once_at = -_REMINDER_S
        self._outages = 0
        self._round_at = 0.0
        self._cut_off_at: float | None = None
        self._reminded_at: dict[Partition, float] = {}
        self._applied = self._skipped = 0
        self._absent: tuple[str, ...] = ()
        self._deprecated: dict[str, str] = {}
        self._name = f"{platform.node()}:{os.getpid()}"

    def run(self) -> None:
        """
        Works until it is told to stop.

        Raises:
            StopError: an integrity fault; nothing behind it was applied.
            ConfigurationError: the broker refuses this client.
        """
        self._membership.start()
        try:
            while not self._stopping():
                try:
                    self._round()
                except (TransientError, psycopg.OperationalError) as error:
                    self._outage(error)
                else:
                    self._recovered()
        finally:
            self._close()

    def _close(self) -> None:
        self._membership.close()
        if self._reader is not None:
            self._reader.close()
        self._database.close()
        self._owned.clear()
        self._tell(running=False)

    # One round

    def _round(self) -> None:
        self._round_at = time.monotonic()
        assignment = self._membership.alive()
        if self._absent != self._membership.absent:
            self._absent = self._membership.absent
            self._tell()
        if not self._database.connected:
            self._reconnect()
            self._cut_off_at = None
            self._membership.work()
        if assignment.number != self._assignment.number:
            self._take_over(assignment)
        now = time.monotonic()
        due = [each for each, at in self._reclaim_at.items() if at <= now]
        if due:
            self._claim(due)
        batch = choose(self._owned, self._limit, now)
        if batch:
            self._apply(batch)
        elif self._owned:
            self._read()
        else:
            self._membership.wait_for_change(assignment.number, _POLL_S)

    def _outage(self, error: Exception) -> None:
        if isinstance(error, OutOfRangeError):
            self._forget(error.partitions, reclaim_in_s=0)
        if self._reader is not None and not isinstance(error, psycopg.Error) and self._database.connected:
            self._reader.close()
            self._reader = None
        if not self._database.connected:
            self._cut_off_at = self._cut_off_at or self._round_at
            if time.monotonic() - self._cut_off_at > _CUT_OFF_S:
                self._membership.rest()
        if self._outages == 0:
            _log.warning("%s; trying again", error)
        backoff_s = min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** min(self._outages, 20))
        self._outages += 1
        deadline = time.monotonic() + backoff_s
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _recovered(self) -> None:
        if self._outages > 1:
            _log.warning("going on after %d tries", self._outages)
        self._outages = 0

    # Ownership

    def _reconnect(self) -> None:
        self._database.open()
        with self._database.errors(), self._database.connection.transaction():
            held = self._database.inbox.positions(self._owned)
            self._clock.database(self._database.inbox.now_ms())
        # The outcome of the last COMMIT may be unknown: what the rows say counts.
        generations = {each.partition: each.generation for each in held}
        moved = changed(self._owned.values(), held)
        self._forget([each for each in self._owned if generations.get(each) != self._owned[each].generation])
        for position in held:
            if position.partition in moved and position.partition in self._owned:
                self._owned[position.partition].rewound(position.generation, position.next_offset)
                self._reading().seek(position.partition, position.next_offset)

    def _take_over(self, assignment: Assignment) -> None:
        self._forget(list(self._owned))
        self._reclaim_at.clear()
        self._claim(assignment.partitions)
        self._assignment = assignment
        _log.info("assigned: %s", ", ".join(map(str, sorted(assignment.partitions))) or "nothing")

    def _claim(self, partitions: Iterable[Partition]) -> None:
        claimed = sorted(partitions)
        if claimed:
            self._topics.learn({each.topic for each in claimed})
            topic_ids = {each: self._topics[each.topic].topic_id for each in claimed}
            with self._database.errors():
                self._database.inbox.end_frozen()
            self._check_succession({each.topic for each in claimed})
            with self._database.errors(), self._database.connection.transaction():
                held = self._database.inbox.claim(topic_ids, self._name)
                self._clock.database(self._database.inbox.now_ms())
                failpoint("consumer.in_claim")
            # Read after the claim: what an earlier owner committed until then lies inside.
            ranges = self._reading().ranges(claimed)
            for position in held:
                start = self._start(position, topic_ids[position.partition], *ranges[position.partition])
                self._owned[position.partition] = Ownership(
                    position.partition, position.generation, position.next_offset, start
                )
        for partition in claimed:
            self._reclaim_at.pop(partition, None)
        if self._reader is not None:
            self._reader.assign(self._owned)
            for partition in claimed:
                self._reader.seek(partition, self._owned[partition].fetched)
        self._tell()

    def _check_succession(self, topics: Iterable[str]) -> None:
        """Before a topic is read for the first time: what the consumer has read of the aggregate in another major."""
        for topic in sorted(topics):
            with self._database.errors():
                read = self._database.inbox.former_major(topic)
            if read:
                check_succession(topic, next(iter(read)).topic, read, self._reading())

    def _start(self, position: Position, topic_id: str | None, first: int, end: int) -> int:
        if position.next_offset > end or (topic_id and position.topic_id not in {None, topic_id}):
            raise StopError(
                "TOPIC_RECREATED",
                f"{position.partition} is not the log that was read: offset {position.next_offset} of topic "
                f"{position.topic_id} was stored, the log is {topic_id} and ends at {end}",
                remedy="make sure that the topic is the right one, then delete this consumer's rows of it from "
                "rowcast_inbox.offset_position: it is read from its beginning, and marks keep duplicates out",
            )
        if 0 < position.next_offset < first:
            _log.warning(
                "%s: offsets %d to %d were deleted before they were read; going on from the start of the log",
                position.partition,
                position.next_offset,
                first,
            )
        return max(position.next_offset, first)

    def _forget(self, partitions: Iterable[Partition], reclaim_in_s: float = _RECLAIM_S) -> None:
        gone = [each for each in partitions if self._owned.pop(each, None) is not None]
        for partition in gone:
            self._reclaim_at[partition] = time.monotonic() + reclaim_in_s
        if self._reader is not None and gone:
            self._reader.assign(self._owned)
        self._tell()

    # Reading

    def _reading(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._options, self._settings.batch_events)
            self._reader.assign(self._owned)
            for partition, ownership in self._owned.items():
                self._reader.seek(partition, ownership.fetched)
        return self._reader

    def _read(self) -> None:
        reader, now = self._reading(), time.monotonic()
        timeout_s = max(0.0, min(_POLL_S, (next_retry(self._owned.values()) or now + _POLL_S) - now))
        deliveries = reader.poll(timeout_s, [each for each, ownership in self._owned.items() if ownership.queue])
        for delivery in deliveries:
            ownership = self._owned.get(delivery.partition)
            if ownership is None or delivery.offset < ownership.fetched:
                continue
            ownership.queue.append(delivery)
            ownership.fetched = delivery.offset + 1
        appended = [each.appended_ms for each in deliveries if each.appended_ms is not None]
        if appended:
            self._clock.appended(max(appended))
        if not deliveries:
            reader.check_progress(self._fetched(), now)
        if now - self._stored_at >= _IDLE_STORE_S:
            self._topics.learn({each.topic for each in self._owned})
            self._store_idle(reader)

    def _fetched(self) -> dict[Partition, int]:
        """What is fetched of the partitions for which nothing waits."""
        return {each.partition: each.fetched for each in self._owned.values() if not each.queue}

    def _store_idle(self, reader: Reader) -> None:
        """Stores positions that moved without an event, past transaction markers: a watermark needs them."""
        self._stored_at = time.monotonic()
        for partition, offset in reader.passed(self._fetched(), _POSITIONS_S).items():
            ownership = self._owned[partition]
            ownership.fetched = max(ownership.fetched, offset)
        moved = [each for each in self._owned.values() if not each.queue and each.fetched > each.next_offset]
        if not moved:
            return
        targets = {each.partition: each.fetched for each in moved}
        try:
            with self._database.errors(), self._database.inbox.transaction(moved):
                self._database.inbox.store({}, targets, self._owned)
                failpoint("consumer.in_idle_store")
        except OwnershipLostError as error:
            self._lost(targets, error)
        else:
            for ownership in moved:
                ownership.moved(targets[ownership.partition])
            self._tell()

    # Applying

    def _apply(self, batch: Sequence[Delivery]) -> None:
        deadline = time.monotonic() + self._settings.batch_s
        rules = Rules(
            self._handlers,
            self._horizon_ms,
            lambda: self._stopping() or time.monotonic() >= deadline,
            self._singly,
        )
        if self._reader is not None:
            self._reader.read_ahead([each.partition for each in self._owned.values() if each.block is not None])
        try:
            with self._database.errors():
                outcome = apply(self._database.connection, self._database.inbox, batch, self._owned, rules)
        except EventFailedError as error:
            self._failed(error.delivery, error.cause, alone=len(batch) == 1)
        except EventsFailedError as error:
            self._failed_at_once(error)
        except OwnershipLostError as error:
            self._lost({each.partition for each in batch}, error)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            # COMMIT itself failed, on a deferred constraint perhaps: smaller batches find the event.
            self._limit = max(1, len(batch) // 2)
            if len(batch) == 1:
                self._failed(batch[0], error, alone=True)
        else:
            self._committed(outcome)

    def _horizon_ms(self, topic: str) -> float:
        window_ms = self._topics[topic].window_ms
        return float("-inf") if window_ms is None else self._clock.horizon_ms(window_ms)

    def _committed(self, outcome: Outcome) -> None:
        self._deadlocks, self._singly = 0, False
        self._limit = min(self._settings.batch_events, self._limit * 2)
        self._applied += outcome.applied
        self._skipped += outcome.skipped
        for partition, next_offset in outcome.targets.items():
            ended = self._owned[partition].moved(next_offset)
            if ended is not None:
                _log.warning("%s goes on: %s is applied after %d tries", partition, ended.delivery, ended.tries + 1)
        for delivery in outcome.last.values():
            self._note_deprecation(delivery)
        self._tell()
        if outcome.gap is not None:
            self._gap(*outcome.gap)

    def _note_deprecation(self, delivery: Delivery) -> None:
        """An event says that its major ends: said once, and again when the day has changed."""
        topic, event = delivery.partition.topic, delivery.content
        deprecation = event.deprecation if isinstance(event, DomainEvent) else None
        if deprecation is None:
            self._deprecated.pop(topic, None)
        elif self._deprecated.get(topic) != deprecation.sunset:
            self._deprecated[topic] = deprecation.sunset
            more = f"; see {deprecation.migration}" if deprecation.migration else ""
            _log.warning("topic %s is deprecated; its last day is %s%s", topic, deprecation.sunset, more)

    def _gap(self, delivery: Delivery, mark: int) -> None:
        topic = delivery.partition.topic
        if self._doubtful != (delivery.partition, delivery.offset):
            # The window may have been shortened since it was read: read it, and judge the event again.
            self._topics.learn([topic], max_age_s=0)
            self._doubtful = (delivery.partition, delivery.offset)
            return
        event = delivery.content
        assert isinstance(event, DomainEvent)
        raise StopError(
            "GAP",
            f"{delivery}: aggregate {delivery.identity} is at version {mark}, this is version {event.version}, and "
            f"the broker cannot have compacted what lies between (window {self._topics[topic].window_ms} ms, "
            f"appended at {delivery.appended_ms} ms)",
            remedy="find out what was lost; to go on without it, raise the aggregate's mark in rowcast_inbox.mark to "
            f"version {event.version - 1}",
        )

    def _failed(self, delivery: Delivery, cause: Exception, *, alone: bool) -> None:
        self._raise_nobodys_fault(cause)
        ownership = self._owned[delivery.partition]
        if not alone:
            ownership.fence = delivery.offset
            return
        now = time.monotonic()
        block = ownership.failed(delivery, f"{type(cause).__name__}: {cause}", now)
        if block.tries == 1 or now - self._reminded_at.get(delivery.partition, now) >= _REMINDER_S:
            self._remind(block, cause, now)
        self._tell()

    def _failed_at_once(self, error: EventsFailedError) -> None:
        """The same events are tried again, each in a call of its own: then it is known which one is at fault."""
        self._raise_nobodys_fault(error.cause)
        self._singly = True
        now = time.monotonic()
        if now - self._named_at_once_at >= _REMINDER_S:
            self._named_at_once_at = now
            _log.warning("%s; trying them one by one", error)

    def _raise_nobodys_fault(self, cause: Exception) -> None:
        """A deadlock, a lock that was not to be had: nobody's fault, unless it happens again and again."""
        if isinstance(cause, psycopg.OperationalError) and self._deadlocks < _DEADLOCK_TRIES:
            self._deadlocks += 1
            raise cause

    def _remind(self, block: Block, cause: Exception, now: float) -> None:
        self._reminded_at[block.delivery.partition] = now
        _log.error(
            "%s blocks its partition since %.0f s (tried %d times): %s",
            block.delivery,
            now - block.since,
            block.tries,
            block.reason,
            exc_info=cause if block.tries == 1 else None,
        )

    def _lost(self, partitions: Iterable[Partition], error: OwnershipLostError) -> None:
        _log.warning("%s; rolled back", error)
        self._forget(list(partitions))

    def _tell(self, *, running: bool = True) -> None:
        owned = self._owned.values()
        self._publish(
            ConsumerStatus(
                running=running,
                positions={(each.partition.topic, each.partition.number): each.next_offset for each in owned},
                applied=self._applied,
                skipped=self._skipped,
                blocked=tuple(_blocked(each.block) for each in owned if each.block is not None),
                absent=self._absent,
                deprecated=dict(self._deprecated),
            )
        )


def _blocked(block: Block) -> BlockedEvent:
    delivery = block.delivery
    event_id = delivery.content.id if isinstance(delivery.content, DomainEvent) else None
    return BlockedEvent(
        event_id, delivery.partition.topic, delivery.partition.number, delivery.offset, block.reason, block.tries
    )
