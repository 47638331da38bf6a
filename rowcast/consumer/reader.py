"""
Reads records of given partitions from given offsets, committed transactions only.

It knows nothing of groups: who reads what is decided elsewhere, and a reader that fails or stalls is thrown away
and replaced without a rebalance.

While there is much to read, the next records are decoded in a thread of their own, during the transaction that applies
those before them. Nobody else uses the client in the meantime: every method first waits for that thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import LogTruncationError, OffsetOutOfRangeError

from rowcast.consumer.checksum import use_compiled_checksum
from rowcast.consumer.connection import CALL_TIMEOUT_S, broker_errors
from rowcast.consumer.partitions import Delivery, Partition
from rowcast.errors import BrokerUnavailableError, MalformedEventError, StopError
from rowcast.event import decode

_LOG_APPEND_TIME = 1
_STALL_CHECK_S = 30.0


class OutOfRangeError(BrokerUnavailableError):
    """The log no longer holds the position of *partitions*."""

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"position outside the log: {', '.join(map(str, sorted(self.partitions)))}")


class Reader:
    """A fetch session on partitions that the caller names."""

    def __init__(self, options: Mapping[str, Any], max_records: int) -> None:
        use_compiled_checksum()
        self._options = options
        with broker_errors("connecting", self._options):
            self._kafka = KafkaConsumer(
                **options,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                max_poll_records=max_records,
                metrics_enabled=False,
            )
        self._max_records = max_records
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rowcast reader")
        self._under_way: Future[list[Delivery]] | None = None
        self._ahead: list[Delivery] = []  # read, and not yet returned by `poll`
        self._failure: Exception | None = None
        self._plenty = False
        self._assigned: set[Partition] = set()
        self._checked_at = time.monotonic()
        self._last_check: dict[Partition, int] = {}
        self._asked: Partition | None = None  # the last of which `passed` has asked the position

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Reads exactly *partitions* from now on; those that stay keep their position."""
        self._settle()
        self._assigned = set(partitions)
        self._ahead = [each for each in self._ahead if each.partition in self._assigned]
        with broker_errors("assigning", self._options):
            self._kafka.assign([_kafka_partition(each) for each in sorted(self._assigned)])

    def seek(self, partition: Partition, offset: int) -> None:
        """Reads *partition* from *offset* on."""
        self._settle()
        self._ahead = [each for each in self._ahead if each.partition != partition]
        with broker_errors("seeking", self._options):
            self._kafka.seek(_kafka_partition(partition), offset)

    def poll(self, timeout_s: float, paused: Iterable[Partition]) -> list[Delivery]:
        """
        Records of the partitions that are not *paused*, each partition's in offset order.

        Raises:
            OutOfRangeError: a position is outside its log.
            StopError: the log was truncated behind a position.
            BrokerUnavailableError: throw this reader away.
        """
        self._settle()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        deliveries, self._ahead = self._ahead, []
        if not deliveries:
            deliveries = self._poll(timeout_s, paused)
        self._plenty = len(deliveries) >= self._max_records
        return deliveries

    def read_ahead(self, paused: Iterable[Partition]) -> None:
        """
        Reads what the next `poll` will return, of the partitions that are not *paused*, in the background.

        Does nothing while the last `poll` did not return all that it may: then there is nothing to gain.
        """
        if self._plenty and self._under_way is None and not self._ahead and self._failure is None:
            self._under_way = self._thread.submit(self._poll, 0, list(paused))

    def _settle(self) -> None:
        if self._under_way is None:
            return
        try:
            self._ahead += self._under_way.result()
        # Raised by the next `poll`, as if it had happened there.
        except Exception as error:  # noqa: BLE001
            self._failure = error
        self._under_way = None

    def _poll(self, timeout_s: float, paused: Iterable[Partition]) -> list[Delivery]:
        pausing = {_kafka_partition(each) for each in paused}
        try:
            with broker_errors("reading", self._options):
                self._kafka.pause(*(pausing - self._kafka.paused()))
                self._kafka.resume(*(self._kafka.paused() - pausing))
                fetched = self._kafka.poll(timeout_ms=int(timeout_s * 1000))
        except BrokerUnavailableError as error:
            if isinstance(error.__cause__, OffsetOutOfRangeError):
                raise OutOfRangeError(Partition(*each) for each in error.__cause__.args[0]) from error
            if isinstance(error.__cause__, LogTruncationError):
                raise StopError(
                    "TOPIC_TRUNCATED",
                    f"events that may have been applied are gone from the broker: {error.__cause__}",
                    remedy="find out what the brokers lost; a change of the affected rows sends them again",
                ) from error
            raise
        return [
            delivery
            for place, records in fetched.items()
            for delivery in _deliveries(Partition(place.topic, place.partition), records)
        ]

    def passed(self, fetched: Mapping[Partition, int], within_s: float) -> dict[Partition, int]:
        """
        The positions of partitions that have moved beyond what is *fetched* of them, as many as are told *within_s*.

        To tell one position kafka-python looks at all partitions. So only those are asked for where the broker has told
        of more, and of very many, those that were not come first the next time.
        """
        self._settle()
        more = sorted(each for each, offset in fetched.items() if (self._highwater(each) or 0) > offset)
        later = [each for each in more if self._asked is not None and each > self._asked]
        deadline_s = time.monotonic() + within_s
        found: dict[Partition, int] = {}
        for each in [*later, *more[: len(more) - len(later)]]:
            offset = self.position(each)
            if offset is not None:
                found[each] = offset
            self._asked = each
            if time.monotonic() > deadline_s:
                break
        return found

    def _highwater(self, partition: Partition) -> int | None:
        with broker_errors("reading an end", self._options):
            end: int | None = self._kafka.highwater(_kafka_partition(partition))
        return end

    def position(self, partition: Partition) -> int | None:
        """The offset behind everything returned by `poll`, transaction markers included; None: not known now."""
        self._settle()
        if any(each.partition == partition for each in self._ahead):
            return None
        with broker_errors("reading a position", self._options):
            offset: int | None = self._kafka.position(_kafka_partition(partition), timeout_ms=0)
        return offset

    def ranges(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """
        The first offset and the offset behind the last committed one.

        Raises:
            BrokerUnavailableError: throw this reader away.
        """
        self._settle()
        wanted = [_kafka_partition(each) for each in partitions]
        try:
            with broker_errors("asking for the range of the log", self._options):
                starts = self._kafka.beginning_offsets(wanted, timeout_ms=int(CALL_TIMEOUT_S * 1000))
                ends = self._kafka.end_offsets(wanted, timeout_ms=int(CALL_TIMEOUT_S * 1000))
        except KeyError as error:  # kafka-python's answer for a partition that is newer than its metadata
            raise BrokerUnavailableError(f"the range of {error} is not known yet") from error
        return {Partition(each.topic, each.partition): (starts[each], ends[each]) for each in wanted}

    def opened_ms(self, topic: str) -> int | None:
        """
        When the first record of *topic* was appended; None: it has none.

        Raises:
            BrokerUnavailableError: throw this reader away.
        """
        firsts = self._offsets_for_times(topic, 0).values()
        return min((each.timestamp for each in firsts if each is not None), default=None)

    def reached(self, topic: str, time_ms: int | None) -> dict[Partition, int] | None:
        """
        The offset of the first record of each partition that is not older than *time_ms*, or its end where all are.

        Without a time it is the end; None: there is no such topic.

        Raises:
            BrokerUnavailableError: throw this reader away.
        """
        numbers = self._numbers(topic)
        if not numbers:
            return None
        ends = {each: end for each, (_, end) in self.ranges(Partition(topic, number) for number in numbers).items()}
        found = self._offsets_for_times(topic, time_ms) if time_ms is not None else {}
        return {
            each: end if (first := found.get(_kafka_partition(each))) is None else min(end, first.offset)
            for each, end in ends.items()
        }

    def _numbers(self, topic: str) -> set[int]:
        self._settle()
        with broker_errors("asking for partitions", self._options):
            return set(self._kafka.partitions_for_topic(topic) or ())

    def _offsets_for_times(self, topic: str, time_ms: int) -> dict[Any, Any]:
        wanted = {TopicPartition(topic, number): time_ms for number in self._numbers(topic)}
        with broker_errors("looking offsets up by time", self._options):
            found: dict[Any, Any] = self._kafka.offsets_for_times(wanted, timeout_ms=int(CALL_TIMEOUT_S * 1000))
        return found

    def check_progress(self, idle: Mapping[Partition, int], now: float) -> None:
        """
        Called while nothing arrives: a fetch session that does not move although there is more is given up.

        *idle* are the partitions for which nothing waits, with what is fetched of them.

        Raises:
            BrokerUnavailableError: throw this reader away.
        """
        if now - self._checked_at < _STALL_CHECK_S:
            return
        self._checked_at = now
        waiting = [each for each in idle if each in self._assigned]
        behind = {each: idle[each] for each, (_, end) in self.ranges(waiting).items() if idle[each] < end}
        stalled = [each for each, offset in behind.items() if self._last_check.get(each) == offset]
        self._last_check = behind
        # Those that have moved have passed what carries no event.
        positions = {each: self.position(each) for each in stalled}
        stalled = [each for each, offset in positions.items() if offset is not None and offset <= behind[each]]
        if stalled:
            raise BrokerUnavailableError(f"no progress on {', '.join(map(str, sorted(stalled)))}")

    def close(self) -> None:
        """Ends the session."""
        self._settle()
        self._thread.shutdown()
        self._kafka.close(autocommit=False, timeout_ms=1000)


def _kafka_partition(partition: Partition) -> Any:
    return TopicPartition(partition.topic, partition.number)


def _deliveries(partition: Partition, records: Iterable[Any]) -> Iterator[Delivery]:
    for record in records:
        appended_ms = record.timestamp if record.timestamp_type == _LOG_APPEND_TIME else None
        try:
            event = decode(record.topic, record.key, record.value, record.headers)
        except MalformedEventError as error:
            yield Delivery(partition, record.offset, appended_ms, error)
        else:
            yield Delivery(partition, record.offset, appended_ms, event, event.identity.text)
