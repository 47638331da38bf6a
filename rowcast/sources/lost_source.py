"""
A source that was applied and whose file is gone: it runs on, and its slot keeps WAL.

The applied definition says what it captures, but not by which name the settings know its database; the
replication slot does, because a server has only one of a name and tells whose it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from rowcast.connect import ConnectClient
from rowcast.control.database import connect as connect_control
from rowcast.errors import ConfigurationError, DatabaseUnavailableError
from rowcast.settings import CONTROL_DATABASE, Settings
from rowcast.sources.catalogue import connect_source
from rowcast.sources.connector import connector_name, slot_name
from rowcast.sources.control_plan import knows_sources
from rowcast.sources.removal import Removable
from rowcast.sources.source_file import FOLDER, load_sources, source_names

# The embedded server has it; one of its databases is enough to see all slots.
_ANY_DATABASE = "postgres"


@dataclass(frozen=True, slots=True)
class LostSource:
    """A source without a file; *database* is its name in the settings."""

    source: str
    database: str


def find_removable(name: str, settings: Settings, database: str | None) -> Removable:
    """
    The source called *name*: that of its file, or, where the file is gone, the applied one in *database*.

    Raises:
        ConfigurationError: there is no such source, or its database is not known or another one.

    """
    if name in source_names(settings.project) or not _was_applied(name, settings):
        (source,) = load_sources(settings.project, [name])
        if database not in {None, source.database}:
            raise ConfigurationError(
                f"declares database {source.database!r}", where=str(source.path), fix="leave --database out"
            )
        return source
    if database is not None:
        _refuse_other_database(name, database, settings)
        return LostSource(name, database)
    found = find_database(name, settings)
    if found is None:
        known = ", ".join(sorted(settings.databases.keys() - {CONTROL_DATABASE})) or "those of the embedded stack"
        raise ConfigurationError(
            f"the file is gone, and no database that is known has replication slot {slot_name(name)}",
            where=f"{FOLDER}/{name}.yaml",
            fix=f"say which database it was applied to: --database NAME; known: {known}",
        )
    return LostSource(name, found)


def find_database(name: str, settings: Settings) -> str | None:
    """The one database of the settings that has the slot of source *name*; None when none has, or several have."""
    declared = []
    for each in settings.databases:
        owner, asked = _slot_owner(name, each, settings)
        if owner is not None and owner == asked:
            declared.append(each)
    if declared or settings.stack_postgres is None:
        return declared[0] if len(declared) == 1 else None
    return _slot_owner(name, _ANY_DATABASE, settings)[0]


def _slot_owner(name: str, database: str, settings: Settings) -> tuple[str | None, str | None]:
    """The database that the server's slot of source *name* belongs to, and the one that was asked; None: unknown."""
    try:
        with connect_source(settings.database(database)) as connection:
            row = connection.execute(_OWNER, (slot_name(name),)).fetchone()
            return (row[0] if row else None), connection.info.dbname
    except (ConfigurationError, DatabaseUnavailableError, psycopg.Error):
        return None, None  # others may know


def _refuse_other_database(name: str, database: str, settings: Settings) -> None:
    # In another database nothing would be found to remove, and the slot would keep WAL for ever.
    with connect_source(settings.database(database)) as connection:
        row = connection.execute(_OWNER, (slot_name(name),)).fetchone()
        asked = connection.info.dbname
    with ConnectClient(settings.connect()) as connect:
        configuration = connect.configuration(connector_name(name)) or {}
    owner = row[0] if row else configuration.get("database.dbname", asked)
    if owner != asked:
        raise ConfigurationError(
            f"was applied to database {owner!r}, not to {asked!r}",
            where=f"source {name}",
            fix=f"--database with the name under which the settings know {owner!r}",
        )


def _was_applied(name: str, settings: Settings) -> bool:
    with connect_control(settings.control().url, application="rowcast sources", autocommit=True) as connection:
        if not knows_sources(connection):
            return False
        return connection.execute("SELECT 1 FROM rowcast.source WHERE source = %s", (name,)).fetchone() is not None


_OWNER = "SELECT database FROM pg_replication_slots WHERE slot_name = %s"
