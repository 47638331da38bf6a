"""The end of a change log as it grows, for a fault that is to hit in the middle of a transaction."""

from __future__ import annotations

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition

_TIMEOUT_S = 1.0


class LogEnd:
    """The last record of *topic*, with its one partition, also where it is of a Kafka transaction that is open."""

    def __init__(self, brokers: str, topic: str) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": "campaign",
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",
                # Else the next look waits for what this one has asked for behind the end.
                "fetch.wait.max.ms": 1,
            }
        )

    def is_within_transaction(self) -> bool:
        """Whether a row change comes last, so that END of its transaction is not there; False if nobody answers."""
        try:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=_TIMEOUT_S)
            self._consumer.assign([TopicPartition(self._topic, 0, end - 1)])
            message = self._consumer.poll(_TIMEOUT_S)
        except KafkaException:
            return False
        if message is None or message.error() or not (content := message.value()):
            return False
        value = orjson.loads(content)
        return bool(value.get("transaction")) and value["op"] != "m"

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()
