"""Stopped sources, as operators resume them."""

from __future__ import annotations

import psycopg

from rowcast.control.command import ask
from rowcast.control.names import need_source


def resume(connection: psycopg.Connection, source: str) -> str | None:
    """
    Let a stopped source run again; its owner opens it within seconds.

    Returns:
        The code it was stopped with; None when it was not stopped.

    Raises:
        ConfigurationError: no source of that name was ever applied.

    """
    need_source(connection, source)
    row = connection.execute(
        "WITH former AS (SELECT source, stopped_code FROM rowcast.source"
        " WHERE source = %s AND status = 'stopped' FOR UPDATE)"
        " UPDATE rowcast.source s SET status = 'running', stopped_code = NULL, stopped_detail = NULL,"
        " stopped_remedy = NULL, stopped_since = NULL, failed_offset = NULL, failed_tries = 0, failed_detail = NULL,"
        " resumed_at = clock_timestamp()"
        " FROM former WHERE s.source = former.source RETURNING former.stopped_code",
        (source,),
    ).fetchone()
    return None if row is None else str(row[0])


def ask_skip_snapshot(connection: psycopg.Connection, source: str, next_offset: int) -> int:
    """Ask the owner to leave an interrupted snapshot behind; returns the command's number."""
    return ask(connection, source, "skip_snapshot", {"next_offset": next_offset})
