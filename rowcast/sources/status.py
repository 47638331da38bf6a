"""
The truth about sources: connector and task, slot, worker, lag, heartbeat.

The connector's own word is the weakest of these: it may say RUNNING and be dead. The heartbeat goes through
the whole path, so its age decides. Everything that is wrong is a problem with a stable code and a remedy.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from psycopg.rows import dict_row

from rowcast.connect import ConnectClient, ConnectorStatus
from rowcast.control.database import connect as connect_control
from rowcast.errors import BrokerUnavailableError, ConfigurationError, ConnectUnavailableError, DatabaseUnavailableError
from rowcast.settings import Settings
from rowcast.sources.catalogue import connect_source
from rowcast.sources.connector import HEARTBEAT_INTERVAL_MS, connector_name, publication_name, slot_name
from rowcast.sources.control_plan import pending_migrations
from rowcast.sources.source_file import SourceFile
from rowcast.sources.topic_plan import TopicAdmin
from rowcast.topics import change_log_topic

# Ten beats: a pause of this length is no hiccup, and the promise is to name a dead path within 60 s.
HEARTBEAT_AGE_MAX_S = 10 * HEARTBEAT_INTERVAL_MS / 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong: a stable *code*, what, and the *remedy*."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The replication slot. *retained_bytes*: WAL that it keeps; *unconfirmed_bytes*: WAL not yet delivered."""

    active: bool
    wal_status: str
    restart_lsn: str | None
    confirmed_flush_lsn: str | None
    retained_bytes: int | None
    unconfirmed_bytes: int | None
    safe_wal_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """
    Where the worker is. *held*: its lease is valid now; *age_s*: since it last moved; *next_offset*: behind
    the last finished unit of the change log.
    """

    status: str
    stopped_code: str | None
    stopped_detail: str | None
    stopped_remedy: str | None
    epoch: int
    holder: str | None
    held: bool
    next_offset: int | None
    commit_lsn: int | None
    age_s: float | None
    refused: int
    heartbeat: Mapping[str, Any] | None


@dataclass(slots=True, kw_only=True)
class SourceStatus:
    """
    All that is known about one source. Parts that could not be asked are None, with a problem that says why.

    *heartbeat_age_s* is the age of the last beat that the connector wrote into the source database;
    *applied_heartbeat_age_s* that of the last beat which came through to the worker. *lag_records* counts
    records of the change log in front of the worker, transaction markers included.
    """

    source: str
    connector: ConnectorStatus | None = None
    slot: Slot | None = None
    position: Position | None = None
    change_log_end: int | None = None
    lag_records: int | None = None
    heartbeat_age_s: float | None = None
    applied_heartbeat_age_s: float | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """The status as one JSON object."""
        return {**asdict(self), "healthy": self.healthy}


def read_statuses(sources: Iterable[SourceFile], settings: Settings) -> list[SourceStatus]:
    """The status of each source, as it is now. Never raises because something is down: that is a problem."""
    return [_read(source, settings) for source in sources]


def _read(source: SourceFile, settings: Settings) -> SourceStatus:
    status = SourceStatus(source=source.source)
    # Each part is asked by itself: one that is down must not hide what the others say.
    for read in (_read_connect, _read_database, _read_control, _read_kafka):
        try:
            status.problems.extend(read(status, source, settings))
        except (ConfigurationError, DatabaseUnavailableError, ConnectUnavailableError, BrokerUnavailableError) as error:
            status.problems.append(
                Problem("UNREACHABLE", str(error), "start it, or correct its address; `rowcast status`")
            )
        except psycopg.Error as error:
            status.problems.append(Problem("UNREACHABLE", str(error).strip(), "see the database's log"))
    return status


def _read_connect(status: SourceStatus, source: SourceFile, settings: Settings) -> Iterator[Problem]:
    name = connector_name(source.source)
    with ConnectClient(settings.need_connect_url()) as connect:
        found = status.connector = connect.status(name)
    if found is None:
        yield Problem("CONNECTOR_MISSING", f"connector {name} does not exist", _apply(source))
    elif found.failed:
        trace = found.trace.strip() or "no trace"
        yield Problem("CONNECTOR_FAILED", f"connector {name}: {trace}", "mend the cause, then " + _apply(source))
    elif not found.running:
        yield Problem(
            "CONNECTOR_NOT_RUNNING",
            f"connector {name} is {found.state}, its task {found.task_state or 'missing'}",
            "resume it, or wait until its workers have rebalanced",
        )


def _read_database(status: SourceStatus, source: SourceFile, settings: Settings) -> Iterator[Problem]:
    with (
        connect_source(settings.database(source.database)) as connection,
        connection.cursor(row_factory=dict_row) as at,
    ):
        slot = at.execute(_SLOT, (slot_name(source.source),)).fetchone()
        if at.execute("SELECT to_regclass('rowcast.heartbeat') AS name").fetchone() != {"name": None}:
            beat = at.execute(_BEAT, (source.source,)).fetchone()
            status.heartbeat_age_s = float(beat["age_s"]) if beat and beat["age_s"] is not None else None
        query = "SELECT 1 FROM pg_publication WHERE pubname = %s"
        published = at.execute(query, (publication_name(source.source),)).fetchone()
    started = status.heartbeat_age_s is not None  # the connector has read this database before
    if published is None:
        message = f"publication {publication_name(source.source)} does not exist"
        yield Problem("PUBLICATION_MISSING", message, _start_over(source) if slot else _apply(source))
    if slot is None:
        message = f"replication slot {slot_name(source.source)} does not exist"
        lost = f"{message}: changes since it went are lost" if started else message
        yield Problem("SLOT_MISSING", lost, _start_over(source) if started else _apply(source))
    else:
        invalidation = slot.pop("reason")
        status.slot = Slot(**slot)
        yield from _slot_problems(status.slot, invalidation, source)
    yield from _heartbeat_problems(status, source)


def _slot_problems(slot: Slot, invalidation: str | None, source: SourceFile) -> Iterator[Problem]:
    name = slot_name(source.source)
    if slot.wal_status == "lost":
        message = f"replication slot {name} is invalid ({invalidation or 'its WAL is gone'}): changes are lost"
        yield Problem("SLOT_LOST", message, _start_over(source))
    elif not slot.active:
        message = f"nobody reads replication slot {name}; the server keeps {slot.retained_bytes} bytes of WAL for it"
        yield Problem("SLOT_INACTIVE", message, "see the connector's state and Connect's log")


def _heartbeat_problems(status: SourceStatus, source: SourceFile) -> Iterator[Problem]:
    age_s = status.heartbeat_age_s
    if age_s is None:
        yield Problem("HEARTBEAT_MISSING", "the connector has not written a heartbeat yet", _apply(source))
    elif age_s > HEARTBEAT_AGE_MAX_S:
        message = f"the connector's last heartbeat is {age_s:.0f} s old"
        yield Problem("HEARTBEAT_OLD", message, "see the connector's state and Connect's log")


def _read_control(status: SourceStatus, source: SourceFile, settings: Settings) -> Iterator[Problem]:
    with connect_control(settings.control().url, application="rowcast sources", autocommit=True) as connection:
        row = None
        if not pending_migrations(connection):
            with connection.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(_POSITION, (source.source,)).fetchone()
    if row is None:
        yield Problem("NOT_APPLIED", "the source is not in the control database", _apply(source))
        return
    beat = orjson.loads(row.pop("heartbeat_text")) if row["heartbeat_text"] else row.pop("heartbeat_text")
    position = status.position = Position(**row, heartbeat=beat)
    if beat is not None and isinstance(beat.get("at"), str):
        status.applied_heartbeat_age_s = (datetime.now(UTC) - datetime.fromisoformat(beat["at"])).total_seconds()
    if position.status == "stopped":
        message = f"the worker stopped the source: {position.stopped_code}: {position.stopped_detail}"
        yield Problem(position.stopped_code or "STOPPED", message, position.stopped_remedy or "see the worker's log")
    elif not position.held:
        yield Problem("NO_WORKER", "no worker owns the source", "start one: `rowcast worker`")
    elif position.age_s is not None and position.age_s > HEARTBEAT_AGE_MAX_S:
        message = f"the worker's position has not moved for {position.age_s:.0f} s, though a beat comes each second"
        yield Problem("POSITION_OLD", message, "see the worker's log and the connector's state")
    elif (status.applied_heartbeat_age_s or 0.0) > HEARTBEAT_AGE_MAX_S:
        message = f"the newest heartbeat that came through to the worker is {status.applied_heartbeat_age_s:.0f} s old"
        yield Problem("HEARTBEAT_DELAYED", message, "it catches up, or see the connector's state and Connect's log")


def _read_kafka(status: SourceStatus, source: SourceFile, settings: Settings) -> Iterator[Problem]:
    topic = change_log_topic(source.source)
    with TopicAdmin(settings.need_brokers()) as admin:
        if topic not in admin.present([topic]):
            yield Problem("CHANGE_LOG_MISSING", f"topic {topic} does not exist", _apply(source))
            return
        partition = TopicPartition(topic, 0)
        with admin.errors():
            offsets = {
                name: admin.client.list_partition_offsets({partition: spec})[partition].offset
                for name, spec in (
                    ("start", OffsetSpec.EARLIEST),
                    ("end", OffsetSpec.LATEST),
                    ("young", round(time.time() * 1000 - source.change_log_window_ms / 2)),
                )
            }
    status.change_log_end = offsets["end"]
    next_offset = status.position.next_offset if status.position else None
    status.lag_records = offsets["end"] - (next_offset if next_offset is not None else offsets["start"])
    if next_offset is not None and not offsets["start"] <= next_offset <= offsets["end"]:
        message = f"the worker's offset {next_offset} is outside {topic} ({offsets['start']} to {offsets['end']})"
        yield Problem("POSITION_OUTSIDE_LOG", message, _start_over(source))
    elif next_offset is not None and _leaves_window(next_offset, offsets):
        message = f"the next change to process is older than half the window of {topic}, which will forget it"
        yield Problem("POSITION_LEAVES_WINDOW", message, "mend what keeps the worker, or widen windows.change_log")


def _leaves_window(next_offset: int, offsets: Mapping[str, int]) -> bool:
    # "young" is the first record of the window's younger half; -1: all records are older.
    young = offsets["end"] if offsets["young"] < 0 else offsets["young"]
    return next_offset < min(young, offsets["end"])


def _apply(source: SourceFile) -> str:
    return f"`rowcast sources apply {source.source}`"


def _start_over(source: SourceFile) -> str:
    return f"`rowcast sources remove {source.source} --yes`, then {_apply(source)}: it takes a new snapshot"


_SLOT = """
SELECT active, coalesce(wal_status, 'unknown') AS wal_status, restart_lsn::text, confirmed_flush_lsn::text,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS retained_bytes,
       pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS unconfirmed_bytes,
       safe_wal_size AS safe_wal_bytes,
       to_jsonb(s) ->> 'invalidation_reason' AS reason  -- the column is younger than PostgreSQL 14
  FROM pg_replication_slots s WHERE slot_name = %s
"""

_BEAT = "SELECT extract(epoch FROM clock_timestamp() - at) AS age_s FROM rowcast.heartbeat WHERE source = %s"

_POSITION = """
SELECT status, stopped_code, stopped_detail, stopped_remedy, epoch, holder,
       holder IS NOT NULL AND coalesce(lease_until > clock_timestamp(), false) AS held,
       next_offset, commit_lsn, extract(epoch FROM clock_timestamp() - position_at)::float8 AS age_s,
       heartbeat AS heartbeat_text,
       (SELECT count(*) FROM rowcast.aggregate a WHERE a.source = s.source AND refused_reason IS NOT NULL) AS refused
  FROM rowcast.source s WHERE source = %s AND NOT removed
"""
