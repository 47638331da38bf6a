"""
Transactions of ours that the brokers have forgotten before they were over.

A broker that dies while it ends a transaction asks, when it is back, where the partitions are that it has not marked
yet. One that has no leader at that moment is taken for deleted, and the transaction for complete: its records stay
unreadable there, with everything behind them, and nobody ends it any more (Kafka 4.3.1: "these partitions are likely
deleted already and hence can be skipped"). A later transaction of the same producer on such a partition ends both, as
it ends itself.

It is committed: what was acknowledged and stands in the position must not be lost. What was to be aborted is
as good: a claim reads it back before anything else is published, and takes its versions for used.
"""

from __future__ import annotations

from collections.abc import Iterable

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from rowcast.brokers import Brokers
from rowcast.errors import BrokerUnavailableError

_TIMEOUT_MS = 20_000


def end_forgotten(brokers: Brokers, transactional_id: str, partitions: Iterable[tuple[str, int]]) -> None:
    """
    End what is open of *transactional_id* on *partitions* (topic, number), and fence its producers.

    Raises:
        BrokerUnavailableError: Kafka did not answer, or refused it.

    """
    try:
        producer = KafkaProducer(
            **brokers.kafka_python(),
            transactional_id=transactional_id,
            acks="all",
            transaction_timeout_ms=_TIMEOUT_MS,
            max_block_ms=_TIMEOUT_MS,
        )
        try:
            producer.init_transactions()
            producer.begin_transaction()
            for topic, number in partitions:
                # As for a record, but there is none to write: neither library can say so.
                producer._transaction_manager.maybe_add_partition_to_transaction(TopicPartition(topic, number))
            producer.commit_transaction()
        finally:
            producer.close(timeout=0)
    except KafkaError as error:
        raise BrokerUnavailableError(f"ending a transaction of {transactional_id}: {error}") from error
