"""
What a service says about its own transaction: who made the change and why, and what happened to which aggregate.

Every event of the transaction carries the first in ``context``; the trace goes into ``ce_traceparent``. The second is
an event of its own. Nothing is stored in the database: both are messages in the WAL, see docs/reference/events.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

CONTEXT_PREFIX = "rowcast.context"
STATED_PREFIX = "rowcast.event"
# Longer ones are not read: they would stand in every event of the transaction.
CONTEXT_BYTES_MAX = 10_000
# W3C Trace Context, section 3.2.
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_IDLE = 0  # libpq's PQTRANS_IDLE
_EMIT = "SELECT pg_logical_emit_message(true, %s, %s)"


def annotate(
    connection: psycopg.Connection[Any],
    *,
    actor: str | None = None,
    reason: str | None = None,
    traceparent: str | None = None,
) -> None:
    """
    Attach *actor*, *reason* and *traceparent* to the transaction open on *connection*; the last call counts.

    Any login may do it, before or after the changes. With a rollback it is gone.

    Raises:
        ConfigurationError: each statement would be a transaction of its own, so nothing would be said of others; or
            *traceparent* is none; or it is too much.

    """
    context = statement(actor=actor, reason=reason, traceparent=traceparent)
    _need_transaction(connection, "annotate()")
    connection.execute(_EMIT, (CONTEXT_PREFIX, context))


def state_event(
    connection: psycopg.Connection[Any],
    aggregate: str,
    key: object,
    event: str,
    data: Mapping[str, Any] | None = None,
) -> None:
    """
    State in the transaction open on *connection* that *event* happened to an aggregate; any login may.

    *aggregate* and *event* are names of the source file; *key* is the id, as text or what has it as its text, or a
    mapping of several key columns to theirs. *data* satisfies the event's contract. It becomes an event behind the
    changes of the aggregate's rows that were made before it, and in front of those that follow; with a rollback it is
    gone. What is not declared, or not valid, is refused where the change log is read: nothing is checked here.

    Raises:
        ConfigurationError: the statement would be a transaction of its own; or *data* is no JSON.

    """
    content = stated_event(aggregate, key, event, data)
    _need_transaction(connection, "state_event()")
    connection.execute(_EMIT, (STATED_PREFIX, content))


def stated_event(aggregate: str, key: object, event: str, data: Mapping[str, Any] | None = None) -> str:
    """
    The content of the message, for whoever sends it with another driver.

    Raises:
        ConfigurationError: *data* is no JSON.

    """
    named = {name: _key_text(part) for name, part in key.items()} if isinstance(key, Mapping) else _key_text(key)
    said = {"aggregate": aggregate, "id": named, "event": event, "data": {} if data is None else data}
    try:
        return json.dumps(said, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"is no JSON: {error}", where=f"data of {event!r}", fix="texts, numbers, …") from error


def _key_text(part: object) -> object:
    return part if isinstance(part, str | int) else str(part)


def _need_transaction(connection: psycopg.Connection[Any], where: str) -> None:
    if connection.autocommit and connection.pgconn.transaction_status == _IDLE:
        raise ConfigurationError(
            "there is no transaction to annotate", where=where, fix="call it inside connection.transaction()"
        )


def statement(*, actor: str | None = None, reason: str | None = None, traceparent: str | None = None) -> str:
    """
    The content of the message, for whoever sends it with another driver.

    Raises:
        ConfigurationError: *traceparent* has not the form of W3C Trace Context, or it is too much.

    """
    if traceparent is not None and not TRACEPARENT.fullmatch(traceparent):
        raise ConfigurationError("is no W3C traceparent", where="traceparent", fix="00-<32 hex>-<16 hex>-<2 hex>")
    given = {"actor": actor, "reason": reason, "traceparent": traceparent}
    content = json.dumps({name: value for name, value in given.items() if value is not None}, ensure_ascii=False)
    if len(content.encode()) > CONTEXT_BYTES_MAX:
        raise ConfigurationError("is too long", where="context", fix=f"at most {CONTEXT_BYTES_MAX} bytes of JSON")
    return content
