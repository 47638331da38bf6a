"""The consumer's connection to its own database: opened when needed, dropped when it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from rowcast.consumer.inbox import Inbox
from rowcast.database import connect
from rowcast.errors import DatabaseUnavailableError


class Database:
    """At most one connection at a time. Autocommit: transactions are explicit, and a handler cannot end one."""

    def __init__(self, url: str, consumer: str) -> None:
        self._url, self._consumer = url, consumer
        self._connection: psycopg.Connection | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has not been seen to break."""
        return self._connection is not None

    @property
    def connection(self) -> psycopg.Connection:
        """The connection; `open` comes first."""
        if self._connection is None:
            raise DatabaseUnavailableError("not connected")
        return self._connection

    @property
    def inbox(self) -> Inbox:
        """The inbox over the connection."""
        return Inbox(self.connection, self._consumer)

    def open(self) -> None:
        """
        A new connection, with the inbox at its newest version.

        Raises:
            DatabaseUnavailableError: the server did not answer.
        """
        self.close()
        self._connection = connect(self._url, application=f"rowcast consumer {self._consumer}", autocommit=True)
        with self.errors():
            self.inbox.migrate()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """
        Drops a connection that broke; a COMMIT that was under way may have happened.

        Raises:
            DatabaseUnavailableError: the connection broke, whatever error showed it.
        """
        try:
            yield
        except Exception as error:
            if self._connection is None or not self._connection.closed:
                raise
            self.close()
            raise DatabaseUnavailableError(f"the database connection broke: {error}") from error

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
