"""
A reader of domain topics that belongs to nobody: `read_committed`, from the beginning, without a group's offsets.

It is built on librdkafka, whereas the consumer's SDK is not, so that the two cannot be wrong in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from examples.main_job.evidence import AppendedRecord
from rowcast.brokers import Brokers

_METADATA_TIMEOUT_S = 10.0
_BATCH = 2_000
_GROUP = "main-job-verdict"  # required by librdkafka; nothing is ever committed to it


class TopicsReader:
    """Reads every partition of *topics* at *brokers*, which have to exist."""

    def __init__(self, brokers: Brokers | str, topics: Iterable[str]) -> None:
        self._options = (Brokers(brokers) if isinstance(brokers, str) else brokers).librdkafka()
        self._consumer = Consumer(
            {
                **self._options,
                "group.id": _GROUP,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "check.crcs": True,
            }
        )
        self.partitions: dict[str, int] = {}
        for topic in topics:
            metadata = self._consumer.list_topics(topic, _METADATA_TIMEOUT_S).topics[topic]
            if metadata.error is not None:
                raise KafkaException(metadata.error)
            self.partitions[topic] = len(metadata.partitions)
        # Where each partition was last seen to end; behind everything that was returned.
        self.ends: dict[tuple[str, int], int] = {}
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in self.places()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._consumer.close()

    def read(self, timeout_s: float) -> list[AppendedRecord]:
        """
        What has come in, waiting up to *timeout_s* seconds for the first of it.

        Raises:
            KafkaException: the broker refused, or part of a topic is gone.

        """
        records: list[AppendedRecord] = []
        for message in self._consumer.consume(_BATCH, timeout_s):
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ends[message.topic(), message.partition()] = message.offset()
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # no group is used, so it needs no right
                raise KafkaException(error)
        return records

    def read_to_end(self, deadline_s: float) -> list[AppendedRecord]:
        """
        Everything from where it stands up to the end offsets as they are now.

        Raises:
            TimeoutError: that took longer than *deadline_s* seconds.

        """
        limit = time.monotonic() + deadline_s
        wanted = self._ends()
        records: list[AppendedRecord] = []
        while any(self.ends.get(place, -1) < end for place, end in wanted.items()):
            if time.monotonic() > limit:
                raise TimeoutError(f"the domain topics could not be read within {deadline_s:.0f} s")
            records += self.read(0.2)
        return records

    def places(self) -> list[tuple[str, int]]:
        """Every topic and partition."""
        return [(topic, number) for topic, count in self.partitions.items() for number in range(count)]

    def _ends(self) -> dict[tuple[str, int], int]:
        """The end offsets of now, asked over a connection of its own: on a reader's they wait behind each fetch."""
        asking = Consumer({**self._options, "group.id": _GROUP})
        try:
            return {place: self._end(asking, place) for place in self.places()}
        finally:
            asking.close()

    def _end(self, asking: Consumer, place: tuple[str, int]) -> int:
        offsets = asking.get_watermark_offsets(TopicPartition(*place), _METADATA_TIMEOUT_S)
        if offsets is None:
            raise TimeoutError(f"the end of {place[0]} partition {place[1]} is not known")
        return int(offsets[1])


def _record(message: Message) -> AppendedRecord:
    kind, timestamp_ms = message.timestamp()
    return AppendedRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
    )
