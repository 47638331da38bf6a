"""The event trigger that publishes new tenants' tables, and what heartbeats tell of these, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import sql
from stack_fixture import SharedStack

from rowcast.contracts.contract import Contract
from rowcast.errors import ConfigurationError
from rowcast.sources.catalogue import read_catalogue
from rowcast.sources.compilation import compile_definition
from rowcast.sources.connector import publication_name
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.heartbeat import catalogue_query
from rowcast.sources.plan import admit
from rowcast.sources.publication import read_publication
from rowcast.sources.source_database import plan_source_database, source_database_statements
from rowcast.sources.source_file import SourceFile, load_source
from rowcast.sources.tenant_publishing import missing_note
from stream_app.core.captured import captured_defects

SOURCE = """source: shop
database: shop
aggregates:
  title: {table: "{tenant}_inv.title", id: id}
  copy: {table: "{tenant}_inv.copy", id: id}
"""
TABLES = """
CREATE SCHEMA {0};
CREATE TYPE {0}.state AS ENUM ('in', 'out');
CREATE TABLE {0}.title (id integer PRIMARY KEY, state {0}.state NOT NULL);
CREATE TABLE {0}.copy (id integer PRIMARY KEY);
ALTER TABLE {0}.copy REPLICA IDENTITY FULL;
"""


def contract(aggregate: str, **properties: str) -> Contract:
    entity = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    path = Path("schemas/shop") / aggregate / "v1.0.json"
    return Contract(path=path, domain="shop", aggregate=aggregate, major=1, minor=0, entity=entity)


CONTRACTS = {
    "title": contract("title", id="integer", state="string"),
    "copy": contract("copy", id="integer"),
}


class Shop:
    """A database with one tenant, and what its source needs in it."""

    def __init__(self, connection: psycopg.Connection[Any], file: SourceFile) -> None:
        self.connection, self.file = connection, file
        self.warnings: list[str] = []
        connection.add_notice_handler(lambda notice: self.warnings.append(notice.message_primary or ""))
        self.run(TABLES, "north")
        self.catalogue = read_catalogue(connection, file.tables)
        self.definition: SourceDefinition = admit(file, CONTRACTS, self.catalogue)
        for step in plan_source_database(self.definition, self.catalogue, connection):
            step.run()
        self.warnings.clear()

    def run(self, statements: str, tenant: str) -> None:
        """Run *statements* in the schema of *tenant*, in one transaction."""
        with self.connection.transaction():
            self.connection.execute(sql.SQL(statements).format(sql.Identifier(f"{tenant}_inv")))

    def published(self) -> set[str]:
        """The tables in the publication."""
        publication = read_publication(self.connection, publication_name("shop"))
        return set(publication.tables) if publication else set()

    def defects(self, former: dict[str, Any] | None = None) -> list[tuple[str, str | None]]:
        """What a heartbeat would show as wrong, with the tenant."""
        tables = {table.name: table for table in self.definition.tables}
        return [(each.code, each.tenant) for each in captured_defects(self.told(), former or {}, tables)]

    def told(self) -> dict[str, Any]:
        """What a heartbeat tells of the tables."""
        query = catalogue_query(self.definition, publication_name("shop"))
        (text,) = self.connection.execute(query.encode()).fetchone() or ("{}",)
        told: dict[str, Any] = orjson.loads(text)["captured"]
        return told


@pytest.fixture
def shop(stack: SharedStack, tmp_path: Path) -> Iterator[Shop]:
    """A database of its own; no connector reads it."""
    path = tmp_path / "shop.yaml"
    path.write_text(SOURCE)
    with psycopg.connect(stack.new_database("tenants").url, autocommit=True) as connection:
        yield Shop(connection, load_source(path))


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_is_made_empty_with_a_key_is_published_at_once(shop: Shop) -> None:
    """With the replica identity that the first tenant has; and whatever may have rows is left to the heartbeats."""
    first = shop.told()
    assert set(first["is"]) == {"north_inv.title", "north_inv.copy"}
    shop.run(TABLES.replace("ALTER TABLE {0}.copy REPLICA IDENTITY FULL;", ""), "new-1")
    shop.run("CREATE TABLE {0}.other (id integer PRIMARY KEY)", "new-1")
    assert shop.published() == {
        f"{schema}.{table}" for schema in ("north_inv", "new-1_inv") for table in ("title", "copy")
    }
    identity = "SELECT relreplident FROM pg_class WHERE oid = '\"new-1_inv\".copy'::regclass"
    assert shop.connection.execute(identity).fetchone() == ("f",)
    assert shop.defects(first) == []
    assert not shop.warnings

    shop.run("CREATE SCHEMA {0}; CREATE TABLE {0}.copy (id integer)", "late")
    assert "late_inv.copy" not in shop.published()  # the application's UPDATE would fail
    shop.run("ALTER TABLE {0}.copy ADD PRIMARY KEY (id)", "late")
    assert "late_inv.copy" in shop.published()
    assert shop.defects(first) == []

    shop.run("CREATE SCHEMA {0}; CREATE TABLE {0}.copy AS SELECT 1 AS id", "full")
    shop.run("ALTER TABLE {0}.copy ADD PRIMARY KEY (id)", "full")
    assert "full_inv.copy" not in shop.published()
    assert "full_inv.copy may have rows" in shop.warnings[-1]
    assert shop.defects(first) == []  # it may be published yet
    assert shop.defects(shop.told()) == [("PUBLICATION_INCOMPLETE", "full")]
    shop.connection.execute("ALTER PUBLICATION rowcast_shop ADD TABLE full_inv.copy")
    assert shop.defects(first) == [("PUBLICATION_INCOMPLETE", "full")]  # what it had then is in no event


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_renamed_schema_is_another_tenant(shop: Shop) -> None:
    """Its tables are published already, under a name of which nothing was; an empty one that comes in is right."""
    first = shop.told()
    shop.run("INSERT INTO {0}.copy VALUES (1); ALTER SCHEMA {0} RENAME TO south_inv", "north")
    assert sorted(shop.defects(first)) == [("PUBLICATION_INCOMPLETE", "south")] * 2
    shop.run(
        "CREATE SCHEMA {0}; CREATE TABLE {0}.copy (id integer PRIMARY KEY); ALTER SCHEMA {0} RENAME TO in_inv", "x"
    )
    shop.connection.execute("CREATE SCHEMA plain; CREATE TABLE plain.copy (id integer PRIMARY KEY)")
    shop.run("CREATE SCHEMA {0}; ALTER TABLE plain.copy SET SCHEMA {0}", "moved")
    assert {"in_inv.copy", "moved_inv.copy"} <= shop.published()
    assert {tenant for _, tenant in shop.defects(first)} == {"south", "in"}


@pytest.mark.guarantee("No harm")
def test_whoever_makes_the_tables_needs_no_rights_and_meets_no_error(shop: Shop) -> None:
    """A role that owns its schema alone; and where publishing fails, its command goes on with a warning."""
    role = sql.Identifier(f"tenant_{shop.connection.info.dbname}")
    execute = shop.connection.execute
    execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        execute(
            sql.SQL('CREATE SCHEMA "a_inv" AUTHORIZATION {0}; CREATE SCHEMA "b_inv" AUTHORIZATION {0}').format(role)
        )
        execute(sql.SQL("SET ROLE {}").format(role))
        shop.run("CREATE TABLE {0}.copy (id integer PRIMARY KEY)", "a")
        execute("RESET ROLE")
        assert "a_inv.copy" in shop.published()
        execute(sql.SQL("ALTER TABLE rowcast.tenant_table OWNER TO {}").format(role))
        execute(sql.SQL("SET ROLE {}").format(role))
        shop.run("CREATE TABLE {0}.copy (id integer PRIMARY KEY)", "b")
        execute("RESET ROLE")
        assert "b_inv.copy" not in shop.published()
        assert "belongs to another role" in shop.warnings[-1]
        assert shop.defects(shop.told()) == [("PUBLICATION_INCOMPLETE", "b")]
        execute("DROP PUBLICATION rowcast_shop")
        shop.run("CREATE SCHEMA {0}; CREATE TABLE {0}.copy (id integer PRIMARY KEY)", "c")
    finally:
        execute("RESET ROLE")
        execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.guarantee("No harm")
def test_a_login_without_rights_has_it_made_by_somebody_with_more(shop: Shop) -> None:
    """The script makes trigger and table for it; before that it is told that they are missing, and cannot go on."""
    role = sql.Identifier(f"reader_{shop.connection.info.dbname}")
    execute = shop.connection.execute
    execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        execute('DROP EVENT TRIGGER "rowcast_tenants_shop"; DROP TABLE rowcast.tenant_table')
        execute(sql.SQL("GRANT USAGE ON SCHEMA rowcast TO {}").format(role))
        execute(sql.SQL("GRANT SELECT, UPDATE ON rowcast.heartbeat TO {}").format(role))
        execute(sql.SQL("SET ROLE {}").format(role))
        with pytest.raises(ConfigurationError, match="tenant_table"):
            plan_source_database(shop.definition, shop.catalogue, shop.connection)
        assert missing_note(shop.definition, shop.connection) is not None
        script = source_database_statements(shop.definition, shop.catalogue, shop.connection)
        execute("RESET ROLE")
        execute(";".join(script).encode())
        execute(sql.SQL("SET ROLE {}").format(role))
        assert plan_source_database(shop.definition, shop.catalogue, shop.connection) == []
        assert missing_note(shop.definition, shop.connection) is None
        assert set(shop.told()["is"]) == {"north_inv.title", "north_inv.copy"}
        execute("RESET ROLE")
        shop.run(TABLES, "new-1")
        execute(sql.SQL("SET ROLE {}").format(role))
        assert execute('SELECT count(*) FROM "new-1_inv".title').fetchone() == (0,)
    finally:
        execute("RESET ROLE")
        execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ("CREATE TABLE {0}.copy (id bigint PRIMARY KEY)", "'id' is bigint, in north_inv.copy it is integer"),
        ("CREATE TABLE {0}.copy (id integer PRIMARY KEY)", "its replica identity is 'd', that of north_inv.copy 'f'"),
        ("CREATE TABLE {0}.copy (id integer, k integer PRIMARY KEY)", "told apart by k, those of north_inv.copy by id"),
        ("CREATE TABLE {0}.copy (id integer)", "odd_inv.copy: has no primary key"),
        ("CREATE TABLE {0}.copy (id integer PRIMARY KEY) PARTITION BY HASH (id)", "odd_inv.copy: is partitioned"),
    ],
)
def test_tenants_that_are_not_alike_are_refused(shop: Shop, statements: str, words: str) -> None:
    """Each with the table that differs, before anything is touched."""
    shop.connection.execute('DROP EVENT TRIGGER "rowcast_tenants_shop"')
    identity = "; ALTER TABLE {0}.copy REPLICA IDENTITY FULL" if "bigint" in statements else ""
    shop.run("CREATE SCHEMA {0}; " + statements + identity, "odd")
    catalogue = read_catalogue(shop.connection, shop.file.tables)
    with pytest.raises(DocumentError) as caught:
        admit(shop.file, CONTRACTS, catalogue)
    assert words in str(caught.value)


def test_types_of_a_tenants_own_schema_are_the_same_in_all(shop: Shop) -> None:
    """In the definition, which does not change with the tenants, and for heartbeats."""
    shop.run(TABLES, "new-1")
    catalogue = read_catalogue(shop.connection, shop.file.tables)
    assert compile_definition(shop.file, CONTRACTS, catalogue) == shop.definition
    types = {column.name: column.type for table in shop.definition.tables for column in table.columns}
    assert types["state"] == "{tenant}_inv.state"
    assert shop.told()["lacks"] == {}
