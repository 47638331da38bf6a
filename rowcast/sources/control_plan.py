"""What a source needs in the control database: the schema, and its definition as workers read it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import partial
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from rowcast.contracts.personal_data import outline
from rowcast.control.database import migrate
from rowcast.deprecation import Deprecation
from rowcast.errors import ConfigurationError
from rowcast.sources.change import Action, Change, Step
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.shielded_column import all_rules
from rowcast.topics import domain_topic

_APPLY_LOCK = 0x526F7764  # any constant beside that of the migrations


def hold_apply_lock(connection: psycopg.Connection[Any]) -> None:
    """
    Keep other `apply` runs out until the connection ends.

    Raises:
        ConfigurationError: another run holds the lock.

    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_APPLY_LOCK,)).fetchone()
    if row is None or not row[0]:
        raise ConfigurationError("another `rowcast sources apply` runs", where="control database", fix="wait for it")


def pending_migrations(connection: psycopg.Connection[Any]) -> list[str]:
    """The migrations that did not run yet, in order. Reads only."""
    names = [each.name for each in files("rowcast.control").joinpath("migrations").iterdir()]
    row = connection.execute("SELECT to_regclass('rowcast.migration')").fetchone()
    done = set()
    if row is not None and row[0] is not None:
        done = {name for (name,) in connection.execute("SELECT name FROM rowcast.migration")}
    return sorted(name for name in names if name.endswith(".sql") and name not in done)


def knows_sources(connection: psycopg.Connection[Any]) -> bool:
    """Whether the control database has the table of sources, however old its schema is. Reads only."""
    return connection.execute("SELECT to_regclass('rowcast.source')").fetchone() != (None,)


def control_statements(connection: psycopg.Connection[Any]) -> list[str]:
    """The SQL that gives the login of the control database what it lacks, for somebody with more rights. Reads only."""
    row = connection.execute(_RIGHTS).fetchone()
    assert row is not None, "one row"
    login, made, may_use, may_create, may_have_temporary = row
    names = sql.Identifier(login), sql.Identifier(connection.info.dbname)
    statements = []
    if not made and not may_create:
        statements.append(sql.SQL("CREATE SCHEMA rowcast AUTHORIZATION {}").format(names[0]))
    elif made and not may_use:
        statements.append(sql.SQL("ALTER SCHEMA rowcast OWNER TO {}").format(names[0]))
    if not may_have_temporary:
        statements.append(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(names[1], names[0]))
    return [each.as_string(connection) for each in statements]


_RIGHTS = """
SELECT current_user::text, n.oid IS NOT NULL,
       coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'), false),
       has_database_privilege(current_database(), 'CREATE'), has_database_privilege(current_database(), 'TEMPORARY')
  FROM (SELECT) one LEFT JOIN pg_namespace n ON n.nspname = 'rowcast'
"""


def plan_migrations(source: str, connection: psycopg.Connection[Any]) -> list[Step]:
    """
    The step that makes the control database's schema, or brings it up to date.

    Raises:
        ConfigurationError: the login may not.

    """
    lacking = control_statements(connection)
    if lacking:
        raise ConfigurationError(
            "the login lacks rights that `apply` and workers need",
            where="control database",
            fix=f"{'; '.join(lacking)}: `rowcast sources plan --sql`",
        )
    pending = pending_migrations(connection)
    if not pending:
        return []
    row = connection.execute("SELECT to_regnamespace('rowcast')").fetchone()
    action: Action = "create" if row is None or row[0] is None else "alter"
    change = Change(source, "control database", action, "schema rowcast", "migrations " + ", ".join(pending))
    return [Step(change, partial(migrate, connection))]


def plan_definition(definition: SourceDefinition, connection: psycopg.Connection[Any]) -> list[Step]:
    """
    The step that stores the definition.

    Raises:
        ConfigurationError: another source publishes one of its aggregates, or the change needs rows that were
            never captured.

    """
    present = None
    if knows_sources(connection):
        _refuse_shared_topics(definition, connection)
        with connection.cursor(row_factory=dict_row) as cursor:
            query = "SELECT revision, removed, definition, next_offset FROM rowcast.source WHERE source = %s"
            present = cursor.execute(query, (definition.source,)).fetchone()
        if present is not None and not present["removed"] and present["next_offset"] is not None:
            applied = SourceDefinition.from_json(present["definition"])
            _refuse_uncaptured(definition, applied)
            _refuse_early_end(definition, applied, datetime.now(UTC).date())
    if present is not None and present["revision"] == definition.revision and not present["removed"]:
        return []
    what, revision = f"definition of {definition.source}", definition.revision[:12]
    if present is None:
        change = Change(definition.source, "control database", "create", what, f"revision {revision}")
    else:
        reason = f"revision {present['revision'][:12]} → {revision}" + (", was removed" if present["removed"] else "")
        change = Change(definition.source, "control database", "alter", what, reason)
    return [Step(change, partial(_store, definition, connection))]


def _refuse_uncaptured(wanted: SourceDefinition, applied: SourceDefinition) -> None:
    """A running source cannot publish what its snapshot did not read; a new snapshot can."""
    shapes = [
        [
            (each.name, each.table, each.id, each.parent, each.where, each.soft_delete, each.tied)
            for each in one.aggregates
        ]
        for one in (wanted, applied)
    ]
    known = {(table.name, column.name) for table in applied.tables for column in table.columns}
    fresh = sorted(
        f"{table.name}.{column.name}"
        for table in wanted.tables
        for column in table.columns
        if (table.name, column.name) not in known
    )
    if shapes[0] == shapes[1] and not fresh:
        _refuse_rehandled(wanted, applied)
        return
    what = (
        f"columns {', '.join(fresh)}"
        if shapes[0] == shapes[1]
        else "other aggregates, tables, ids, parents or conditions"
    )
    raise ConfigurationError(
        f"the running source was captured without {what}; rows that exist would be missing",
        where=f"source {wanted.source}",
        fix=f"`rowcast sources remove {wanted.source} --yes`, then apply: a new snapshot reads all rows",
    )


def _refuse_rehandled(wanted: SourceDefinition, applied: SourceDefinition) -> None:
    """What is kept of rows was hidden as it came, so other rules for personal data need all rows anew."""
    # Where nothing that is kept was hashed, an older major that hashes may come and go.
    keys = {wanted.hash_key_id, applied.hash_key_id} - {""}
    if _hidden(wanted) == _hidden(applied) and len(keys) < 2:
        return
    raise ConfigurationError(
        "the running source keeps personal data as it was declared before: masked, hashed, dropped or clear",
        where=f"source {wanted.source}",
        fix=f"`rowcast sources remove {wanted.source} --yes`, then apply: a new snapshot reads all rows",
    )


def _hidden(definition: SourceDefinition) -> dict[tuple[str, str], Any]:
    return {
        (rules.table, column): outline(treatment)
        for aggregate in definition.aggregates
        for rules in all_rules(aggregate)
        for column, treatment in rules.shielded().items()
    }


def _refuse_early_end(wanted: SourceDefinition, applied: SourceDefinition, today: date) -> None:
    """A major that somebody may read ends at the sunset that its events have told, and not before."""
    by_name = {each.name: each for each in wanted.aggregates}
    told = applied.deprecations
    for aggregate in applied.aggregates:
        for major in sorted(set(aggregate.majors) - set(by_name[aggregate.name].majors)):
            where = domain_topic(applied.domain, aggregate.name, major)
            deprecation = told.get(where)
            if deprecation is not None and deprecation.last_day <= today:
                continue
            version = f"{aggregate.name}/v{major}.<newest minor>.json"
            raise ConfigurationError(
                f"would get no more events, {_until(deprecation)}",
                where=f"topic {where}",
                fix=f"keep major {major} live, under `former` of a newer one; to end it, give {version} an"
                " `x-deprecation`, apply, and wait for its sunset: docs/majors.md",
            )


def _until(deprecation: Deprecation | None) -> str:
    return f"and its sunset is {deprecation.sunset}" if deprecation else "and its events have told no sunset"


def _refuse_shared_topics(definition: SourceDefinition, connection: psycopg.Connection[Any]) -> None:
    mine = set(definition.topics)
    query = "SELECT source, definition FROM rowcast.source WHERE source <> %s AND NOT removed"
    for name, document in connection.execute(query, (definition.source,)):
        other = SourceDefinition.from_json(document)
        for topic in sorted(mine & set(other.topics)):
            raise ConfigurationError(
                f"is written by source {name!r} already; a domain topic has one writing source",
                where=f"topic {topic}",
                fix="give this source another domain",
            )


def _store(definition: SourceDefinition, connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "INSERT INTO rowcast.source (source, definition, revision) VALUES (%s, %s, %s)"
        " ON CONFLICT (source) DO UPDATE SET definition = excluded.definition, revision = excluded.revision,"
        # Until the new snapshot is over no heartbeat is to be expected.
        " applied_at = now(), removed = false, heartbeat = CASE WHEN NOT source.removed THEN source.heartbeat END",
        (definition.source, definition.to_json().decode(), definition.revision),
    )
