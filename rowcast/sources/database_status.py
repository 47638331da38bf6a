"""What the source's own database says: slot, publication, tables and the connector's heartbeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row

from rowcast.settings import Settings
from rowcast.sources.catalogue import connect_source, read_catalogue
from rowcast.sources.connector import HEARTBEAT_INTERVAL_MS, publication_name, slot_name
from rowcast.sources.health import Problem, Slot, SourceStatus
from rowcast.sources.publication import read_publication
from rowcast.sources.subject import Subject
from rowcast.sources.tenant import TableNames, is_pattern

# Ten beats: a pause of this length is no hiccup, and the promise is to name a dead path within 60 s.
HEARTBEAT_AGE_MAX_S = 10 * HEARTBEAT_INTERVAL_MS / 1000


def read_database(status: SourceStatus, subject: Subject, settings: Settings) -> Iterator[Problem]:
    """Fill in what the database knows of *subject*, and tell what is wrong there."""
    if subject.database is None:
        return
    with (
        connect_source(settings.database(subject.database)) as connection,
        connection.cursor(row_factory=dict_row) as at,
    ):
        slot = at.execute(_SLOT, (slot_name(subject.source),)).fetchone()
        if at.execute("SELECT to_regclass('rowcast.heartbeat') AS name").fetchone() != {"name": None}:
            beat = at.execute(_BEAT, (subject.source,)).fetchone()
            status.heartbeat_age_s = float(beat["age_s"]) if beat and beat["age_s"] is not None else None
        # A list: what it has to ask must be asked before the connection ends.
        captured = list(_capture_problems(connection, subject, has_slot=slot is not None))
    yield from captured
    started = status.heartbeat_age_s is not None  # the connector has read this database before
    if slot is None:
        message = f"replication slot {slot_name(subject.source)} does not exist"
        lost = f"{message}: changes since it went are lost" if started else message
        yield Problem("SLOT_MISSING", lost, subject.start_over if started else subject.apply)
    else:
        invalidation = slot.pop("reason")
        status.slot = Slot(**slot)
        yield from _slot_problems(status.slot, invalidation, subject)
    yield from _heartbeat_problems(status, subject)


def _capture_problems(connection: psycopg.Connection[Any], subject: Subject, *, has_slot: bool) -> Iterator[Problem]:
    # With a slot, what was not published meanwhile cannot be read any more: only a new snapshot has it.
    mend = subject.start_over if has_slot else subject.apply
    present = read_catalogue(connection, tuple(subject.tables)).tables
    missing = [table for table in subject.tables if table not in present and not is_pattern(table)]
    if missing:
        message = f"{', '.join(missing)}: captured, but not in the database any more"
        remedy = f"create it again, or take its aggregate out of the source file; then {mend}"
        yield Problem("TABLE_MISSING", message, remedy)
    name = publication_name(subject.source)
    publication = read_publication(connection, name)
    if publication is None:
        yield Problem("PUBLICATION_MISSING", f"publication {name} does not exist", mend)
        return
    captured = {
        table.name: each for name, each in subject.tables.items() if name in present for table in present[name].present
    }
    names = TableNames(subject.tables)
    late = [
        (table, tenant)
        for table in captured
        if table not in publication.tables and (tenant := (names.find(table) or ("", None))[1]) is not None
    ]
    for table, tenant in () if publication.everything else late:
        del captured[table]
        message = f"publication {name} does not publish {table}: what is written there is in no event"
        resync = f"`rowcast sources resync {subject.source} --tenant {tenant}`"
        yield Problem("PUBLICATION_INCOMPLETE", message, f"{subject.apply}, then {resync}")
    lacks = "; ".join(publication.shortfalls(captured))
    if lacks:
        lost = ": what is written meanwhile is in no event" if has_slot else ""
        yield Problem("PUBLICATION_INCOMPLETE", f"publication {name} {lacks}{lost}", mend)


def _slot_problems(slot: Slot, invalidation: str | None, subject: Subject) -> Iterator[Problem]:
    name = slot_name(subject.source)
    if slot.wal_status == "lost":
        message = f"replication slot {name} is invalid ({invalidation or 'its WAL is gone'}): changes are lost"
        yield Problem("SLOT_LOST", message, subject.start_over)
    elif not slot.active:
        message = f"nobody reads replication slot {name}; the server keeps {slot.retained_bytes} bytes of WAL for it"
        yield Problem("SLOT_INACTIVE", message, "see the connector's state and Connect's log")


def _heartbeat_problems(status: SourceStatus, subject: Subject) -> Iterator[Problem]:
    age_s = status.heartbeat_age_s
    if age_s is None:
        yield Problem("HEARTBEAT_MISSING", "the connector has not written a heartbeat yet", subject.apply)
    elif age_s > HEARTBEAT_AGE_MAX_S:
        message = f"the connector's last heartbeat is {age_s:.0f} s old"
        yield Problem("HEARTBEAT_OLD", message, "see the connector's state and Connect's log")


_SLOT = """
SELECT active, coalesce(wal_status, 'unknown') AS wal_status, restart_lsn::text, confirmed_flush_lsn::text,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS retained_bytes,
       pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS unconfirmed_bytes,
       safe_wal_size AS safe_wal_bytes,
       to_jsonb(s) ->> 'invalidation_reason' AS reason  -- the column is younger than PostgreSQL 14
  FROM pg_replication_slots s WHERE slot_name = %s
"""

_BEAT = "SELECT extract(epoch FROM clock_timestamp() - at) AS age_s FROM rowcast.heartbeat WHERE source = %s"
