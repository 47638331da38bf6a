"""
The health of a source: what is known of its parts, and what is wrong with it.

Everything that is wrong is a problem with a stable code and a remedy; docs/reference/stops.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rowcast.connect import ConnectorStatus


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
    the last finished unit of the change log; *halted*: aggregate types of which nothing goes out, each with its cause,
    code, message and since when.
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
    halted: Sequence[Mapping[str, str]] = ()


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
