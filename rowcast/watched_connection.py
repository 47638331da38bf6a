"""
A PostgreSQL connection that does not wait for ever for an answer that is lost.

TCP keep-alives tell when a host is gone. They do not when something on the way still answers for it, a proxy or a
machine whose processes hang: then nothing ever comes, and no limit of the server ends the wait here.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

# A statement that takes longer is asked after; it may take as long as its own limits say.
SILENCE_S = 10.0
_ASK_AGAIN_S = 1.0
_QUESTION_TIMEOUT_S = 5
_QUESTION = """
SELECT pg_backend_pid(), EXISTS (
    SELECT FROM pg_stat_activity WHERE pid = %s AND application_name = %s
    AND coalesce(state NOT LIKE 'idle%%', true) AND wait_event_type IS DISTINCT FROM 'Client')
"""
_Wait = Generator[Any, Any, Any]


def _observed(wait: _Wait, silence_s: float, silent: Callable[[], float]) -> _Wait:
    """Pass *wait* through; when nothing came for *silence_s*, ask *silent*, which says after how long again."""
    due_s = time.monotonic() + silence_s
    try:
        state = next(wait)
        while True:
            ready = yield state
            if ready:
                due_s = time.monotonic() + silence_s
            elif time.monotonic() > due_s:
                due_s = silent() + time.monotonic()
            state = wait.send(ready)
    except StopIteration as end:
        return end.value


class WatchedConnection(psycopg.Connection[Any]):
    """
    A connection that asks the server, over another one, what has become of a statement that stays silent.

    While the server works on it, or refuses to say, the wait goes on. When it does not work on it, or is silent to the
    question too, twice in a row, the answer is lost: the connection is closed, and whoever waited gets an
    ``OperationalError``.
    """

    _suspicious = False

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Wait as psycopg does, and watch the statement that is under way."""
        self._suspicious = False
        return super().wait(_observed(gen, SILENCE_S, self._ask), *arguments, **options)

    def _ask(self) -> float:
        if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
            return SILENCE_S  # waits for a notification perhaps
        lost = self._answer_is_lost() and not self._something_arrived()
        if lost and self._suspicious:
            self.pgconn.finish()
            raise psycopg.OperationalError("no answer arrived: the server does not work on the statement, or is silent")
        self._suspicious = lost
        return _ASK_AGAIN_S

    def _something_arrived(self) -> bool:
        arrivals = select.poll()  # select.select() takes no descriptor above 1023
        arrivals.register(self.pgconn.socket, select.POLLIN)
        return bool(arrivals.poll(0))

    def _answer_is_lost(self) -> bool:
        address = make_conninfo(
            self.info.dsn,
            password=self.info.password,
            application_name="rowcast question",
            options="",
            connect_timeout=_QUESTION_TIMEOUT_S,
        )
        statement = self.pgconn.backend_pid, self.info.parameter_status("application_name")
        try:
            with _Asking.connect(address, autocommit=True) as asking:
                row = asking.execute(_QUESTION, statement).fetchone()
                # Behind a pool the numbers are not the server's, and say nothing.
                return row is not None and row[0] == asking.info.backend_pid and not row[1]
        except (psycopg.errors.ConnectionTimeout, _SilentError):
            return True
        except psycopg.Error:
            return False


class _SilentError(psycopg.OperationalError):
    """The server did not answer the question."""


class _Asking(psycopg.Connection[Any]):
    """A connection whose statements are answered at once or not at all."""

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        return super().wait(_observed(gen, _QUESTION_TIMEOUT_S, self._give_up), *arguments, **options)

    def _give_up(self) -> float:
        self.pgconn.finish()
        raise _SilentError("no answer")
