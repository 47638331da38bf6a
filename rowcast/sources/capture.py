"""
Where the capture of a source was set up anew: connector and slot, so that a snapshot follows in the change log.

A snapshot that stands there without it is one for which nobody asked. A connector that lost its offsets takes it: it
reads the tables as they are now and goes on from there, and what was committed in between is in neither.
"""

from __future__ import annotations

import psycopg
from kafka import KafkaConsumer, TopicPartition

from rowcast.brokers import Brokers
from rowcast.sources.connector import slot_name
from rowcast.topics import change_log_topic


def note_capture(source: str, control: psycopg.Connection, connection: psycopg.Connection, brokers: Brokers) -> None:
    """
    Say in the control database that a snapshot of *source* is expected from here on, unless its slot is there.

    Called before its connector is made; *connection* is to the source's database.
    """
    if connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (slot_name(source),)).fetchone():
        return
    end = change_log_end(brokers, source)
    control.execute("UPDATE rowcast.source SET snapshot_from = %s WHERE source = %s", (end, source))


def change_log_end(brokers: Brokers, source: str) -> int:
    """The offset behind the last record of the change log."""
    consumer = KafkaConsumer(**brokers.kafka_python(), group_id=None)
    try:
        partition = TopicPartition(change_log_topic(source), 0)
        offset: int = consumer.end_offsets([partition])[partition]
        return offset
    finally:
        consumer.close()
