"""
Publishing with fencing: one Kafka transaction a batch, one transactional id a source.

Opening a publisher fences every older producer of the source at the broker. After any failed or unknown
outcome the publisher is thrown away and the source is claimed again.
Sources: KIP-98, KIP-447, librdkafka's transactional producer.
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from rowcast.brokers import Brokers
from rowcast.errors import BrokerUnavailableError, OwnershipLostError
from rowcast.event import Record
from rowcast.failpoint import failpoint
from rowcast.kafka_fault import RIGHTS
from rowcast.sources.connector import transactional_id
from stream_app.broker_fault import broker_error
from stream_app.core.emission import EVENT_BYTES_MAX

# The promise of minutes at worst leaves no room for the library's default of 300 s.
TRANSACTION_TIMEOUT_S = 20
_POLL_RECORDS = 200
_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})

EndOffsets = dict[str, dict[str, int]]


class Publisher:
    """The only producer of a source's domain topics while its claim lasts."""

    def __init__(self, brokers: Brokers, source: str) -> None:
        self._source, self._brokers = source, brokers
        self._producer = Producer(
            {
                **brokers.librdkafka(),
                "transactional.id": transactional_id(source),
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_S * 1000,
                "message.timeout.ms": TRANSACTION_TIMEOUT_S * 1000,
                "socket.timeout.ms": 10_000,  # a silent broker is dialled anew well before the transaction ends
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "message.max.bytes": 2 * EVENT_BYTES_MAX,
                "linger.ms": 5,
                "socket.keepalive.enable": True,
            }
        )
        self._failures: list[tuple[KafkaError, str]] = []
        try:
            self._producer.init_transactions(TRANSACTION_TIMEOUT_S)
        except KafkaException as error:
            fault = self._sorted(error)
            # What it goes on asking for in the background would fence the claim that follows.
            self.close()
            raise fault from error

    def publish(self, records: Sequence[Record]) -> EndOffsets:
        """
        Publish *records* in order, all or none, and return the end offset behind them by topic and partition.

        Raises:
            OwnershipLostError: a newer producer of this source exists.
            BrokerUnavailableError: failed or unknown; the publisher must not be used again.

        """
        last: dict[tuple[str | None, int | None], int | None] = {}

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failures.append((error, str(message.topic())))
                return
            last[message.topic(), message.partition()] = message.offset()

        try:
            self._producer.begin_transaction()
            for number, record in enumerate(records):
                self._produce(record, delivered)
                if number % _POLL_RECORDS == 0:
                    self._producer.poll(0)
            failpoint("sequencer.in_publish")
            self._producer.commit_transaction(TRANSACTION_TIMEOUT_S)
        except KafkaException as error:
            raise self._sorted(error) from error
        if self._failures:
            raise self._unavailable(self._failures)
        ends: EndOffsets = {}
        for (topic, partition), offset in last.items():
            ends.setdefault(str(topic), {})[str(partition)] = int(offset or 0) + 1
        return ends

    def _produce(self, record: Record, delivered: object) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    on_delivery=delivered,
                )
            except BufferError:
                # The local queue is full: wait until the broker has taken some of it.
                self._producer.poll(0.1)
                continue
            return

    def _sorted(self, error: KafkaException) -> Exception:
        cause = error.args[0]
        if cause.code() in _FENCED:
            return OwnershipLostError(f"{self._source}: fenced by a newer producer")
        topic = self._failures[0][1] if self._failures else self._source
        return self._unavailable([(cause, topic), *self._failures])

    def _unavailable(self, failures: list[tuple[KafkaError, str]]) -> BrokerUnavailableError:
        # What follows from a refusal, such as records that were taken out of the queue, says nothing.
        refused = [each for each in failures if each[0].code() in RIGHTS]
        error, topic = (refused or failures)[0]
        return broker_error(error, self._brokers, topic, transactional_id=transactional_id(self._source))

    def close(self) -> None:
        """
        Drop the producer; what was not committed is aborted by the broker or by the next owner.

        It ends here and not with the last reference to this publisher, which an error may hold: one that goes on
        keeps dialling the broker.
        """
        self._producer.purge()
        del self._producer
