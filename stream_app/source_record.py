"""What the control database has noted of one source besides its state and its position."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
import psycopg

from rowcast.control.halts import read_halts
from rowcast.halt import Halt
from stream_app.generation import Generation


class SourceRecord:
    """Reads the notes of *source*."""

    def __init__(self, connection: psycopg.Connection, source: str) -> None:
        self._connection = connection
        self._source = source

    def processed(self) -> list[tuple[int, int, int]]:
        """The transactions of the re-send window as (commit LSN, xid, change count), oldest first."""
        rows = self._connection.execute(
            "SELECT entries FROM rowcast.processed_transaction WHERE source = %s ORDER BY last_lsn", (self._source,)
        )
        flat = [number for (entries,) in rows for number in entries]
        return list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))

    def ranked(self) -> list[str] | None:
        """The types in the order by which what is pending was numbered; None: it was not noted."""
        query = "SELECT ranked FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None or row[0] is None else orjson.loads(row[0])

    def snapshot_from(self) -> int | None:
        """Behind which offset of the change log a snapshot is expected; None: it was never noted."""
        query = "SELECT snapshot_from FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def resumed_at(self) -> datetime | None:
        """When the source was resumed after its last stop; None: never."""
        query = "SELECT resumed_at FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None else row[0]

    def partitions_from(self) -> dict[str, Any] | None:
        """What the catalogue said before the snapshot, as heartbeats tell of it; None: never noted."""
        query = "SELECT partitions_from FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None or row[0] is None else orjson.loads(row[0])

    def generations(self) -> list[Generation]:
        """The newest generation of each aggregate type that has one."""
        rows = self._connection.execute(
            "SELECT DISTINCT ON (aggregate) aggregate, generation, status, started_offset, lsn, time"
            " FROM rowcast.generation WHERE source = %s ORDER BY aggregate, generation DESC",
            (self._source,),
        )
        return [Generation(*row) for row in rows]

    def commands(self) -> list[tuple[int, str, dict[str, Any]]]:
        """The open commands as (number, verb, arguments), oldest first."""
        rows = self._connection.execute(
            "SELECT number, verb, arguments FROM rowcast.command WHERE source = %s AND done_at IS NULL"
            " ORDER BY number LIMIT 100",
            (self._source,),
        )
        return [(number, verb, orjson.loads(arguments)) for number, verb, arguments in rows]

    def halts(self) -> list[Halt]:
        """Why types of the source are halted."""
        return read_halts(self._connection, self._source)

    def refused(self) -> tuple[int, str | None]:
        """How many aggregates and stated events are refused, and since when the oldest is (RFC 3339)."""
        row = self._connection.execute(
            "SELECT count(*), to_char(min(refused_since) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            " FROM (SELECT refused_since FROM rowcast.aggregate WHERE source = %s AND refused_reason IS NOT NULL"
            " UNION ALL SELECT since FROM rowcast.refused_statement WHERE source = %s) AS r (refused_since)",
            (self._source, self._source),
        ).fetchone()
        assert row is not None, "an aggregate query returns one row"
        return int(row[0]), row[1]
