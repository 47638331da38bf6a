"""
Taking a source out of service: connector, offsets, slot and publication go, its topics and state stay.

Nothing that other services read is deleted. Applying the source again takes a new snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import psycopg
from psycopg import sql

from rowcast.connect import ConnectClient
from rowcast.control.database import connect as connect_control
from rowcast.errors import DatabaseUnavailableError
from rowcast.settings import Settings
from rowcast.sources.catalogue import connect_source
from rowcast.sources.connector import connector_name, publication_name, slot_name
from rowcast.sources.control_plan import knows_sources
from rowcast.sources.tenant_publishing import drop_statements, has_trigger, trigger_name

_SLOT_TIMEOUT_S = 60.0
_PAUSE_S = 0.2


class Removable(Protocol):
    """A source, with or without a file: its name, and that of its database in the settings."""

    @property
    def source(self) -> str:
        """The name of the source."""

    @property
    def database(self) -> str:
        """The name of its database."""


def remove(source: Removable, settings: Settings, progress: Callable[[str], None]) -> None:
    """
    Remove a source; every part that is gone already is passed over.

    Raises:
        ConfigurationError, TransientError: a part is not reachable; the next call goes on from there.

    """
    _remove_connector(source, settings, progress)
    _remove_from_database(source, settings, progress)
    # Last, so that status goes on telling of a removal that was interrupted.
    with connect_control(settings.control().url, application="rowcast sources", autocommit=True) as control:
        if knows_sources(control):
            control.execute("UPDATE rowcast.source SET removed = true WHERE source = %s", (source.source,))
            progress(f"source {source.source} marked as removed in the control database")


def remove_capture(source: Removable, settings: Settings, progress: Callable[[str], None]) -> None:
    """
    Remove connector, offsets and slot alone, so that the next `apply` captures the source from the beginning.

    Raises:
        ConfigurationError, TransientError: a part is not reachable; the next call goes on from there.

    """
    _remove_connector(source, settings, progress)
    with connect_source(settings.database(source.database)) as connection:
        if _drop_slot(slot_name(source.source), connection):
            progress(f"replication slot {slot_name(source.source)} dropped")


def _remove_connector(source: Removable, settings: Settings, progress: Callable[[str], None]) -> None:
    name = connector_name(source.source)
    with ConnectClient(settings.connect()) as connect:
        if connect.configuration(name) is not None:
            connect.stop(name)
            connect.wait_stopped(name, _SLOT_TIMEOUT_S)
            # Offsets outlive a connector: kept, they would make its successor skip the snapshot.
            connect.delete_offsets(name)
            connect.delete(name)
            progress(f"connector {name} and its offsets deleted")


def _remove_from_database(source: Removable, settings: Settings, progress: Callable[[str], None]) -> None:
    with connect_source(settings.database(source.database)) as connection:
        if _drop_slot(slot_name(source.source), connection):
            progress(f"replication slot {slot_name(source.source)} dropped")
        name = publication_name(source.source)
        _drop_trigger(source.source, connection, progress)
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)))
        if connection.execute("SELECT to_regclass('rowcast.heartbeat')").fetchone() != (None,):
            connection.execute("DELETE FROM rowcast.heartbeat WHERE source = %s", (source.source,))
        progress(f"publication {name} dropped")


def _drop_trigger(
    source: str, connection: psycopg.Connection[tuple[object, ...]], progress: Callable[[str], None]
) -> None:
    """Take away what publishes new tenants' tables; without publication it does nothing, so it may stay, too."""
    if not has_trigger(source, connection):
        return
    name = trigger_name(source)
    try:
        for statement in drop_statements(source):
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        progress(f"event trigger {name} stays, and does nothing: only a superuser may drop it")
    else:
        progress(f"event trigger {name} dropped")


def _drop_slot(name: str, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    deadline = time.monotonic() + _SLOT_TIMEOUT_S
    query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()"
    while (row := connection.execute(query, (name,)).fetchone()) is not None:
        if not row[0]:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
            return True
        if time.monotonic() > deadline:
            raise DatabaseUnavailableError(f"replication slot {name} is still read after {_SLOT_TIMEOUT_S:.0f} s")
        time.sleep(_PAUSE_S)
    return False
