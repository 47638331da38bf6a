"""Ask the owner of a source to send again what it has published last, from row state alone."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from rowcast.control.command import ask
from rowcast.control.names import need_aggregate, need_source, need_type
from rowcast.errors import ConfigurationError


def ask_resend(connection: psycopg.Connection, source: str, aggregate: str | None, ids: Sequence[str]) -> int:
    """
    Ask for a new version of all aggregates of *source*, of one type, or of the *ids* of it; the command's number.

    Raises:
        ConfigurationError: there is no such source, type or id, or one of them is deleted.

    """
    if aggregate is None:
        types = [each.name for each in need_source(connection, source).aggregates]
    else:
        need_type(connection, source, aggregate)
        types = [aggregate]
        for id_text in ids:
            need_aggregate(connection, source, aggregate, id_text)
            _need_present(connection, (source, aggregate, id_text))
    return ask(connection, source, "resend", {"aggregates": types, "ids": list(ids)})


def _need_present(connection: psycopg.Connection, named: tuple[str, str, str]) -> None:
    query = "SELECT present FROM rowcast.aggregate WHERE source = %s AND aggregate = %s AND id_text = %s"
    if connection.execute(query, named).fetchone() != (True,):
        source, aggregate, id_text = named
        raise ConfigurationError(
            "is deleted, and so its last event says, which stays on the topic",
            where=f"{source} {aggregate} {id_text!r}",
            fix="`rowcast events show` prints it; only what is there can be sent again",
        )
