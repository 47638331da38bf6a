"""
PostgreSQL as every part of Rowcast uses it: connections that cannot hang, and numbered forward migrations.

A frozen or dead process must not keep locks, so every connection carries time limits on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import psycopg
from psycopg import sql

from rowcast.database_fault import database_fault
from rowcast.errors import ConfigurationError, DatabaseUnavailableError
from rowcast.watched_connection import WatchedConnection

# A process frozen inside a transaction loses it after this long; takeover waits no longer.
IDLE_IN_TRANSACTION_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 10
# Classes of SQLSTATE that the same statement will meet again: data, constraints, syntax and rights, limits.
_PERMANENT = frozenset({"22", "23", "42", "54"})
# A server that is away, or a standby until it is promoted.
AWAY = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)
_MIGRATION_LOCK = 0x526F7763  # any constant: serialises concurrent migrations


def connect(
    url: str, *, application: str, autocommit: bool = False, settings: str = "", part: str = "database"
) -> psycopg.Connection:
    """
    A connection whose transactions end by themselves when this process freezes or the network dies, and that waits
    for no answer that is lost.

    *settings* are further libpq options (``-c name=value``). *part* is what messages call the database.

    Raises:
        DatabaseUnavailableError: the server did not answer or refused the connection.
        ConfigurationError: *url* is no connection string.
    """
    options = (
        f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_S}s"
        f" -c statement_timeout={STATEMENT_TIMEOUT_S}s -c lock_timeout={LOCK_TIMEOUT_S}s {settings}"
    )
    try:
        return WatchedConnection.connect(
            url,
            autocommit=autocommit,
            application_name=application,
            options=options,
            connect_timeout=10,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
        )
    except psycopg.ProgrammingError:
        # libpq would quote it, password and all.
        raise ConfigurationError(
            "is no connection string", where=part, fix="postgresql://user@host:5432/name"
        ) from None
    except psycopg.OperationalError as error:
        fault = database_fault(error, url)
        fix = f" ({fault.fix})" if fault.fix else ""
        raise DatabaseUnavailableError(f"{part}: {fault.message}{fix}") from error


@contextmanager
def unavailable_when_broken(connection: psycopg.Connection) -> Iterator[None]:
    """
    Sort the errors of work on *connection*: one that broke it, or that the server may take back, is transient.

    Raises:
        DatabaseUnavailableError: the outcome of a COMMIT that was under way is unknown.
    """
    try:
        yield
    except psycopg.Error as error:
        # A session that the server ended (SQLSTATE 25P03 and others) is not always an OperationalError.
        permanent = (error.sqlstate or "")[:2] in _PERMANENT
        if not permanent and (isinstance(error, AWAY) or connection.closed):
            raise DatabaseUnavailableError(str(error).strip()) from error
        raise


def migrate(connection: psycopg.Connection, schema: str, package: str) -> list[str]:
    """
    Bring *schema* to the newest of the ``migrations/*.sql`` of *package*; the names of those that ran.

    All of them are one transaction; concurrent callers wait for each other. A schema that is already there
    needs no right to create one.
    """
    name = sql.Identifier(schema)
    ledger = sql.Identifier(schema, "migration")
    applied: list[str] = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        row = connection.execute("SELECT to_regclass(%s)", (f"{schema}.migration",)).fetchone()
        if row is None or row[0] is None:
            if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None:
                # IF NOT EXISTS would ask for the right to create it all the same.
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            connection.execute(
                sql.SQL(
                    "CREATE TABLE {} (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
                ).format(ledger)
            )
        done = {entry[0] for entry in connection.execute(sql.SQL("SELECT name FROM {}").format(ledger))}
        for file in sorted(files(package).joinpath("migrations").iterdir(), key=lambda each: each.name):
            if file.name.endswith(".sql") and file.name not in done:
                connection.execute(file.read_bytes())
                connection.execute(sql.SQL("INSERT INTO {} (name) VALUES (%s)").format(ledger), (file.name,))
                applied.append(file.name)
    return applied
