"""Which majors of each aggregate type are live, as the state knows it, and what has to go out when one is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Every aggregate of *types* waits for its event in newly live majors; *origin* is where these come from."""

    types: Sequence[str]
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """
    Other *live* majors than before, by aggregate type: *former* has those of the types of which one is new.

    *waiting* says what has to go out for them, None: nothing.
    """

    live: Mapping[str, tuple[int, ...]]
    former: Mapping[str, tuple[int, ...]]
    waiting: Waiting | None


def read_live_majors(connection: psycopg.Connection, source: str) -> dict[str, tuple[int, ...]]:
    """The majors in which each aggregate type goes out; the newest first."""
    row = connection.execute("SELECT live_majors FROM rowcast.source WHERE source = %s", (source,)).fetchone()
    known = orjson.loads(row[0]) if row is not None and row[0] is not None else {}
    return {name: tuple(majors) for name, majors in known.items()}


def read_waiting(connection: psycopg.Connection, source: str) -> Waiting | None:
    """What newly live majors wait for; None: nothing."""
    row = connection.execute("SELECT opening FROM rowcast.source WHERE source = %s", (source,)).fetchone()
    return None if row is None or row[0] is None else Waiting(**orjson.loads(row[0]))
