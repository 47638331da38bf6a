"""The halted types of sources, as the control database has them."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import psycopg

from rowcast.halt import Halt

_READ = """
SELECT aggregate, cause, code, message, mended, tables,
       to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
  FROM rowcast.halted_type WHERE source = %s ORDER BY since, cause, aggregate <> cause, aggregate
"""
_ADD = """
INSERT INTO rowcast.halted_type (source, aggregate, cause, code, message, mended, tables, since)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (source, aggregate, cause) DO UPDATE
SET code = excluded.code, message = excluded.message, mended = excluded.mended, tables = excluded.tables
"""
_LIFT = "DELETE FROM rowcast.halted_type WHERE source = %s AND cause = ANY (%s)"


def read_halts(connection: psycopg.Connection, source: str) -> list[Halt]:
    """Why types of *source* are halted, the earliest first; those that are themselves the cause before those below."""
    rows = connection.execute(_READ, (source,))
    return [
        Halt(aggregate, cause, code, message, mended, tuple(orjson.loads(tables)), since)
        for aggregate, cause, code, message, mended, tables, since in rows
    ]


def write_halts(connection: psycopg.Connection, source: str, halted: Iterable[Halt], lifted: list[str]) -> None:
    """Write what was *halted*, and end what the causes *lifted* halted before, in the open transaction."""
    if lifted:
        connection.execute(_LIFT, (source, lifted))
    for each in halted:
        tables = orjson.dumps(each.tables).decode()
        connection.execute(_ADD, (source, *each[:5], tables, each.since))


def halted_tables(connection: psycopg.Connection, source: str) -> frozenset[str]:
    """The tables of *source* that are not as they were applied, and that a resync reads anew. Reads only."""
    if connection.execute("SELECT to_regclass('rowcast.halted_type')").fetchone() == (None,):
        return frozenset()
    return frozenset(table for halt in read_halts(connection, source) for table in halt.tables)
