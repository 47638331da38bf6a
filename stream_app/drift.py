"""
Drift: rows of the database that row state has otherwise, found by a resync and applied by the owner of the source.

They were read beside the change log, so only where nothing has come of a row since before it was read: neither a
change, which marks it with the generation, nor a deletion, which is noted. Of a row that has changed, only those values
are taken that its change did not touch, and that were not known: had they changed since, the log would have them.
"""

from __future__ import annotations

from typing import NamedTuple

import orjson
import psycopg

from stream_app.core.change import Columns, Operation, RowChange
from stream_app.core.column import is_unavailable
from stream_app.core.transaction import Transaction

# Whoever reads rows for a resync of a source holds this lock, with the hash of the source's name.
READING_LOCK = 0x5265_7379
# What comes of a resync that the owner cannot apply any more.
SUPERSEDED = "not applied, because a snapshot or another definition came in between: ask again"
_NEXT = """
SELECT d.table_name, d.row_key, d.columns, r.columns, coalesce(r.generation >= %(generation)s, false)
FROM rowcast.reread_row d
LEFT JOIN rowcast.row_state r
  ON r.source = d.source AND r.table_name = d.table_name AND r.row_key = d.row_key
WHERE d.source = %(source)s AND d.generation = %(generation)s AND (d.table_name, d.row_key) > (%(table)s, %(key)s)
  AND (d.columns <> '' OR (d.columns IS NULL AND r.generation < %(generation)s))
  AND NOT EXISTS (SELECT FROM rowcast.deleted_row g WHERE g.source = d.source AND g.generation = d.generation
                  AND g.table_name = d.table_name AND g.row_key = d.row_key)
  AND NOT EXISTS (SELECT FROM rowcast.deleted_row g WHERE g.source = d.source AND g.generation = d.generation
                  AND g.table_name = d.table_name
                  AND (g.row_key IS NULL OR g.row_key = split_part(d.row_key, '/', 1) || '/'))
ORDER BY d.table_name, d.row_key LIMIT %(limit)s
"""
_IS_READ = "SELECT NOT pg_try_advisory_xact_lock_shared(%s, hashtext(%s))"


class DriftedRow(NamedTuple):
    """A row of *table* as it is in the database (None: it is not there), and as row state has had it until now."""

    table: str
    found: Columns | None
    known: Columns | None


class Drift:
    """What of a source was found different; *connection* reads the control database."""

    def __init__(self, connection: psycopg.Connection, source: str) -> None:
        self._connection = connection
        self._source = source

    def rows(
        self, generation: int, after: tuple[str, str], limit: int
    ) -> tuple[list[DriftedRow], tuple[str, str] | None]:
        """
        What is still to be applied of the next *limit* rows, by table and key, behind *after*.

        And the table and key of the last of them; None: there are no more.
        """
        parameters = {
            "source": self._source,
            "generation": generation,
            "table": after[0],
            "key": after[1],
            "limit": limit,
        }
        rows, last = list[DriftedRow](), None
        for table, key, found, known, changed in self._connection.execute(_NEXT, parameters):
            last = table, key
            row = DriftedRow(table, _columns(found), _columns(known))
            if changed:
                row = row._replace(found=_completed(row.known, row.found))
            if row.found != row.known:
                rows.append(row)
        return rows, last

    def is_read(self) -> bool:
        """Whether somebody is reading rows of the source for a resync."""
        row = self._connection.execute(_IS_READ, (READING_LOCK, self._source)).fetchone()
        assert row is not None, "a function returns one row"
        return bool(row[0])


def _columns(text: str | None) -> Columns | None:
    try:
        return None if text is None else orjson.loads(text)
    except ValueError:
        return None  # somebody has been at row state: whatever is found is right


def _completed(known: Columns | None, found: Columns | None) -> Columns | None:
    if known is None or found is None:
        return known
    return {name: found[name] if is_unavailable(value) and name in found else value for name, value in known.items()}


def as_transaction(rows: list[DriftedRow], lsn: int) -> Transaction:
    """The changes that make row state as the database is."""
    changes = tuple(
        RowChange(
            Operation.DELETE if row.found is None else Operation.UPDATE,
            row.table,
            row.known if row.found is None else None,
            row.found,
            None,
            order,
            lsn,
            0,
            whole=True,
        )
        for order, row in enumerate(rows, 1)
    )
    return Transaction(0, lsn, len(changes), 0, changes, ())
