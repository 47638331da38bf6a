"""
What publishes a new tenant's tables in the transaction that makes them: an event trigger of the source database.

Rows of that very transaction are captured then, and nothing has to be restarted. Only a superuser may have it; where it
is not there, heartbeats tell of tables that are not published, and of those that were published later than they were
made (`stream_app.core.captured`): what the trigger has published while it was empty stands in ``rowcast.tenant_table``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson
import psycopg
from psycopg import sql

from rowcast.sources.change import Action, Change, Note, Step
from rowcast.sources.connector import publication_name
from rowcast.sources.definition import SourceDefinition, TableDefinition
from rowcast.sources.heartbeat import quoted
from rowcast.sources.tenant import TenantPattern, is_pattern

_TENANT_TABLE = """
CREATE TABLE IF NOT EXISTS rowcast.tenant_table (
    source text NOT NULL,
    name   text NOT NULL,  -- schema.table
    oid    oid NOT NULL,   -- whose rows were all published, because it had none before
    PRIMARY KEY (source, name)
)
"""
_TAGS = ("CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "CREATE SCHEMA", "ALTER TABLE", "ALTER SCHEMA")


def trigger_name(source: str) -> str:
    """The event trigger of a source, and its function in schema ``rowcast``."""
    return f"rowcast_tenants_{source}"


def tenant_tables(definition: SourceDefinition) -> list[TableDefinition]:
    """The tables that each tenant has one of."""
    return [table for table in definition.tables if is_pattern(table.name)]


def plan_tenant_publishing(
    definition: SourceDefinition, connection: psycopg.Connection[Any], *, as_superuser: bool = False
) -> Iterator[Step]:
    """What makes the trigger, where the login may, or *as_superuser*; nothing for a source without tenants."""
    if not tenant_tables(definition) or not (as_superuser or is_superuser(connection)):
        return
    name, present = trigger_name(definition.source), _present(definition.source, connection)
    wanted = _body(definition, connection)
    if present == wanted:
        return
    action: Action = "create" if present is None else "alter"
    change = Change(
        definition.source,
        "source database",
        action,
        f"event trigger {name}",
        "publishes the tables of new tenants",
    )
    statements = list(_statements(definition, wanted, connection))
    script = ";\n".join(each.as_string(connection).strip() for each in statements)
    yield Step(change, partial(_run, connection, statements), script)


def missing_note(definition: SourceDefinition, connection: psycopg.Connection[Any]) -> Note | None:
    """What is to be told where the trigger is not as it has to be, and the login may not make it."""
    if not tenant_tables(definition) or is_superuser(connection):
        return None
    present, wanted = _present(definition.source, connection), _body(definition, connection)
    if present is not None and _without_login(present) == _without_login(wanted):
        return None
    return Note(
        definition.source,
        f"event trigger {trigger_name(definition.source)}",
        "is not there, or not as it has to be, and only a superuser may make it: "
        "tables of new tenants halt their types until they are published and read",
        "let a DBA run what `rowcast sources plan --sql` prints",
    )


def drop_statements(source: str) -> tuple[sql.Composed, ...]:
    """What takes trigger and function away."""
    name = sql.Identifier(trigger_name(source))
    return (
        sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(name),
        sql.SQL("DROP FUNCTION IF EXISTS rowcast.{}()").format(name),
    )


def has_trigger(source: str, connection: psycopg.Connection[Any]) -> bool:
    """Whether the database has the trigger of *source*."""
    return _present(source, connection) is not None


def _run(connection: psycopg.Connection[Any], statements: list[sql.Composed]) -> None:
    for statement in statements:
        connection.execute(statement)


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Whether the login is one."""
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return row is not None and bool(row[0])


def _present(source: str, connection: psycopg.Connection[Any]) -> str | None:
    name = trigger_name(source)
    row = connection.execute(_PRESENT, (list(_TAGS), name)).fetchone()
    return None if row is None else str(row[0])


_PRESENT = """
SELECT CASE WHEN t.evtenabled = 'A' AND t.evttags @> %s::text[]
             AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE n.nspname = 'rowcast' AND c.relname = 'tenant_table') THEN p.prosrc ELSE '' END
  FROM pg_event_trigger t JOIN pg_proc p ON p.oid = t.evtfoid WHERE t.evtname = %s
"""


def _statements(definition: SourceDefinition, body: str, connection: psycopg.Connection[Any]) -> Iterator[sql.Composed]:
    name = sql.Identifier(trigger_name(definition.source))
    yield sql.SQL(_TENANT_TABLE).format()
    yield sql.SQL("GRANT SELECT ON rowcast.tenant_table TO {}").format(sql.Identifier(_login(connection)))
    tags = sql.SQL(", ").join(sql.Literal(each) for each in _TAGS)
    yield sql.SQL(
        "CREATE OR REPLACE FUNCTION rowcast.{}() RETURNS event_trigger LANGUAGE plpgsql"
        " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {}"
    ).format(name, sql.Literal(body))
    yield sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(name)
    yield sql.SQL("CREATE EVENT TRIGGER {} ON ddl_command_end WHEN TAG IN ({}) EXECUTE FUNCTION rowcast.{}()").format(
        name, tags, name
    )
    # A restore or a replication may run as a replica, where triggers rest otherwise.
    yield sql.SQL("ALTER EVENT TRIGGER {} ENABLE ALWAYS").format(name)


def _body(definition: SourceDefinition, connection: psycopg.Connection[Any]) -> str:
    wanted = [_entry(table) for table in tenant_tables(definition)]
    literal = {
        "source": definition.source,
        "publication": publication_name(definition.source),
        "tables": orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS).decode(),
        "login": _login(connection),
    }
    body = _BODY
    for name, value in literal.items():
        body = body.replace(f"<{name}>", sql.Literal(value).as_string(connection))
    return body


def _entry(table: TableDefinition) -> dict[str, object]:
    pattern = TenantPattern.read(table.name)
    columns = ", ".join(quoted(column.name) for column in table.columns)
    return {
        "schema": pattern.schema_expression,
        "name": pattern.table,
        "columns": f"({columns})" if table.narrow else "",
        "whole": table.replica_identity == "f",
    }


def _login(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT current_user").fetchone()
    assert row is not None, "one row"
    return str(row[0])


def _without_login(body: str) -> str:
    """A superuser makes the trigger for another login, or for itself."""
    return "\n".join(line for line in body.splitlines() if "-- login" not in line)


# Whatever fails here leaves the table unpublished and says so; the tenant's own command goes on. A table that may have
# rows is left alone: what it has would be in no event. A file without a block has none, whatever a snapshot shows.
_BODY = """
DECLARE
  login constant name := <login>;  -- login
  made record;
BEGIN
  FOR made IN
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relreplident AS identity, w.columns, w.whole, p.pubname
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN jsonb_to_recordset(<tables>) AS w (schema text, name text, columns text, whole boolean)
        ON c.relname = w.name AND n.nspname ~ w.schema AND n.nspname !~ '^pg_'
      JOIN pg_publication p ON p.pubname = <publication>
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition
       AND c.oid IN (
         SELECT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass
         UNION ALL
         SELECT k.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class k ON k.relnamespace = d.objid
          WHERE d.classid = 'pg_namespace'::regclass)
       AND NOT EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
       AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
       -- without a key, once published, every UPDATE and DELETE of the application would fail
       AND c.relreplident IN ('d', 'f')
       AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
       AND NOT (c.relreplident = 'f' AND EXISTS (
         SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped))
  LOOP
    BEGIN
      EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', made.schema, made.name);
      IF pg_relation_size(made.oid) > 0 THEN
        RAISE WARNING 'rowcast: %.% may have rows, so it is not published yet', made.schema, made.name
          USING HINT = 'rowcast sources apply, then rowcast sources resync';
        CONTINUE;
      END IF;
      IF made.whole AND made.identity <> 'f' THEN
        EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY FULL', made.schema, made.name);
      END IF;
      IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                      WHERE p.pubname = made.pubname AND r.prrelid = made.oid) THEN
        EXECUTE format('ALTER PUBLICATION %I ADD TABLE %I.%I %s', made.pubname, made.schema, made.name, made.columns);
      END IF;
      -- whose owner could have something run here otherwise
      IF EXISTS (SELECT FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace
                  WHERE s.nspname = 'rowcast' AND t.relname = 'tenant_table'
                    AND pg_get_userbyid(t.relowner) <> current_user) THEN
        RAISE EXCEPTION 'rowcast.tenant_table belongs to another role';
      END IF;
      INSERT INTO rowcast.tenant_table (source, name, oid)
      VALUES (<source>, made.schema || '.' || made.name, made.oid)
      ON CONFLICT (source, name) DO UPDATE SET oid = excluded.oid;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = login AND NOT rolsuper) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', made.schema, login);
        EXECUTE format('GRANT SELECT ON %I.%I TO %I', made.schema, made.name, login);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'rowcast: %.% is not published yet: %', made.schema, made.name, SQLERRM
        USING HINT = 'rowcast sources apply, then rowcast sources resync';
    END;
  END LOOP;
END
"""
