"""Errors of librdkafka as those of this project: a right that is missing is named, with who lacks it."""

from __future__ import annotations

from confluent_kafka import KafkaError

from rowcast.brokers import Brokers
from rowcast.errors import BrokerUnavailableError
from rowcast.kafka_fault import RIGHTS, refused_right


def broker_error(error: KafkaError, brokers: Brokers, topic: str, **others: str) -> BrokerUnavailableError:
    """
    What to raise for *error*, which came while *topic* was worked on.

    *others* are further resources in use by their kind: ``group``, ``transactional_id``.
    """
    kind = RIGHTS.get(error.code(), "").replace(" ", "_")
    name = others.get(kind) or (topic if kind == "topic" else "")
    resource = f"{RIGHTS[error.code()]} {name}" if name else ""
    refused = refused_right(error.code(), brokers, resource)
    return BrokerUnavailableError(refused or f"{topic}: {error.str()}")
