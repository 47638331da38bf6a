"""Heartbeats: transactional messages of our own that go the whole way of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from stream_app.core.change import HEARTBEAT_PREFIX
from stream_app.core.transaction import LargeTransaction, Transaction


def last_heartbeat(source: str, transactions: Sequence[Transaction | LargeTransaction]) -> dict[str, Any] | None:
    """The content of the newest heartbeat of *source* among *transactions*."""
    for transaction in reversed(transactions):
        for message in transaction.messages:
            if message.prefix == HEARTBEAT_PREFIX and (content := _heartbeat(message.content, source)) is not None:
                return content
    return None


def _heartbeat(content: bytes, source: str) -> dict[str, Any] | None:
    """A heartbeat of *source*; None for anything else, because every role of the database may emit messages."""
    try:
        heartbeat = orjson.loads(content)
        datetime.fromisoformat(heartbeat["at"])
    except (ValueError, KeyError, TypeError):
        return None
    return heartbeat if heartbeat.get("source") == source else None
