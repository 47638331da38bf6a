"""
What a service says about its own transaction: who made the change and why.

Every event of the transaction carries it in ``context``; the trace goes into ``ce_traceparent``. Nothing is stored in
the database: it is a message in the WAL, see docs/reference/events.md.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

CONTEXT_PREFIX = "rowcast.context"
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
    if connection.autocommit and connection.pgconn.transaction_status == _IDLE:
        raise ConfigurationError(
            "there is no transaction to annotate", where="annotate()", fix="call it inside connection.transaction()"
        )
    connection.execute(_EMIT, (CONTEXT_PREFIX, context))


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
