"""The position of a source: where its owner has got to, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from rowcast.errors import StopError

EndOffsets = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """
    *next_offset* stands behind the last finished unit of the change log, *commit_lsn* is its commit LSN.

    *end_offsets* are the ends of the domain partitions behind everything published so far, *sub_position*
    names the unit that is being emitted in chunks (None: none), *heartbeat* the last heartbeat's content.
    """

    change_log_topic_id: str
    next_offset: int
    commit_lsn: int
    end_offsets: EndOffsets
    sub_position: Mapping[str, Any] | None = None
    heartbeat: Mapping[str, Any] | None = None


def read_position(connection: psycopg.Connection, source: str) -> Position | None:
    """
    The committed position of *source*; None when nothing was committed yet.

    Raises:
        StopError: the control row is gone.

    """
    row = connection.execute(
        "SELECT change_log_topic_id, next_offset, commit_lsn, end_offsets, sub_position, heartbeat"
        " FROM rowcast.source WHERE source = %s",
        (source,),
    ).fetchone()
    if row is None:
        raise StopError("NOT_APPLIED", f"the control database does not know source {source!r}")
    if row[1] is None:
        return None
    return Position(
        change_log_topic_id=row[0],
        next_offset=row[1],
        commit_lsn=row[2],
        end_offsets=orjson.loads(row[3]),
        sub_position=None if row[4] is None else orjson.loads(row[4]),
        heartbeat=None if row[5] is None else orjson.loads(row[5]),
    )


def read_revision(connection: psycopg.Connection, source: str) -> str | None:
    """The revision of the definition that was applied last; None when the source is gone."""
    row = connection.execute("SELECT revision FROM rowcast.source WHERE source = %s", (source,)).fetchone()
    return None if row is None else str(row[0])
