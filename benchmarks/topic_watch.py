"""The ends of topics as a reader with `read_committed` may read them, and their records; by librdkafka."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from benchmarks.course import Place
from examples.main_job.evidence import AppendedRecord
from examples.main_job.topics_reader import TopicsReader

_REQUEST_TIMEOUT_S = 10.0


class TopicWatch:
    """Asks *brokers* for the last stable offsets of *places*, over one connection."""

    def __init__(self, brokers: str, places: Sequence[Place]) -> None:
        self._admin = AdminClient({"bootstrap.servers": brokers, "log_level": 4})  # warnings
        self._wanted = {TopicPartition(*place): OffsetSpec.latest() for place in places}

    def ends(self) -> dict[Place, int]:
        """Everything before these offsets is readable now."""
        futures = self._admin.list_offsets(
            self._wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_REQUEST_TIMEOUT_S
        )
        return {(each.topic, each.partition): future.result().offset for each, future in futures.items()}


def read_all(brokers: str, topics: Sequence[str]) -> Iterator[AppendedRecord]:
    """
    Every readable record of *topics* up to their ends as they are now, each partition in order.

    Raises:
        KafkaException: the broker refused.

    """
    with TopicsReader(brokers, topics) as reader:
        wanted = TopicWatch(brokers, reader.places()).ends()
        # A partition that ends in an aborted transaction shows its end only as "end of partition".
        while any(reader.ends.get(place, -1) < end for place, end in wanted.items()):
            yield from reader.read(0.2)
