"""
Record batches of the change log, read from the position that the control database holds.

The log has one partition; the owner assigns it to itself at the committed offset. Kafka's group offsets play
no part, and nothing is ever reset: an offset outside the log stops the source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from rowcast.brokers import Brokers
from rowcast.errors import BrokerUnavailableError, MalformedEventError, OwnershipLostError, StopError
from rowcast.event import Record
from rowcast.sources.connector import transactional_id, worker_group
from stream_app.broker_fault import broker_error
from stream_app.forgotten_transaction import end_forgotten

_REQUEST_TIMEOUT_S = 10
_SETTLED_TIMEOUT_S = 20.0
# A transaction that is open for longer, although its producer was fenced, was forgotten.
_FORGOTTEN_S = 5.0
_PAUSE_S = 0.1
# While a batch is landing, this long passes between two looks at whether it has.
_LINGER_S = 0.002


@dataclass(frozen=True, slots=True)
class LogExtent:
    """A change log as it stands: its *topic_id* and the offsets that can be read."""

    topic_id: str
    start: int
    end: int


def _consumer(brokers: Brokers, source: str, **extra: object) -> Consumer:
    return Consumer(
        {
            **brokers.librdkafka(),
            # librdkafka wants a group even where partitions are assigned by hand; nothing is committed to it.
            "group.id": worker_group(source),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 65_536,
            # A broker that stays silent for longer is dialled anew; an answer takes the wait above at most.
            "socket.timeout.ms": 10_000,
            "socket.keepalive.enable": True,
            **extra,
        }
    )


class ChangeLogReader:
    """
    Reads one change log forward from *offset*.

    *oldest_ms* is when the first record of the last batch was appended (Unix time); None: nothing was left, since
    *quiet_since_s* (monotonic time).
    """

    def __init__(self, brokers: Brokers, source: str, topic: str, offset: int) -> None:
        self._topic, self._brokers, self._group = topic, brokers, worker_group(source)
        self.oldest_ms: int | None = None
        self.quiet_since_s: float | None = None
        self._consumer = _consumer(brokers, source)
        self._consumer.assign([TopicPartition(topic, 0, offset)])

    def read(self, limit: int, timeout_s: float, busy: Callable[[], bool]) -> list[tuple[int, bytes | None]]:
        """
        At most *limit* records as (offset, value); empty when none came within *timeout_s*.

        While *busy* says that nothing could be done with them yet, more are waited for: a batch costs two
        commits whatever its size.

        Raises:
            StopError: the position is not in the log any more, or the log is gone.
            BrokerUnavailableError: Kafka reported another error.

        """
        first = self._consumer.poll(timeout_s)
        if first is None:
            self.oldest_ms = None
            self.quiet_since_s = self.quiet_since_s or time.monotonic()
            return []
        self.quiet_since_s = None
        self.oldest_ms = first.timestamp()[1]
        # What one Kafka transaction of Connect made readable came with it.
        messages = [first, *self._consumer.consume(limit - 1, 0)]
        while len(messages) < limit and busy():
            messages += self._consumer.consume(limit - len(messages), _LINGER_S)
        return [(self._offset(message), message.value()) for message in messages]

    def _offset(self, message: Message) -> int:
        error = message.error()
        if error is None:
            return int(message.offset())
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise StopError("CHANGE_LOG_TRUNCATED", f"{self._topic}: {error.str()}")
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            raise StopError("CHANGE_LOG_GONE", f"{self._topic}: {error.str()}")
        raise broker_error(error, self._brokers, self._topic, group=self._group)

    def close(self) -> None:
        """Leave the log."""
        self._consumer.close()


def read_time_ms(brokers: Brokers, source: str, topic: str, offset: int) -> int | None:
    """
    When the record at *offset* was appended (Unix time); None when the log ends there.

    Raises:
        StopError: the offset is not in the log any more, or the log is gone.
        BrokerUnavailableError: Kafka did not answer.

    """
    if read_extent(brokers, topic).end <= offset:
        return None
    reader = ChangeLogReader(brokers, source, topic, offset)
    try:
        if not reader.read(1, _REQUEST_TIMEOUT_S, lambda: False):
            raise BrokerUnavailableError(f"no answer while reading {topic}")
        return reader.oldest_ms
    finally:
        reader.close()


def read_extent(brokers: Brokers, topic: str) -> LogExtent:
    """
    What the one-partition *topic* holds now.

    Raises:
        StopError: the topic does not exist.
        BrokerUnavailableError: Kafka did not answer.

    """
    admin = AdminClient(brokers.librdkafka())
    partition = TopicPartition(topic, 0)
    try:
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=_REQUEST_TIMEOUT_S)[topic].result()
        start = admin.list_offsets({partition: OffsetSpec.earliest()}, request_timeout=_REQUEST_TIMEOUT_S)
        end = admin.list_offsets({partition: OffsetSpec.latest()}, request_timeout=_REQUEST_TIMEOUT_S)
        return LogExtent(str(described.topic_id), start[partition].result().offset, end[partition].result().offset)
    except KafkaException as error:
        raise _admin_error(brokers, topic, error) from error


def _admin_error(brokers: Brokers, topic: str, error: KafkaException) -> Exception:
    cause: KafkaError = error.args[0]
    if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return StopError("TOPIC_GONE", f"topic {topic} does not exist", remedy="rowcast sources apply")
    return broker_error(cause, brokers, topic)


def read_ends(
    brokers: Brokers, partitions: Mapping[str, int], isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
) -> dict[str, dict[str, int]]:
    """The end offset of every partition of the topics in *partitions* (topic → partition count)."""
    admin = AdminClient(brokers.librdkafka())
    wanted = [TopicPartition(topic, number) for topic, count in partitions.items() for number in range(count)]
    futures = admin.list_offsets(
        dict.fromkeys(wanted, OffsetSpec.latest()),
        isolation_level=isolation,
        request_timeout=_REQUEST_TIMEOUT_S,
    )
    ends: dict[str, dict[str, int]] = {topic: {} for topic in partitions}
    for partition, future in futures.items():
        try:
            ends[partition.topic][str(partition.partition)] = future.result().offset
        except KafkaException as error:
            raise _admin_error(brokers, partition.topic, error) from error
    return ends


def read_settled_ends(brokers: Brokers, source: str, partitions: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """
    The end offsets once no transaction of *source* is open; its producers may be fenced afterwards.

    Raises:
        BrokerUnavailableError: a transaction stays open, although the only writer was fenced.

    """
    return _settle(brokers, source, partitions)[0]


def _settle(brokers: Brokers, source: str, partitions: Mapping[str, int]) -> tuple[dict[str, dict[str, int]], bool]:
    """
    The same, and whether a transaction was ended for that.

    Kafka acknowledges a commit before it has marked every partition. A broker that dies in between hides what
    was committed from readers for a moment after its return, or for ever; the tail must not be read without it.
    """
    started_s, ended = time.monotonic(), False
    while True:
        ends = read_ends(brokers, partitions, IsolationLevel.READ_UNCOMMITTED)
        stable = read_ends(brokers, partitions)
        if ends == stable:
            return ends, ended
        waited_s = time.monotonic() - started_s
        if waited_s > _SETTLED_TIMEOUT_S:
            raise BrokerUnavailableError(f"a transaction on {', '.join(sorted(partitions))} does not come to its end")
        if waited_s > _FORGOTTEN_S and not ended:
            end_forgotten(brokers, transactional_id(source), _apart(ends, stable))
            ended = True
        time.sleep(_PAUSE_S)


def _apart(ends: Mapping[str, Mapping[str, int]], stable: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int]]:
    return [
        (topic, int(number))
        for topic, offsets in ends.items()
        for number, offset in offsets.items()
        if stable[topic][number] != offset
    ]


def read_tail(brokers: Brokers, source: str, ends: Mapping[str, Mapping[str, int]]) -> list[Record]:
    """
    All committed records of the domain topics from *ends* on, each partition in order.

    Raises:
        MalformedEventError: somebody else writes to a domain topic.
        StopError: a topic ends before what was written to it.
        OwnershipLostError: a transaction had to be ended, which has fenced the claim's own producer.
        BrokerUnavailableError: Kafka did not answer, or a transaction is still open.

    """
    current, ended = _settle(brokers, source, {topic: len(offsets) for topic, offsets in ends.items()})
    if ended:
        raise OwnershipLostError(f"{source}: ended a transaction that the brokers had forgotten; claiming anew")
    for topic, offsets in ends.items():
        for number, offset in offsets.items():
            if offset > current[topic][number]:
                raise StopError(
                    "DOMAIN_TOPIC_TRUNCATED",
                    f"{topic}/{number} ends at {current[topic][number]}, but was written up to {offset}",
                )
    open_partitions = {
        (topic, int(number)): offset
        for topic, offsets in ends.items()
        for number, offset in offsets.items()
        if offset < current[topic][number]
    }
    return list(_read_to_end(brokers, source, open_partitions))


def read_topics(
    brokers: Brokers, source: str, partitions: Mapping[str, int], starts: Mapping[str, Mapping[str, int]]
) -> Iterator[Record]:
    """
    All committed records of the topics in *partitions* (topic → partition count), each partition in order.

    From *starts* on; a partition that has none there is read from its beginning. As many as there are in the end: what
    is appended meanwhile may or may not come. Nothing is kept in memory.

    Raises:
        MalformedEventError: a record has no key or no value.
        BrokerUnavailableError: Kafka did not answer.

    """
    wanted = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    return _read_to_end(
        brokers,
        source,
        {(topic, number): starts.get(topic, {}).get(str(number), OFFSET_BEGINNING) for topic, number in wanted},
    )


def _read_to_end(brokers: Brokers, source: str, starts: Mapping[tuple[str, int], int]) -> Iterator[Record]:
    if not starts:
        return
    consumer = _consumer(brokers, source, **{"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, number, at) for (topic, number), at in starts.items()])
        yield from _drain(consumer, set(starts), partial(_read_error, brokers, source))
    finally:
        consumer.close()


def _read_error(brokers: Brokers, source: str, topic: str, error: KafkaError) -> BrokerUnavailableError:
    return broker_error(error, brokers, topic, group=worker_group(source))


def _drain(
    consumer: Consumer, waiting: set[tuple[str, int]], read_error: Callable[[str, KafkaError], BrokerUnavailableError]
) -> Iterator[Record]:
    while waiting:
        message = consumer.poll(_REQUEST_TIMEOUT_S)
        if message is None:
            raise BrokerUnavailableError(f"no answer while reading {sorted(waiting)}")
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise read_error(str(message.topic() or "domain topics"), error)
            waiting.discard((str(message.topic()), int(message.partition() or 0)))
            continue
        key, value = message.key(), message.value()
        if key is None or value is None:
            raise MalformedEventError(f"{message.topic()}: a record without key or value that the owner did not write")
        headers = tuple((name, raw or b"") for name, raw in message.headers() or [])
        yield Record(str(message.topic()), key, value, headers)
