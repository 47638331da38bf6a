"""
What a source needs in its own database: a schema with one heartbeat row, and a publication.

The publication is made before the slot and never dropped while the slot is there: logical decoding looks it up
as of each WAL position, so a later one does not help. For the same reason a table that went missing from it is
not added again while the slot is there: what was written in between would never become an event; but where its types
are halted, because a resync follows. It names exactly the declared tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from rowcast.errors import ConfigurationError
from rowcast.sources.catalogue import Catalogue
from rowcast.sources.change import Action, Change, Step
from rowcast.sources.connector import publication_name, slot_name
from rowcast.sources.definition import SourceDefinition, TableDefinition
from rowcast.sources.publication import OPERATIONS, Publication, read_publication
from rowcast.sources.tenant import TableNames
from rowcast.sources.tenant_publishing import is_superuser, plan_tenant_publishing, tenant_tables


def plan_source_database(
    definition: SourceDefinition,
    catalogue: Catalogue,
    connection: psycopg.Connection[Any],
    halted: Collection[str] = (),
) -> list[Step]:
    """
    What has to change in the source database; tables *halted* are published again, because a resync reads them anew.

    Raises:
        ConfigurationError: slot or publication of this name belong to something else, or the login may not
            replicate.

    """
    present = _Present(definition, catalogue, connection, halted)
    present.refuse_foreign_slot()
    if not present.may_beat:
        raise ConfigurationError(
            "the login may not read and count up in it",
            where="table rowcast.heartbeat",
            fix="USAGE on the schema, SELECT and UPDATE on the table: `rowcast sources plan --sql`",
        )
    if not present.may_tell_tenants:
        raise ConfigurationError(
            "is not there, or the login may not read it",
            where="table rowcast.tenant_table",
            fix="let a DBA run what `rowcast sources plan --sql` prints",
        )
    return present.steps()


def source_database_statements(
    definition: SourceDefinition, catalogue: Catalogue, connection: psycopg.Connection[Any]
) -> list[str]:
    """
    The SQL of `plan_source_database`, for somebody with more rights than this login, and the grants that it needs then.

    Raises:
        ConfigurationError: slot or publication of this name belong to something else.

    """
    present = _Present(definition, catalogue, connection, as_superuser=True)
    present.refuse_foreign_slot()
    return [*(step.statement for step in present.steps()), *present.grants()]


class _Present:
    """What is there now."""

    def __init__(
        self,
        definition: SourceDefinition,
        catalogue: Catalogue,
        connection: psycopg.Connection[Any],
        halted: Collection[str] = (),
        *,
        as_superuser: bool = False,
    ) -> None:
        self.halted, self.as_superuser = frozenset(halted), as_superuser
        self.definition, self.source = definition, definition.source
        self.catalogue, self.connection = catalogue, connection
        self.login = self._login()
        self.schema = self._one("SELECT 1 FROM pg_namespace WHERE nspname = 'rowcast'") is not None
        rights = self._one(_HEARTBEAT_RIGHTS)
        self.tenant_rights = self._one(_TENANT_RIGHTS)
        self.table = rights is not None
        self.may_beat = rights is None or bool(rights["usable"])
        self.row = (
            self.table
            and self.may_beat
            and bool(self._one("SELECT 1 FROM rowcast.heartbeat WHERE source = %s", (definition.source,)))
        )
        self.slot = self._one(
            "SELECT database, plugin FROM pg_replication_slots WHERE slot_name = %s", (slot_name(definition.source),)
        )
        self.publication = read_publication(connection, publication_name(definition.source))

    def _login(self) -> str:
        row = self._one("SELECT current_user AS login")
        assert row is not None, "one row"
        return str(row["login"])

    @property
    def may_tell_tenants(self) -> bool:
        """Whether heartbeats can tell which tables of tenants were published empty, where there are tenants."""
        if not tenant_tables(self.definition):
            return True
        # Who made it has to have more rights than the login, which could have the trigger run something otherwise.
        return is_superuser(self.connection) if self.tenant_rights is None else bool(self.tenant_rights["usable"])

    def _one(self, query: LiteralString, parameters: tuple[object, ...] = ()) -> dict[str, Any] | None:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchone()

    def steps(self) -> list[Step]:
        """What makes the database as declared."""
        definition, connection = self.definition, self.connection
        return [
            *_heartbeat(definition.source, self, connection),
            *_publication(definition, self, connection),
            *plan_tenant_publishing(definition, connection, as_superuser=self.as_superuser),
        ]

    def grants(self) -> Iterator[str]:
        """What lets the login beat, where somebody else made the table."""
        row = self._one("SELECT current_user AS login, rolsuper FROM pg_roles WHERE rolname = current_user")
        assert row is not None, "a login has a role"
        if not row["rolsuper"] and not (self.table and self.may_beat):
            login = sql.Identifier(row["login"])
            for form in ("USAGE ON SCHEMA rowcast", "SELECT, UPDATE ON rowcast.heartbeat"):
                yield _text(sql.SQL("GRANT {} TO {}").format(sql.SQL(form), login), self.connection)
        if self.tenant_rights is not None and not self.may_tell_tenants:
            form = "GRANT SELECT ON rowcast.tenant_table TO {}"
            yield _text(sql.SQL(form).format(sql.Identifier(self.login)), self.connection)

    def refuse_foreign_slot(self) -> None:
        slot = self.slot
        if slot is None:
            return
        name = slot_name(self.source)
        if slot["database"] != self.catalogue.database or slot["plugin"] != "pgoutput":
            raise ConfigurationError(
                f"exists already, for database {slot['database']!r} and plugin {slot['plugin']!r}",
                where=f"replication slot {name}",
                fix="give the source another name; slots are shared by all databases of a server",
            )
        if self.publication is None:
            raise ConfigurationError(
                "is older than its publication, which does not exist: the slot could never be read",
                where=f"replication slot {name}",
                fix=f"run `rowcast sources remove {self.source} --yes`, then apply again: it takes a new snapshot",
            )

    def refuse_loss(self, publication: Publication, tables: Mapping[str, frozenset[str]]) -> None:
        """Refuse to mend a publication that the slot has been read with: it would hide that changes are missing."""
        names = TableNames(each.name for each in self.definition.tables)
        asked = {name: tables[name] for name in tables if not self._is_halted(names, name)}
        # A tenant's table that is published again, or for the first time, is told by the heartbeats.
        asked = {name: tables[name] for name in asked if name in publication.tables or not _is_tenants(names, name)}
        lacks = "; ".join(publication.shortfalls(asked))
        if self.slot is not None and lacks:
            raise ConfigurationError(
                f"{lacks}, and the source runs: what was written since then is in no event",
                where=f"publication {publication.name}",
                fix=f"run `rowcast sources remove {self.source} --yes`, then apply again: it takes a new snapshot",
            )

    def _is_halted(self, names: TableNames, table: str) -> bool:
        found = names.find(table)
        return found is not None and found[0] in self.halted


def _is_tenants(names: TableNames, table: str) -> bool:
    found = names.find(table)
    return found is not None and found[1] is not None


def _heartbeat(source: str, present: _Present, connection: psycopg.Connection[Any]) -> Iterator[Step]:
    def step(what: str, reason: str, statement: sql.SQL | sql.Composed) -> Step:
        change = Change(source, "source database", "create", what, reason)
        return Step(change, partial(connection.execute, statement), _text(statement, connection))

    if not present.schema:
        yield step("schema rowcast", "holds the heartbeat table", sql.SQL("CREATE SCHEMA IF NOT EXISTS rowcast"))
    if not present.table:
        yield step("table rowcast.heartbeat", "counts the heartbeats; not published", sql.SQL(_HEARTBEAT_TABLE))
    if not present.row:
        form = "INSERT INTO rowcast.heartbeat (source) VALUES ({}) ON CONFLICT DO NOTHING"
        insert = sql.SQL(form).format(sql.Literal(source))
        yield step(f"row {source!r} of rowcast.heartbeat", "the connector counts up in it", insert)


def _text(statement: sql.SQL | sql.Composed, connection: psycopg.Connection[Any]) -> str:
    return statement.as_string(connection).strip()


# Asked of the catalogue, because a login without rights on the schema may not even name the table.
_HEARTBEAT_RIGHTS = """
SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
       AND has_table_privilege(c.oid, 'UPDATE') AS usable
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'rowcast' AND c.relname = 'heartbeat'
"""

_TENANT_RIGHTS = """
SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS usable
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'rowcast' AND c.relname = 'tenant_table'
"""

_HEARTBEAT_TABLE = """
CREATE TABLE IF NOT EXISTS rowcast.heartbeat (
    source  text PRIMARY KEY,
    counter bigint NOT NULL DEFAULT 0,  -- dense: a missing number is a missing record of the change log
    at      timestamptz                 -- of the last beat
) WITH (fillfactor = 50)
"""


def _publication(
    definition: SourceDefinition, present: _Present, connection: psycopg.Connection[Any]
) -> Iterator[Step]:
    name = publication_name(definition.source)
    declared = {
        each.name: table for table in definition.tables for each in present.catalogue.tables[table.name].present
    }
    tables = {table: each.published_columns for table, each in declared.items()}
    listed = sql.SQL(", ").join(_listed(table, each) for table, each in declared.items())

    def step(action: Action, reason: str, statement: sql.Composed) -> Step:
        change = Change(definition.source, "source database", action, f"publication {name}", reason)
        return Step(change, partial(connection.execute, statement), _text(statement, connection))

    if present.publication is None:
        form = "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = {}, publish_via_partition_root = true)"
        statement = sql.SQL(form).format(sql.Identifier(name), listed, sql.Literal(OPERATIONS))
        yield step("create", ", ".join(tables), statement)
        return
    if present.publication.everything:
        raise ConfigurationError(
            "publishes whole schemas or all tables",
            where=f"publication {name}",
            fix=f"drop it, or name the source otherwise than {definition.source!r}",
        )
    present.refuse_loss(present.publication, {table: each.captured for table, each in declared.items()})
    if not (present.publication.operations and present.publication.via_root):
        form = "ALTER PUBLICATION {} SET (publish = {}, publish_via_partition_root = true)"
        statement = sql.SQL(form).format(sql.Identifier(name), sql.Literal(OPERATIONS))
        yield step("alter", "must publish every operation, through partitioned tables", statement)
    published = present.publication.tables
    if published != tables and published.items() <= tables.items():
        # New tenants alone: whatever came in between is published, too, and stays.
        added = sql.SQL(", ").join(_listed(table, each) for table, each in declared.items() if table not in published)
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(sql.Identifier(name), added)
        yield step("alter", _difference(published, tables), statement)
    elif published != tables:
        statement = sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(sql.Identifier(name), listed)
        yield step("alter", _difference(published, tables), statement)


def _listed(name_in_database: str, table: TableDefinition) -> sql.Composable:
    name = sql.Identifier(*name_in_database.split("."))
    if not table.narrow:
        return name
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    return sql.SQL("{} ({})").format(name, columns)


def _difference(published: Mapping[str, frozenset[str] | None], tables: Mapping[str, frozenset[str] | None]) -> str:
    both = [table for table in published if table in tables and published[table] != tables[table]]
    parts = {
        "add": [table for table in tables if table not in published],
        "drop": [table for table in published if table not in tables],
        "whole rows of": [table for table in both if tables[table] is None],
        "no dropped columns of": [table for table in both if tables[table] is not None],
    }
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts.items() if names)
