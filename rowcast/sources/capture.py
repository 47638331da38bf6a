"""
Where the capture of a source was set up anew: connector and slot, so that a snapshot follows in the change log.

A snapshot that stands there without it is one for which nobody asked. A connector that lost its offsets takes it: it
reads the tables as they are now and goes on from there, and what was committed in between is in neither.
"""

from __future__ import annotations

from contextlib import closing

import psycopg
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from rowcast.brokers import Brokers
from rowcast.errors import BrokerUnavailableError, ConfigurationError
from rowcast.kafka_fault import refused_right
from rowcast.sources.connector import publication_name, slot_name
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.heartbeat import catalogue_query
from rowcast.topics import change_log_topic

_TIMEOUT_MS = 15_000


def note_capture(
    definition: SourceDefinition, control: psycopg.Connection, connection: psycopg.Connection, brokers: Brokers
) -> None:
    """
    Say in the control database that a snapshot of the source is expected from here on, unless its slot is there.

    And what the catalogue says of its tables: no heartbeat tells of it before the snapshot is over. Called before the
    connector is made; *connection* is to the source's database.
    """
    source = definition.source
    if connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (slot_name(source),)).fetchone():
        return
    end = change_log_end(brokers, source)
    query = catalogue_query(definition, publication_name(source))
    (catalogue,) = connection.execute(query.encode()).fetchone() or (None,)
    control.execute(
        "UPDATE rowcast.source SET snapshot_from = %s, partitions_from = %s WHERE source = %s",
        (end, catalogue, source),
    )


def change_log_end(brokers: Brokers, source: str) -> int:
    """The offset behind the last record of the change log."""
    partition = TopicPartition(change_log_topic(source), 0)
    try:
        with closing(
            KafkaConsumer(**brokers.kafka_python(), group_id=None, bootstrap_timeout_ms=_TIMEOUT_MS)
        ) as reader:
            return int(reader.end_offsets([partition])[partition])
    except KafkaError as error:
        refused = refused_right(getattr(error, "errno", None), brokers, f"topic {partition.topic}")
        if refused is not None:
            raise ConfigurationError(refused, where="Kafka") from error
        raise BrokerUnavailableError(f"{partition.topic}: {error}") from error
