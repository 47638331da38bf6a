"""Heartbeats: transactional messages of our own that go the whole way of the rows, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from rowcast.errors import StopError
from stream_app.core.change import HEARTBEAT_PREFIX
from stream_app.core.transaction import LargeTransaction, Transaction

Heartbeat = Mapping[str, Any]
# The partitions of each partitioned table: oids, those that were attached with `@<transaction>`.
Partitions = Mapping[str, Sequence[str]]
_PARTITIONS = "partitions"


def newest_heartbeat(
    source: str, former: Heartbeat | None, transactions: Sequence[Transaction | LargeTransaction]
) -> Heartbeat | None:
    """
    The content of the newest heartbeat of *source*: *former*, or one among *transactions*.

    The partitions, which not every beat tells, are the last that were told.

    Raises:
        StopError: partitions came or went with rows of which nothing is in the WAL.

    """
    newest = former
    for transaction in transactions:
        if transaction.messages:
            for beat in _heartbeats(transaction, source):
                newest = _follow(source, newest, beat)
    return newest


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


def _follow(source: str, former: Heartbeat | None, beat: dict[str, Any]) -> Heartbeat:
    told: Partitions | None = (former or {}).get(_PARTITIONS)
    found = beat.pop(_PARTITIONS, None)
    if isinstance(found, dict):
        changes = [] if told is None else list(_changes(told, found))
        if changes:
            raise StopError(
                "PARTITIONS_CHANGED",
                f"{'; '.join(changes)}: their rows came or went without a trace in the WAL",
                remedy=f"rowcast sources resnapshot {source} --yes",
            )
        told = found
    return beat if told is None else {**beat, _PARTITIONS: told}


def _changes(told: Partitions, found: Partitions) -> Iterator[str]:
    for table in sorted({*told, *found}):
        before, now = set(told.get(table, ())), set(found.get(table, ()))
        attached = {each for each in now - before if "@" in each}
        gone = {_oid(each) for each in before} - {_oid(each) for each in now}
        if attached:
            yield f"{table}: {len(attached)} partitions were attached"
        if gone:
            yield f"{table}: {len(gone)} partitions were detached or dropped"


def _oid(partition: str) -> str:
    return partition.partition("@")[0]


def forget_partitions(heartbeat: Heartbeat | None) -> Heartbeat | None:
    """*heartbeat* without what it says of partitions: a new snapshot reads all of them."""
    if heartbeat is None:
        return None
    return {name: value for name, value in heartbeat.items() if name != _PARTITIONS}
