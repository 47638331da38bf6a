"""
Records of the change log, parsed once into types.

What Debezium 3.7 writes with JSON converters and ``schemas.enable=false``, all in one topic: transaction
boundaries, row changes, logical messages, its own heartbeats. Everything else is malformed.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from rowcast.annotation import STATED_PREFIX
from rowcast.errors import MalformedChangeError
from stream_app.core.column import holds_placeholder

Columns = Mapping[str, Any]

HEARTBEAT_PREFIX = "rowcast.heartbeat"


class Operation(StrEnum):
    """What happened to a row, by Debezium's wire code."""

    CREATE = "c"
    UPDATE = "u"
    DELETE = "d"
    READ = "r"
    TRUNCATE = "t"


# By wire code; a dictionary finds it several times as fast as the enumeration.
_OPERATIONS = {each.value: each for each in Operation}


class Begin(NamedTuple):
    """A transaction begins; *xid* is PostgreSQL's transaction id, *lsn* where it wrote first (0: unknown)."""

    xid: int
    lsn: int


class End(NamedTuple):
    """A transaction is whole when its changes 1..*change_count* are there; *lsn* is its commit LSN."""

    xid: int
    lsn: int
    change_count: int
    time_ms: int


class RowChange(NamedTuple):
    """
    One row of *table* (``schema.table``) changed.

    *xid* and *order* place it in its transaction; both are None for a snapshot read. *lsn* and *time_us*
    are those of the change, or of the snapshot. *last* marks the snapshot's last row. Of a *whole* row every
    value is there, but for types that mark it otherwise (`stream_app.core.column.is_marked_otherwise`); of any other,
    some may be unavailable, because they stand unchanged outside the WAL. Of a TRUNCATE *tenant* is the only one
    that it concerns; rows have theirs among the columns.
    """

    operation: Operation
    table: str
    before: Columns | None
    after: Columns | None
    xid: int | None
    order: int | None
    lsn: int
    time_us: int
    first: bool = False
    last: bool = False
    whole: bool = False
    tenant: str | None = None


class Message(NamedTuple):
    """A transactional logical message: our heartbeat, or what a writer attached or stated; *lsn* 0 is unknown."""

    prefix: str
    content: bytes
    xid: int
    order: int
    time_us: int
    lsn: int = 0


class SnapshotStart(NamedTuple):
    """The connector says that it begins to read its tables; *notice_id* is that of the notice."""

    notice_id: str


class LooseMessage(NamedTuple):
    """A stated event outside transactions, where it has no place among changes; *lsn* is its own."""

    content: bytes
    lsn: int
    time_us: int


@dataclass(frozen=True, slots=True)
class Resumption:
    """The connector was started again, and goes on from the place that it had stored last."""


@dataclass(frozen=True, slots=True)
class Noise:
    """A record without meaning for events: Debezium's heartbeats and notices, a message outside transactions."""


Change = Begin | End | RowChange | Message | LooseMessage | SnapshotStart | Resumption | Noise

_NOISE, _RESUMPTION = Noise(), Resumption()
# Named tuples by this are made in half the time that they take to make themselves.
_new = tuple.__new__
_HEARTBEAT_FIELDS = frozenset({"ts_ms"})
_NOTICE_FIELDS = frozenset({"id", "type", "aggregate_type", "additional_data", "timestamp"})
# What Debezium says at each start: it takes a snapshot, or needs none.
_STARTED, _SKIPPED = ("Initial Snapshot", "STARTED"), ("Initial Snapshot", "SKIPPED")
_FIRST, _LAST = "first", "last"


def parse_change(value: bytes | None) -> Change:
    """
    The change that a record of the change log carries.

    Raises:
        MalformedChangeError: the record is not what the connector is configured to write.

    """
    try:
        data = orjson.loads(value or b"null")
        if not isinstance(data, dict):
            raise MalformedChangeError("not a JSON object")
        if (code := data.get("op")) is not None:
            return _message(data) if code == "m" else _row_change(data, code, not holds_placeholder(value or b""))
        if "status" in data:
            return _boundary(data)
        if data.keys() == _NOTICE_FIELDS:
            return _notice(data)
        if data.keys() == _HEARTBEAT_FIELDS:
            return _NOISE
    except (KeyError, TypeError, ValueError, Base64Error) as error:
        raise MalformedChangeError(f"not a Debezium change event: {type(error).__name__}: {error}") from error
    raise MalformedChangeError(f"not a Debezium change event: fields {sorted(data)[:8]}")


def _notice(data: dict[str, Any]) -> SnapshotStart | Resumption | Noise:
    told = data["aggregate_type"], data["type"]
    if told == _STARTED:
        return SnapshotStart(str(data["id"]))
    return _RESUMPTION if told == _SKIPPED else _NOISE


def _row_change(data: dict[str, Any], code: str, whole: bool) -> RowChange:
    source, transaction = data["source"], data.get("transaction")
    snapshot = source.get("snapshot")
    xid = order = None
    if transaction is not None:
        xid, order = int(transaction["id"].partition(":")[0]), transaction["total_order"]
    change = (
        _OPERATIONS[code],
        f"{source['schema']}.{source['table']}",
        data["before"],
        data["after"],
        xid,
        order,
        source.get("lsn") or 0,
        source.get("ts_us") or source["ts_ms"] * 1000,
        snapshot == _FIRST,
        snapshot == _LAST,
        whole,
        None,
    )
    return _new(RowChange, change)


def _message(data: dict[str, Any]) -> Message | LooseMessage | Noise:
    source, transaction, message = data["source"], data["transaction"], data["message"]
    time_us = source.get("ts_us") or source["ts_ms"] * 1000
    if transaction is None:
        # Emitted with transactional=false: it belongs to no transaction and says nothing about one.
        if message["prefix"] != STATED_PREFIX:
            return _NOISE
        return LooseMessage(b64decode(message["content"], validate=True), source.get("lsn") or 0, time_us)
    return Message(
        prefix=message["prefix"],
        content=b64decode(message["content"], validate=True),
        xid=_xid(transaction["id"]),
        order=transaction["total_order"],
        time_us=time_us,
        lsn=source.get("lsn") or 0,
    )


def _boundary(data: dict[str, Any]) -> Begin | End:
    if data["status"] == "BEGIN":
        xid, _, lsn = data["id"].partition(":")
        return _new(Begin, (int(xid), int(lsn or 0)))
    if data["status"] == "END":
        xid, lsn = data["id"].split(":")
        return _new(End, (int(xid), int(lsn), data["event_count"], data["ts_ms"]))
    raise MalformedChangeError(f"unknown transaction status {data['status']!r}")


def _xid(transaction_id: str) -> int:
    # "<xid>:<LSN>"; the LSN differs between BEGIN, each row and END, only the xid binds them.
    return int(transaction_id.partition(":")[0])
