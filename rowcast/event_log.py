"""
Domain topics as a person asks for them: by name, id and time; committed transactions only, without a group.

Times are those at which the broker appended a record, which is how Kafka finds a place in a log.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.partitioner.default import murmur2

from rowcast.brokers import Brokers
from rowcast.consumer.connection import broker_errors, client_options
from rowcast.consumer.partitions import Delivery, Partition
from rowcast.consumer.reader import Reader
from rowcast.errors import BrokerUnavailableError, ConfigurationError
from rowcast.kafka_fault import why_unreachable

_TOPIC = re.compile(r"([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)\.v([1-9][0-9]*)")
_POLL_S = 0.3
_RECORDS_MAX = 500
# How many records of a partition are looked at first, for each that is wanted; commit markers take places, too.
_FIRST_LOOK = 4

Offsets = Mapping[Partition, int]
Wanted = Callable[[Delivery], bool]


@dataclass(frozen=True, slots=True)
class Span:
    """From where to where to read each partition; without *ends* there is no end."""

    starts: Offsets
    ends: Offsets | None = None


class EventLog:
    """The domain topics at *brokers*."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._options = client_options(brokers.servers, brokers.security)

    def partitions(self, name: str) -> list[Partition]:
        """
        The partitions of the topic *name*: ``<domain>.<aggregate>.v<major>``, or without the major for the newest.

        Raises:
            ConfigurationError: there is no such topic; the message names those that are like it.
            BrokerUnavailableError: Kafka did not answer.

        """
        with (
            self._reached(),
            broker_errors("listing topics", self._options),
            closing(KafkaAdminClient(**self._options)) as admin,
        ):
            known = [topic for topic in admin.list_topics() if _TOPIC.fullmatch(topic)]
            topic = _newest(name, known)
            if topic is None:
                near = get_close_matches(name, [*known, *(each.rpartition(".")[0] for each in known)], 3, 0.5)
                fix = ", ".join(near or sorted(known)[:10]) or self._unseen()
                raise ConfigurationError(f"there is no topic of events {name!r}", where="Kafka", fix=fix)
            (described,) = admin.describe_topics([topic])
        return [Partition(topic, each["partition_index"]) for each in described["partitions"]]

    def _unseen(self) -> str:
        missing = "no domain topic is there yet; `rowcast sources apply`"
        if "sasl_mechanism" in self._brokers.security or "ssl_certfile" in self._brokers.security:
            return f"{missing}, or {self._brokers.principal} may see none: `rowcast sources plan --acl`"
        return missing

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say why Kafka cannot be reached, where it is not."""
        try:
            yield
        except BrokerUnavailableError as error:
            reason = why_unreachable(self._brokers)
            if reason is None:
                raise
            raise BrokerUnavailableError(f"Kafka at {self._brokers}: {reason}") from error

    def span(self, partitions: Iterable[Partition], since_ms: int | None, until_ms: int | None) -> Span:
        """What was appended from *since_ms* to before *until_ms*, as far as it is there now; epoch milliseconds."""
        wanted = list(partitions)
        with closing(Reader(self._options, _RECORDS_MAX)) as reader:
            ranges = reader.ranges(wanted)
        firsts = {each: ranges[each][0] for each in wanted}
        ends = {each: ranges[each][1] for each in wanted}
        return Span(
            firsts if since_ms is None else self._offsets_at(ends, since_ms),
            ends if until_ms is None else self._offsets_at(ends, until_ms),
        )

    def _offsets_at(self, ends: Offsets, time_ms: int) -> Offsets:
        """The first offset of each partition that was appended at *time_ms* or later; else its end."""
        by_place = {TopicPartition(*each): each for each in ends}
        with (
            broker_errors("looking for a time", self._options),
            closing(KafkaConsumer(**self._options, group_id=None)) as consumer,
        ):
            found = consumer.offsets_for_times(dict.fromkeys(by_place, time_ms))
        return {
            partition: ends[partition] if found.get(place) is None else min(found[place].offset, ends[partition])
            for place, partition in by_place.items()
        }

    def read(self, span: Span, wanted: Wanted) -> Iterator[Delivery]:
        """
        The records of *span* that are *wanted*, each partition's in order.

        Raises:
            BrokerUnavailableError: Kafka went away meanwhile.

        """
        assert span.ends is not None, "there would be no end"
        begun = frozenset(each for each, start in span.starts.items() if start < span.ends[each])
        left = set(begun)
        with closing(_reader(self._options, {each: span.starts[each] for each in begun})) as reader:
            while left:
                for delivery in reader.poll(_POLL_S, begun - left):
                    if delivery.offset < span.ends[delivery.partition] and wanted(delivery):
                        yield delivery
                left = {each for each in left if (reader.position(each) or 0) < span.ends[each]}

    def last(self, span: Span, count: int, wanted: Wanted) -> list[Delivery]:
        """The *count* records of *span* that were appended last and are *wanted*, oldest first."""
        assert span.ends is not None, "there would be no last one"
        look = max(count, 1) * _FIRST_LOOK
        while True:
            starts = {each: max(start, span.ends[each] - look) for each, start in span.starts.items()}
            found: dict[Partition, deque[Delivery]] = {each: deque(maxlen=count) for each in starts}
            for delivery in self.read(Span(starts, span.ends), wanted):
                found[delivery.partition].append(delivery)
            if all(len(found[each]) == count or starts[each] <= span.starts[each] for each in starts):
                merged = sorted((each for rows in found.values() for each in rows), key=_appended)
                return merged[-count:] if count else []
            look *= 8

    def follow(
        self, starts: Offsets, wanted: Wanted, seconds: float | None, waiting: Callable[[BrokerUnavailableError], None]
    ) -> Iterator[Delivery]:
        """
        The records from *starts* on that are *wanted*, as they come, for so many *seconds*; None: without end.

        While Kafka is away it is tried again; *waiting* hears why.
        """
        until = None if seconds is None else time.monotonic() + seconds
        at = dict(starts)
        while until is None or time.monotonic() < until:
            try:
                with closing(_reader(self._options, at)) as reader:
                    while until is None or time.monotonic() < until:
                        for delivery in reader.poll(_POLL_S, ()):
                            at[delivery.partition] = delivery.offset + 1
                            if wanted(delivery):
                                yield delivery
            except BrokerUnavailableError as error:
                waiting(error)
                time.sleep(_POLL_S)


def partition_of(key: str, partitions: list[Partition]) -> Partition:
    """The one of all *partitions* of a topic that has the records of *key*."""
    number = (murmur2(key.encode()) & 0x7FFFFFFF) % len(partitions)
    return next(each for each in partitions if each.number == number)


def _reader(options: Mapping[str, object], starts: Offsets) -> Reader:
    reader = Reader(options, _RECORDS_MAX)
    try:
        reader.assign(starts)
        for partition, offset in starts.items():
            reader.seek(partition, offset)
    except BaseException:
        reader.close()
        raise
    return reader


def _appended(delivery: Delivery) -> tuple[int, Partition, int]:
    return delivery.appended_ms or 0, delivery.partition, delivery.offset


def _newest(name: str, known: Iterable[str]) -> str | None:
    """The topic called *name*, or that of its newest major version."""
    majors = {}
    for topic in known:
        match = _TOPIC.fullmatch(topic)
        if topic == name:
            return topic
        if match and match[1] == name:
            majors[int(match[2])] = topic
    return majors[max(majors)] if majors else None
