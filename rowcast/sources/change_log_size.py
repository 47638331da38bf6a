"""
How large the change log of a source will get: an estimate from what PostgreSQL has counted so far.

Information only. It errs upwards: it takes every change for a transaction of its own and every row for
incompressible; changes that are committed together take a fraction of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from rowcast.sources.connector import HEARTBEAT_INTERVAL_MS
from rowcast.sources.definition import SourceDefinition, TableDefinition
from rowcast.sources.tenant import TableNames

# Measured on the topic's files with the settings of the connector: compressed, with keys and the markers of
# Kafka's transactions. BEGIN, one change without its images, END: 893 bytes with an image of 239.
_ENVELOPE_BYTES = 650
# BEGIN, the message, END and Debezium's own heartbeat: 986 bytes a second with one beat a second.
_HEARTBEAT_BYTES = 990
# Quotes, colon and comma of a field. With the names, that is what an image has more than its row on disk:
# the longer texts of values are about as long as the header of a row.
_FIELD_BYTES = 4
_SPAN_MIN = timedelta(hours=1)
_UNITS_S = {"d": 86_400, "h": 3_600, "min": 60}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableActivity:
    """What was done to a table since the statistics began, and its size: *size_bytes* for *rows*."""

    name: str
    inserts: int
    updates: int
    deletes: int
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The statistics of a source's tables, which count from *since* to *until*."""

    since: datetime
    until: datetime
    tables: tuple[TableActivity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """
    What grows the change log: changes, *change_bytes* each, and heartbeats. *size_bytes* is the sum of both.

    *since* is when the statistics began that the rate comes from.
    """

    since: str
    changes_per_s: float
    change_bytes: int
    heartbeats_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLogEstimate:
    """The *growth* of *topic* in *window_s* seconds, on each replica; or None, and the *reason* why."""

    source: str
    topic: str
    window_s: float
    growth: Growth | None
    reason: str | None = None

    def __str__(self) -> str:
        if self.growth is None:
            return f"change log {self.topic}: no estimate of its size can be made yet ({self.reason})"
        growth = self.growth
        return (
            f"change log {self.topic}: about {_size(growth.size_bytes)} for {_duration(self.window_s)}"
            f" ({_rate(growth.changes_per_s)} changes/s since {growth.since[:10]}, {growth.change_bytes} bytes each;"
            f" {_size(growth.heartbeats_bytes)} of heartbeats)"
        )


def read_activity(connection: psycopg.Connection[Any], tables: Sequence[str]) -> Activity:
    """The statistics of *tables* (``schema.table``); a partitioned table counts with all its partitions."""
    with connection.cursor(row_factory=dict_row) as cursor:
        span = cursor.execute(_SPAN).fetchone()
        assert span is not None, "one row"
        found = cursor.execute(_TABLES, {"tables": list(tables)}).fetchall()
    return Activity(**span, tables=tuple(TableActivity(**row) for row in found))


def estimate_change_log(definition: SourceDefinition, activity: Activity) -> ChangeLogEstimate:
    """The size that the change log of *definition* gets when *activity* goes on as it was."""
    window_s = definition.change_log_window_ms / 1000
    since = activity.since.astimezone(UTC).isoformat(timespec="seconds")
    changes = sum(each.inserts + each.updates + each.deletes for each in activity.tables)
    span = activity.until - activity.since
    if span < _SPAN_MIN:
        return no_estimate(definition, f"the statistics span less than an hour, since {since}")
    if not changes:
        return no_estimate(definition, f"the statistics hold no change of its tables since {since}")
    defined, names = (
        {table.name: table for table in definition.tables},
        TableNames(each.name for each in definition.tables),
    )
    change_bytes = _ENVELOPE_BYTES + round(
        sum(
            _images_bytes(defined[found[0]], each)
            for each in activity.tables
            if (found := names.find(each.name)) is not None
        )
        / changes
    )
    rate = changes / span.total_seconds()
    heartbeats_bytes = round(window_s * 1000 / HEARTBEAT_INTERVAL_MS * _HEARTBEAT_BYTES)
    growth = Growth(
        since=since,
        changes_per_s=rate,
        change_bytes=change_bytes,
        heartbeats_bytes=heartbeats_bytes,
        size_bytes=round(rate * change_bytes * window_s) + heartbeats_bytes,
    )
    return ChangeLogEstimate(source=definition.source, topic=definition.change_log, window_s=window_s, growth=growth)


def no_estimate(definition: SourceDefinition, reason: str) -> ChangeLogEstimate:
    """What is said where none can be made, for *reason*."""
    return ChangeLogEstimate(
        source=definition.source,
        topic=definition.change_log,
        window_s=definition.change_log_window_ms / 1000,
        growth=None,
        reason=reason,
    )


def _images_bytes(table: TableDefinition, activity: TableActivity) -> float:
    """The bytes of all images that the counted changes of *table* would have had."""
    names_bytes = sum(len(column.name.encode()) + _FIELD_BYTES for column in table.columns)
    image_bytes = names_bytes + (activity.size_bytes / activity.rows if activity.rows else 0)
    # With another identity than FULL an update has no former image, and a delete has the fields with nulls.
    images = activity.inserts + activity.updates + activity.deletes
    return image_bytes * (images + activity.updates if table.replica_identity == "f" else images)


def _size(size_bytes: int) -> str:
    value, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def _duration(seconds: float) -> str:
    for unit, length_s in _UNITS_S.items():
        if seconds % length_s == 0:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _rate(per_s: float) -> str:
    if per_s < 0.01:
        return "less than 0.01"
    return f"{per_s:.2g}" if per_s < 10 else f"{per_s:.0f}"


# Tables are counted from when the database's statistics were reset. Where that never happened, from when all
# statistics of the server began, which a crash moves and a restart does not: the background writer's tell.
_SPAN = """
SELECT coalesce(d.stats_reset, b.stats_reset, pg_postmaster_start_time()) AS since, clock_timestamp() AS until
  FROM pg_stat_database d, pg_stat_bgwriter b WHERE d.datname = current_database()
"""

_TABLES = """
SELECT n.nspname || '.' || c.relname AS name, coalesce(sum(s.n_tup_ins), 0)::bigint AS inserts,
       coalesce(sum(s.n_tup_upd), 0)::bigint AS updates, coalesce(sum(s.n_tup_del), 0)::bigint AS deletes,
       coalesce(sum(pg_relation_size(l.oid) + coalesce(pg_relation_size(nullif(l.reltoastrelid, 0)), 0)), 0)::bigint
         AS size_bytes,
       -- reltuples is -1 until the table was vacuumed or analyzed
       coalesce(sum(CASE WHEN l.reltuples > 0 THEN l.reltuples ELSE s.n_live_tup END), 0)::bigint AS rows
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL pg_partition_tree(c.oid) t ON t.isleaf
  JOIN pg_class l ON l.oid = coalesce(t.relid, c.oid)
  LEFT JOIN pg_stat_user_tables s ON s.relid = l.oid
 WHERE n.nspname || '.' || c.relname = ANY (%(tables)s)
 GROUP BY 1 ORDER BY 1
"""
