"""
What somebody with more rights has to run, so that the logins of the settings get by with the least.

`rowcast sources plan --sql` prints it. Neither Kafka nor Connect is asked; nothing is run. Afterwards `plan` finds
nothing to do in the source databases, and the control login makes its own tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from rowcast.control.database import connect as connect_control
from rowcast.settings import DatabaseSettings, Settings
from rowcast.sources.admission import SOURCE_CONNECTIONS, SPARE
from rowcast.sources.catalogue import Catalogue, Table, connect_source, read_catalogue
from rowcast.sources.connector import slot_name
from rowcast.sources.control_plan import control_statements
from rowcast.sources.declared_contract import contracts_of
from rowcast.sources.plan import APPLICATION, admit, translated
from rowcast.sources.source_database import source_database_statements
from rowcast.sources.source_file import SourceFile


@dataclass(frozen=True, slots=True)
class Script:
    """*statements* for one database, without semicolons; *purpose* says whose database and in which place."""

    purpose: str
    statements: tuple[str, ...]
    restart: bool = False

    def lines(self) -> Iterator[str]:
        """The script as ``psql`` takes it."""
        yield f"-- {self.purpose}"
        yield from (f"{statement};" for statement in self.statements)
        if self.restart:
            yield "-- then restart the server"


def dba_scripts(sources: Iterable[SourceFile], settings: Settings) -> list[Script]:
    """
    The scripts for the databases of *sources* and the control database; those with nothing to run are left out.

    Raises:
        ConfigurationError: something is refused that no right would mend.
        DatabaseUnavailableError: a database did not answer.

    """
    with translated():
        scripts = [_source_script(source, settings) for source in sources]
        scripts.append(_control_script(settings))
    return [each for each in scripts if each.statements]


def _source_script(source: SourceFile, settings: Settings) -> Script:
    contracts, database = contracts_of(source, settings), settings.database(source.database)
    with connect_source(database) as connection:
        catalogue = read_catalogue(connection, source.tables)
        server = list(_server(source.source, catalogue))
        rights = list(_rights(catalogue, connection))
        definition = admit(source, contracts, _granted(catalogue))
        made = source_database_statements(definition, catalogue, connection)
    purpose = f"Source {source.source}: in database {_place(database)}, as a superuser or who owns the tables"
    return Script(purpose, (*server, *rights, *made), restart=bool(server))


def _server(source: str, catalogue: Catalogue) -> Iterator[str]:
    if catalogue.wal_level != "logical":
        yield "ALTER SYSTEM SET wal_level = logical"
    fresh = slot_name(source) not in catalogue.slots
    if fresh and len(catalogue.slots) >= catalogue.slots_max:
        yield f"ALTER SYSTEM SET max_replication_slots = {len(catalogue.slots) + SPARE}"
    if fresh and catalogue.senders_used >= catalogue.senders_max:
        yield f"ALTER SYSTEM SET max_wal_senders = {catalogue.senders_used + SPARE}"


def _rights(catalogue: Catalogue, connection: psycopg.Connection[Any]) -> Iterator[str]:
    """What the login lacks on the server and on the declared tables."""
    login = sql.Identifier(_login(connection))

    def grant(form: str, *names: sql.Composable) -> str:
        return sql.SQL(form).format(*names, login).as_string(connection)

    if not catalogue.may_replicate:
        hosted = connection.execute("SELECT FROM pg_roles WHERE rolname = 'rds_replication'").fetchone()
        form = "GRANT rds_replication TO {}" if hosted is not None else "ALTER ROLE {} REPLICATION"
        yield sql.SQL(form).format(login).as_string(connection)
    present = [each for table in catalogue.tables.values() for each in table.present]
    hidden = [name.split(".") for name in sorted(each.name for each in present if not each.readable)]
    for schema in dict.fromkeys(name[0] for name in hidden):
        yield grant("GRANT USAGE ON SCHEMA {} TO {}", sql.Identifier(schema))
    for name in hidden:
        yield grant("GRANT SELECT ON {} TO {}", sql.Identifier(*name))
    if any(table.secured for table in catalogue.tables.values()):
        yield sql.SQL("ALTER ROLE {} BYPASSRLS").format(login).as_string(connection)
    if 0 <= catalogue.connections_max < SOURCE_CONNECTIONS:
        limit = sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(login, sql.Literal(SOURCE_CONNECTIONS))
        yield limit.as_string(connection)


def _granted(catalogue: Catalogue) -> Catalogue:
    """*catalogue* as it will be when the rights are there: what is refused now, no right would mend."""
    tables = {name: _readable(table) for name, table in catalogue.tables.items()}
    return replace(
        catalogue,
        wal_level="logical",
        may_replicate=True,
        slots=(),
        slots_max=SPARE,
        senders_max=SPARE,
        senders_used=0,
        connections_max=-1,
        tables=tables,
    )


def _readable(table: Table) -> Table:
    tenants = tuple(replace(each, readable=True, secured=False) for each in table.tenants)
    return replace(table, readable=True, secured=False, tenants=tenants)


def _control_script(settings: Settings) -> Script:
    control = settings.control()
    with connect_control(control.url, application=APPLICATION, autocommit=True) as connection:
        texts = tuple(control_statements(connection))
    return Script(f"Control database: in {_place(control)}, as a superuser or who owns the database", texts)


def _login(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT current_user").fetchone()
    assert row is not None, "one row"
    return str(row[0])


def _place(database: DatabaseSettings) -> str:
    parameters = database.parameters()
    host, port = parameters.get("host", "localhost"), parameters.get("port", "5432")
    return f"{parameters.get('dbname', database.name)} at {host}:{port}"
