"""
Who owns a source: a lease row of the control database with an epoch, by the database's clock.

Claiming raises the epoch before any state is read, so that whatever an older owner still does is refused at
the compare-and-set of its next commit. Kafka's consumer group plays no part.
"""

from __future__ import annotations

import psycopg

from rowcast.sources.definition import SourceDefinition
from stream_app.store import LEASE_S, Ownership

RENEW_S = 2
MAX_TRIES = 3

_CLAIM = """
UPDATE rowcast.source
SET holder = %(holder)s, epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE source = %(source)s AND NOT removed
  AND (holder IS NULL OR holder = %(holder)s OR lease_until IS NULL OR lease_until < clock_timestamp())
RETURNING epoch, CASE WHEN status = 'stopped' THEN stopped_code END
"""
# The server ends a transaction whose client is silent between two statements, but one in the middle of a COPY only
# after its statement timeout, and one right behind a pipeline not at all. NAMEDATALEN cuts the names of applications.
_END_FROZEN = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
  AND application_name = left(%(application)s, 63) AND wait_event = 'ClientRead'
  AND (state = 'active' AND query_start < clock_timestamp() - make_interval(secs => %(lease_s)s)
       OR state LIKE 'idle in transaction%%' AND state_change < clock_timestamp() - make_interval(secs => %(lease_s)s))
  AND EXISTS (SELECT FROM rowcast.source WHERE source = %(source)s AND NOT removed
              AND (holder IS NULL OR holder = %(holder)s OR lease_until IS NULL OR lease_until < clock_timestamp()))
"""
_RENEW = """
UPDATE rowcast.source SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE source = (SELECT source FROM rowcast.source WHERE source = %(source)s AND holder = %(holder)s AND NOT removed
                FOR UPDATE SKIP LOCKED)
RETURNING status, revision
"""


def application(source: str) -> str:
    """What the owner of *source* calls the session in which it commits."""
    return f"rowcast worker {source}"


def claimable(connection: psycopg.Connection, holder: str) -> list[str]:
    """The sources that nobody else owns at the moment."""
    rows = connection.execute(
        "SELECT source FROM rowcast.source WHERE NOT removed"
        " AND (holder IS NULL OR holder = %s OR lease_until IS NULL OR lease_until < clock_timestamp())"
        " ORDER BY source",
        (holder,),
    )
    return [row[0] for row in rows]


def claim(connection: psycopg.Connection, source: str, holder: str) -> tuple[Ownership, str | None] | None:
    """
    Own *source* as a new epoch, with the code that it is stopped with; None when somebody else does.

    A session of an earlier owner that waits for its client for longer than a lease is ended: it holds the row.
    """
    whose = {"source": source, "holder": holder, "lease_s": LEASE_S, "application": application(source)}
    connection.execute(_END_FROZEN, whose)
    row = connection.execute(_CLAIM, whose).fetchone()
    return None if row is None else (Ownership(source=source, holder=holder, epoch=row[0]), row[1])


def renew(connection: psycopg.Connection, source: str, holder: str) -> tuple[str, str] | None:
    """
    Keep *source*; returns its status and applied revision, or None when it was not renewed.

    A source whose row is locked is passed over: its own commit extends the lease.
    """
    row = connection.execute(_RENEW, {"source": source, "holder": holder, "lease_s": LEASE_S}).fetchone()
    return None if row is None else (row[0], row[1])


def held(connection: psycopg.Connection, source: str, holder: str) -> bool:
    """Whether *source* still belongs to *holder*."""
    row = connection.execute(
        "SELECT 1 FROM rowcast.source WHERE source = %s AND holder = %s AND NOT removed", (source, holder)
    ).fetchone()
    return row is not None


def release(connection: psycopg.Connection, source: str, holder: str) -> None:
    """Give *source* up, so that a standby can take it at once."""
    connection.execute(
        "UPDATE rowcast.source SET holder = NULL, lease_until = NULL WHERE source = %s AND holder = %s",
        (source, holder),
    )


def read_definition(connection: psycopg.Connection, source: str) -> tuple[SourceDefinition, str]:
    """
    The definition that was applied last, and the revision that it was applied as.

    One that an older version applied reads back as a definition of another revision.
    """
    query = "SELECT definition, revision FROM rowcast.source WHERE source = %s"
    row = connection.execute(query, (source,)).fetchone()
    assert row is not None, "a claimed source has its row"
    return SourceDefinition.from_json(row[0]), str(row[1])


def write_stop(connection: psycopg.Connection, ownership: Ownership, fault: tuple[str, str, str]) -> None:
    """Stop the source with (code, detail, remedy), unless it was claimed anew."""
    connection.execute(
        "UPDATE rowcast.source SET status = 'stopped', stopped_code = %s, stopped_detail = %s, stopped_remedy = %s,"
        " stopped_since = clock_timestamp() WHERE source = %s AND epoch = %s",
        (*fault, ownership.source, ownership.epoch),
    )


def count_try(connection: psycopg.Connection, ownership: Ownership, offset: int, detail: str) -> int:
    """Count an unexpected error at *offset* and return how many there were in a row."""
    row = connection.execute(
        "UPDATE rowcast.source SET failed_tries = CASE WHEN failed_offset = %s THEN failed_tries + 1 ELSE 1 END,"
        " failed_offset = %s, failed_detail = %s WHERE source = %s AND epoch = %s RETURNING failed_tries",
        (offset, offset, detail, ownership.source, ownership.epoch),
    ).fetchone()
    return 0 if row is None else int(row[0])
