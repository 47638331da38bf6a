"""
The progress topic: what consumers may take for complete.

A record says: whoever has read every domain partition up to these end offsets holds everything that was
acknowledged before the heartbeat's own database time, except what is refused, and what has happened to halted types
since they are. It cannot lie when traffic stops, because heartbeats travel the whole path of the rows.
"""

from __future__ import annotations

import time

import orjson

from rowcast.brokers import Brokers
from rowcast.event import Record
from rowcast.halt import first_of
from rowcast.topics import PROGRESS_TOPIC
from stream_app.position import Position
from stream_app.publisher import Publisher
from stream_app.source_record import SourceRecord
from stream_app.store import Ownership
from stream_app.transport import read_topics

_INTERVAL_S = 1.0


class Progress:
    """Publishes committed positions, at most one a second."""

    def __init__(self, ownership: Ownership, publisher: Publisher, noted: SourceRecord) -> None:
        self._ownership = ownership
        self._publisher = publisher
        self._noted = noted
        self._published: Position | None = None
        self._next_s = 0.0

    def due(self, position: Position) -> bool:
        """Whether the committed *position* is new, says something, and the last record is old enough."""
        told = position == self._published or position.heartbeat is None or position.sub_position is not None
        return not told and time.monotonic() >= self._next_s

    def record(self, position: Position) -> Record:
        """The record of *position*, which has to be committed and `due`; it counts as published."""
        assert position.heartbeat is not None, "a position without heartbeat says nothing"
        refused, oldest = self._noted.refused()
        halts = self._noted.halts()
        tenants = [{"tenant": each.tenant, "since": each.since} for each in halts if each.tenant is not None]
        value = {
            "source": self._ownership.source,
            "epoch": self._ownership.epoch,
            "position": f"{position.commit_lsn:020d}",
            "heartbeat_at": position.heartbeat.get("at"),
            "end_offsets": position.end_offsets,
            "refused": {"count": refused, "oldest": oldest},
            "halted": [{"aggregate": name, "since": since} for name, since in first_of(halts).items()],
            # Absent where there are none, as it was before there were tenants.
            **({"halted_tenants": tenants} if tenants else {}),
        }
        self._published, self._next_s = position, time.monotonic() + _INTERVAL_S
        body = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return Record(PROGRESS_TOPIC, self._ownership.source.encode(), body, ())

    def publish(self, record: Record) -> None:
        """Publish *record* by itself."""
        self._publisher.publish([record])


def told_epoch(brokers: Brokers, source: str) -> int:
    """
    The highest epoch that the progress topic tells of *source*; 0: none was told.

    Raises:
        BrokerUnavailableError: Kafka did not answer.

    """
    told = (
        orjson.loads(record.value)["epoch"]
        for record in read_topics(brokers, source, {PROGRESS_TOPIC: 1}, {})
        if record.key == source.encode()
    )
    return max(told, default=0)
