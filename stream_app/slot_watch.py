"""
The database of a silent source is asked whether there is still something to read from.

An invalid slot shows nowhere else: Debezium tries for half an hour to begin with it, and Kafka Connect says meanwhile
that the connector runs. Before PostgreSQL 18 a publication that is gone keeps the heartbeats away that would tell.
Only a worker that knows the database by its settings can ask; `rowcast sources status` tells in any case.
"""

from __future__ import annotations

import threading
import time

import psycopg

from rowcast.errors import ConfigurationError, DatabaseUnavailableError, StopError
from rowcast.settings import Settings
from rowcast.sources.catalogue import connect_source
from rowcast.sources.connector import publication_name, slot_name
from rowcast.sources.lost_source import find_database

_PATIENCE_S, _INTERVAL_S = 15.0, 5.0
_STATE = """
SELECT wal_status = 'lost', EXISTS (SELECT FROM pg_publication WHERE pubname = %(publication)s)
  FROM pg_replication_slots WHERE slot_name = %(slot)s
"""


class SlotWatch:
    """
    Tells what is wrong at the databases that *settings* know. Not thread-safe.

    A question is put in a thread of its own: a database that does not answer holds up nobody who looks after others.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked: dict[str, _Question] = {}
        self._due_s: dict[str, float] = {}
        self._found: dict[str, str] = {}

    def fault(self, source: str, silent_s: float) -> StopError | None:
        """
        Why nothing can come from *source*, which has been silent for *silent_s*; None where nothing is known of that.

        It counts when it is found twice, because whoever captures the source anew drops and makes both.
        """
        asked = self._asked.get(source)
        if asked is not None and asked.is_alive():
            return None
        self._asked.pop(source, None)
        if silent_s < _PATIENCE_S:
            self._found.pop(source, None)
            return None
        if asked is not None:
            return self._judge(source, asked.fault)
        if time.monotonic() >= self._due_s.get(source, 0.0):
            self._due_s[source] = time.monotonic() + _INTERVAL_S
            self._asked[source] = _Question(source, self._settings)
            self._asked[source].start()
        return None

    def _judge(self, source: str, fault: StopError | None) -> StopError | None:
        before = self._found.pop(source, None)
        if fault is None or fault.code == before:
            return fault
        self._found[source] = fault.code
        return None


class _Question(threading.Thread):
    """Asks once; then *fault* is the answer."""

    def __init__(self, source: str, settings: Settings) -> None:
        super().__init__(name=f"{source} slot", daemon=True)
        self._source, self._settings = source, settings
        self.fault: StopError | None = None

    def run(self) -> None:
        self.fault = find_fault(self._source, self._settings)


def find_fault(source: str, settings: Settings) -> StopError | None:
    """What the database of *source* lacks to read from; None: nothing, or it is not known or does not answer."""
    names = {"slot": slot_name(source), "publication": publication_name(source)}
    try:
        database = find_database(source, settings)
        if database is None:
            return None
        with connect_source(settings.database(database)) as connection:
            row = connection.execute(_STATE, names).fetchone()
    except (ConfigurationError, DatabaseUnavailableError, psycopg.Error):
        return None  # what keeps it away is told by the connector
    if row is None:
        return None  # the connector tells that too
    invalid, published = row
    if invalid:
        return lost_slot(source, "is invalid")
    return None if published else _lost_publication(source)


def lost_slot(source: str, what: str) -> StopError:
    """Why a source stops whose slot does not have what follows what was read last."""
    message = f"replication slot {slot_name(source)} {what}: changes since then are in no event"
    return StopError("SLOT_LOST", message, remedy=_resnapshot(source))


def _lost_publication(source: str) -> StopError:
    message = f"publication {publication_name(source)} was dropped: what is written meanwhile is in no event"
    return StopError("PUBLICATION_MISSING", message, remedy=f"nothing has to be made by hand; {_resnapshot(source)}")


def _resnapshot(source: str) -> str:
    return f"rowcast sources resnapshot {source} --yes"
