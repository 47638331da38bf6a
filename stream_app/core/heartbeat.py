"""Heartbeats: transactional messages of our own that go the whole way of the rows, and what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from rowcast.errors import StopError
from rowcast.sources.tenant import TableNames, is_pattern
from stream_app.core.captured import (
    CAPTURED,
    dropped_tables,
    follow_captured,
    forget_identities,
    forget_tenants_identities,
    note_seen,
)
from stream_app.core.change import HEARTBEAT_PREFIX, Operation, RowChange
from stream_app.core.partition import ALL as PARTITIONS
from stream_app.core.partition import Capture, follow_partitions, forget_partitions, keep_truncated
from stream_app.core.tenant import tables_of_tenants
from stream_app.core.transaction import LargeTransaction, Transaction

Heartbeat = Mapping[str, Any]
_NOTHING_KNOWN = Capture()
_SYSTEM, _TIMELINE = "system_identifier", "timeline"


def newest_heartbeat(
    source: str,
    former: Heartbeat | None,
    transactions: Sequence[Transaction | LargeTransaction],
    capture: Capture = _NOTHING_KNOWN,
) -> Heartbeat | None:
    """
    The content of the newest heartbeat of *source*: *former*, or one among *transactions*.

    What of the catalogue not every beat tells is the last that was told. The TRUNCATEs of *capture* came before.

    Raises:
        TableDefectError: rows of some tables came or went of which nothing is in the WAL, or they are not as applied.
        StopError: nor is the publication, or the database is another.

    """
    newest = former if former is None or not capture.truncated else keep_truncated(former, capture.truncated)
    of_tenants = any(map(is_pattern, capture.tables))
    for transaction in transactions:
        if transaction.messages:
            for beat in _heartbeats(transaction, source):
                newest = _follow(source, newest, beat, capture)
        if of_tenants and newest is not None:
            rows = transaction.rows if isinstance(transaction, Transaction) else ()
            seen = tables_of_tenants(rows) | capture.seen
            known = newest.get(CAPTURED, (capture.begun or {}).get(CAPTURED))
            if seen and known:
                newest = {**newest, CAPTURED: note_seen(known, seen)}
    return newest


def forget_catalogue(heartbeat: Heartbeat | None) -> dict[str, Any] | None:
    """*heartbeat* without what it says of catalogue and server: a new snapshot reads what there is."""
    if heartbeat is None:
        return None
    gone = (*PARTITIONS, CAPTURED, _SYSTEM, _TIMELINE)
    return {name: value for name, value in heartbeat.items() if name not in gone}


def forget_tables(heartbeat: Heartbeat, tables: Collection[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """*heartbeat* with *tables* as they are *told* to be now: what they were before is mended."""
    kept = forget_partitions(heartbeat, tables, told)
    if CAPTURED in kept:
        kept[CAPTURED] = forget_identities(kept[CAPTURED], tables, told.get(CAPTURED, {}))
    return kept


def forget_tenants(
    heartbeat: Heartbeat, names: TableNames, tenants: Collection[str], told: Mapping[str, Any]
) -> dict[str, Any]:
    """*heartbeat* with the tables of *tenants* among *names* as they are *told* to be now."""
    kept = dict(heartbeat)
    if CAPTURED in kept:
        kept[CAPTURED] = forget_tenants_identities(kept[CAPTURED], names, tenants, told.get(CAPTURED, {}))
    return kept


def tells_of_tables(source: str, unit: Transaction) -> bool:
    """Whether a heartbeat of *source* in *unit* tells of the captured tables."""
    return any(isinstance(beat.get(CAPTURED), dict) for beat in _heartbeats(unit, source))


def dropped_by(source: str, former: Heartbeat | None, unit: Transaction, capture: Capture) -> list[RowChange]:
    """
    TRUNCATEs of the tenants' tables that a heartbeat in *unit* does not tell of any more: they were dropped.

    *former* is the heartbeat before it. Nothing in the log says so, and a table that is gone has no rows.
    """
    known = (former or {}).get(CAPTURED, (capture.begun or {}).get(CAPTURED)) or {}
    found: dict[tuple[str, str], None] = {}
    for beat in _heartbeats(unit, source):
        if isinstance(beat.get(CAPTURED), dict):
            found.update(dict.fromkeys(dropped_tables(beat[CAPTURED], known, capture.tables)))
    return [
        RowChange(Operation.TRUNCATE, table, None, None, unit.xid, None, unit.lsn, unit.time_us, tenant=tenant)
        for table, tenant in found
    ]


def _check_history(source: str, former: Heartbeat, beat: Heartbeat, resumed: datetime | None) -> None:
    """
    Make sure that *beat* comes from the database that *former* came from.

    One that was promoted is it as far as the former one's WAL reached it, which nobody can tell: who resumes the source
    afterwards knows.
    """
    system, timeline = ((former.get(name), beat.get(name)) for name in (_SYSTEM, _TIMELINE))
    if None not in system and system[0] != system[1]:
        raise StopError(
            "DATABASE_REPLACED",
            f"the database belongs to another server: its system identifier is {system[1]}, was {system[0]};"
            " nothing is known of the changes in between",
            remedy=f"rowcast sources recover {source} --code DATABASE_REPLACED --yes",
        )
    passed = resumed is not None and datetime.fromisoformat(beat["at"]) <= resumed
    if None not in timeline and timeline[0] != timeline[1] and not passed:
        raise StopError(
            "DATABASE_PROMOTED",
            f"a standby was promoted, or the database restored: its timeline is {timeline[1]}, was {timeline[0]};"
            " what the former server told last may never have been",
            remedy=f"rowcast sources resume {source}; then rowcast sources resync {source}",
        )


def _follow(source: str, former: Heartbeat | None, beat: dict[str, Any], capture: Capture) -> Heartbeat:
    _check_history(source, former or {}, beat, capture.resumed)
    known = (former or {}).get(CAPTURED, (capture.begun or {}).get(CAPTURED))
    if known and capture.halted and isinstance(known.get("is"), str):
        # One for all tables, from a connector that a former release set up: those of halted types are being mended.
        known = {name: each for name, each in known.items() if name != "is"}
    captured = follow_captured(source, known, beat, capture)
    kept = follow_partitions(source, former, beat, capture)
    return kept if captured is None else {**kept, CAPTURED: captured}


def _heartbeats(transaction: Transaction | LargeTransaction, source: str) -> Iterator[dict[str, Any]]:
    """Those of *source*; anything else is passed over, because every role of the database may emit messages."""
    for message in transaction.messages:
        if message.prefix != HEARTBEAT_PREFIX:
            continue
        try:
            heartbeat = orjson.loads(message.content)
            datetime.fromisoformat(heartbeat["at"])
        except (ValueError, KeyError, TypeError):
            continue
        if heartbeat.get("source") == source:
            yield heartbeat
