"""The control database: its connections, and the migrations of its schema ``rowcast``."""

from __future__ import annotations

import psycopg

from rowcast import database
from rowcast.database import IDLE_IN_TRANSACTION_TIMEOUT_S, LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S

__all__ = ["IDLE_IN_TRANSACTION_TIMEOUT_S", "LOCK_TIMEOUT_S", "STATEMENT_TIMEOUT_S", "connect", "migrate"]


def connect(url: str, *, application: str, autocommit: bool = False, settings: str = "") -> psycopg.Connection:
    """
    A connection to the control database; see `rowcast.database.connect`.

    Raises:
        DatabaseUnavailableError: the server did not answer or refused the connection.
    """
    part = "control database (databases.rowcast)"
    return database.connect(url, application=application, autocommit=autocommit, settings=settings, part=part)


def migrate(connection: psycopg.Connection) -> list[str]:
    """
    Bring schema ``rowcast`` to the newest version and return the names of the migrations that ran.

    All of them are one transaction; concurrent callers wait for each other.
    """
    return database.migrate(connection, "rowcast", "rowcast.control")
