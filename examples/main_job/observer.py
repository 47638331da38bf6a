"""
An observer of the consumer's append-only table: when could anybody else first see that an event was applied?

It asks every few milliseconds over a connection of its own, so each time is an upper bound of the end of the
consumer's COMMIT, too late by one pause and one query at most.
"""

from __future__ import annotations

import threading
import time

import psycopg

from examples.main_job.evidence import AppliedRow

_PAUSE_S = 0.01
# A sequence number that was skipped belongs to a transaction that rolled back, or to one that commits later.
_SKIPPED_KEPT_S = 30.0


class Observer:
    """Watches `applied_event` in the database at *url* from a thread of its own until it is stopped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._last = 0
        self._skipped: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.seen_at: dict[str, float] = {}
        self.first_new_at: float | None = None

    def start(self) -> None:
        """Begin; what is there already is not new."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            if _table_exists(connection):
                self._look(connection)
        self.first_new_at = None
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    @property
    def applied(self) -> int:
        """How many different events have been seen."""
        return len(self.seen_at)

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True, application_name="main job observer") as connection:
                while not _table_exists(connection):
                    if self._stop.wait(0.2):
                        return
                while not self._stop.wait(_PAUSE_S):
                    self._look(connection)
        except psycopg.Error as error:
            self._error = error

    def _look(self, connection: psycopg.Connection) -> None:
        rows = connection.execute(
            "SELECT seq, event_id FROM applied_event WHERE seq > %s OR seq = ANY(%s) ORDER BY seq",
            (self._last, list(self._skipped)),
        ).fetchall()
        now = time.time()
        for seq, event_id in rows:
            self.seen_at.setdefault(event_id, now)
            self._skipped.pop(seq, None)
            self._skipped |= dict.fromkeys(range(self._last + 1, seq), now)
            self._last = max(self._last, seq)
        if rows and self.first_new_at is None:
            self.first_new_at = now
        if self._skipped:
            self._skipped = {seq: since for seq, since in self._skipped.items() if now - since < _SKIPPED_KEPT_S}


def read_applied(connection: psycopg.Connection) -> list[AppliedRow]:
    """The whole append-only table."""
    rows = connection.execute(
        "SELECT seq, event_id, aggregate, id_text, version, kind FROM applied_event ORDER BY seq"
    ).fetchall()
    return [AppliedRow(*row) for row in rows]


def _table_exists(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT to_regclass('applied_event') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])
