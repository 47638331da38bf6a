"""Heartbeats: transactional messages of our own that go the whole way of the rows, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from stream_app.core.change import HEARTBEAT_PREFIX
from stream_app.core.partition import Capture, follow_partitions, keep_truncated
from stream_app.core.transaction import LargeTransaction, Transaction

Heartbeat = Mapping[str, Any]
_NOTHING_KNOWN = Capture()


def newest_heartbeat(
    source: str,
    former: Heartbeat | None,
    transactions: Sequence[Transaction | LargeTransaction],
    capture: Capture = _NOTHING_KNOWN,
) -> Heartbeat | None:
    """
    The content of the newest heartbeat of *source*: *former*, or one among *transactions*.

    The partitions, which not every beat tells, are the last that were told. The TRUNCATEs of *capture* came before.

    Raises:
        StopError: partitions came or went with rows of which nothing is in the WAL.

    """
    newest = former if former is None or not capture.truncated else keep_truncated(former, capture.truncated)
    for transaction in transactions:
        if transaction.messages:
            for beat in _heartbeats(transaction, source):
                newest = follow_partitions(source, newest, beat, capture)
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
