"""
``python -m stream_app.resync``, as `rowcast sources resync` runs it: row state and events as the database is.

It reads the database and leaves what differs to the owner of the source, which applies it at a place of the change log
that has all that was read. When this process dies, what it read is given up.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psycopg

from rowcast.control.command import ask, wait_outcome
from rowcast.control.database import connect, migrate
from rowcast.control.halts import read_halts
from rowcast.control.names import need_source, need_type
from rowcast.control.refusals import list_refusals
from rowcast.errors import ConfigurationError, RowcastError
from rowcast.identity import Identity, tenant_of
from rowcast.settings import Settings, load_settings
from rowcast.sources.catalogue import Table, connect_source, read_catalogue
from rowcast.sources.connector import publication_name, slot_name
from rowcast.sources.definition import SourceDefinition, TableDefinition
from rowcast.sources.heartbeat import catalogue_query
from rowcast.sources.source_file import load_sources
from rowcast.sources.tenant import TableNames, is_pattern, is_tenant
from stream_app.contract import compile_validators
from stream_app.core.captured import captured_defects
from stream_app.core.halting import HaltedTypes
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.drift import READING_LOCK
from stream_app.lease import read_definition
from stream_app.position import read_position
from stream_app.rereading import Rereading, Scope, tables_of

_WHERE = "rowcast sources resync"
_GENERATION = "generation "
_IDENTITY = """
SELECT pg_is_in_recovery(), (SELECT system_identifier::text FROM pg_control_system()),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s AND database = current_database())
"""
_WITHDRAW = """
UPDATE rowcast.command SET done_at = clock_timestamp(), outcome = 'withdrawn' WHERE number = %s AND done_at IS NULL
"""
_OPEN = "SELECT FROM rowcast.command WHERE source = %s AND verb = 'resync_apply' AND done_at IS NULL"


def main(arguments: list[str]) -> int:
    """Resync what *arguments* ask for; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        resynced = resync(options, load_settings(options.project))
    except (RowcastError, psycopg.Error) as error:
        print(f"rowcast: {error}", file=sys.stderr)
        return 2
    print(f"{options.source}: {resynced.outcome}")
    if resynced.applied and resynced.refused:
        print(f"{resynced.refused} refused; see `rowcast refused list {options.source}`")
    return 0 if resynced.applied and not resynced.refused else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rowcast sources resync")
    parser.add_argument("--project", type=Path)
    parser.add_argument("--aggregate")
    parser.add_argument("--tenant")
    parser.add_argument("--id", dest="ids", action="append", default=[])
    parser.add_argument("--where")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("source")
    return parser


class Resynced(NamedTuple):
    """What came of it, whether it was *applied*, and how many of what was asked for are *refused*."""

    outcome: str
    applied: bool
    refused: int


def resync_source(
    source: str, settings: Settings, timeout_s: float, chosen: tuple[str | None, str | None] = (None, None)
) -> Resynced:
    """Resync a whole source, or what is *chosen* of it: an aggregate type, a tenant; see `resync`."""
    names = zip(("--aggregate", "--tenant"), chosen, strict=True)
    options = [f"{name}={each}" for name, each in names if each is not None]
    return resync(_parser().parse_args([f"--timeout={timeout_s}", *options, source]), settings)


def resync(options: argparse.Namespace, settings: Settings) -> Resynced:
    """
    Resync what *options* name.

    Raises:
        ConfigurationError: there is no such source, type or id, or its database is not what it was applied to.
        TransientError: a part is not reachable.

    """
    source = str(options.source)
    # Large tables are compared in one statement.
    with connect(
        settings.control().url, application=_WHERE, autocommit=True, settings="-c statement_timeout=0"
    ) as control:
        migrate(control)
        definition = need_source(control, source)
        types = [each.name for each in definition.aggregates]
        if options.aggregate is not None:
            columns = need_type(control, source, options.aggregate)
            (table,) = [each.table for each in definition.aggregates if each.name == options.aggregate]
            _need_ids(options.ids, columns, of_tenants=is_pattern(table))
            types = [options.aggregate]
        if options.tenant is not None:
            types = _types_of_tenants(definition, types, options.tenant)
        scope = Scope(tuple(types), tuple(options.ids), options.where, options.tenant)
        with _reading(control, source):
            outcome, applied = _read_and_ask(control, scope, settings, options)
        refused = [
            each
            for each in list_refusals(control, source)
            if each.aggregate in types
            and (not options.ids or each.id_text in options.ids)
            and options.tenant in {None, tenant_of(each.id_text)}
        ]
    return Resynced(outcome, applied, len(refused))


def _types_of_tenants(definition: SourceDefinition, types: Sequence[str], tenant: str) -> list[str]:
    """Those of *types* that *tenant* can have rows of."""
    tables = {each.name: each.table for each in definition.aggregates}
    found = [each for each in types if is_pattern(tables[each])]
    where = f"--tenant {tenant!r}"
    if not found:
        raise ConfigurationError("no table of these types has tenants", where=where, fix="leave it out")
    if not is_tenant(tenant):
        raise ConfigurationError("no tenant can be called so", where=where, fix="letters, digits, _ and -")
    return found


def _need_ids(ids: Sequence[str], columns: int, *, of_tenants: bool) -> None:
    for each in ids:
        try:
            identity = Identity.from_id_text("", "", each)
            parts = identity.parts
        except ValueError as error:
            raise ConfigurationError(
                str(error), where=f"--id {each!r}", fix="write it as the record key has it"
            ) from None
        if len(parts) != columns:
            fix = f"the id has {columns} parts, percent-encoded and joined by commas"
            raise ConfigurationError(f"has {len(parts)} parts", where=f"--id {each!r}", fix=fix)
        if (identity.tenant is not None) is not of_tenants:
            told, fix = ("has no", "<tenant>/<id>") if of_tenants else ("has a", "the id alone")
            raise ConfigurationError(f"{told} tenant", where=f"--id {each!r}", fix=fix)


@contextmanager
def _reading(control: psycopg.Connection, source: str) -> Iterator[None]:
    """
    Be the only one who reads for a resync of *source*; what a former one left is thrown away.

    Raises:
        ConfigurationError: somebody else does, or what was read is being applied.

    """
    lock = (READING_LOCK, source)
    row = control.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", lock).fetchone()
    if row != (True,) or control.execute(_OPEN, (source,)).fetchone() is not None:
        raise ConfigurationError(
            "another resync is under way", where=f"source {source}", fix="ask again when it has ended"
        )
    try:
        _forget(control, source)
        yield
    finally:
        if not control.closed and control.execute(_OPEN, (source,)).fetchone() is None:
            _forget(control, source)


def _forget(control: psycopg.Connection, source: str) -> None:
    control.execute("DELETE FROM rowcast.reread_row WHERE source = %s", (source,))
    control.execute("DELETE FROM rowcast.deleted_row WHERE source = %s", (source,))


def _read_and_ask(
    control: psycopg.Connection, scope: Scope, settings: Settings, options: argparse.Namespace
) -> tuple[str, bool]:
    """What came of it, and whether it was applied."""
    source = str(options.source)
    (file,) = load_sources(settings.project, [source])
    definition, revision = read_definition(control, source)
    mapping = compile_mapping(definition, compile_validators(definition), settings.hash_key())
    with connect_source(settings.database(file.database)) as database:
        _need_same_database(control, database, source)
        lifts = _lifted(control, database, mapping, scope)
        _need_same_tables(database, mapping, scope)
        begin = ask(control, source, "resync_begin", {"aggregates": list(scope.types)})
        begun = wait_outcome(control, begin, options.timeout)
        if begun is None:
            control.execute(_WITHDRAW, (begin,))
            return f"nothing was done: no worker has answered for {options.timeout:g} s", False
        if not begun.startswith(_GENERATION):
            raise ConfigurationError(begun, where=f"source {source}", fix=f"rowcast sources status {source}")
        generation = int(begun.removeprefix(_GENERATION))
        reading = Rereading(mapping, generation, database, control)
        reading.read(scope)
    arguments = {"generation": generation, "behind": reading.behind, "revision": revision, "lifts": lifts}
    outcome = wait_outcome(control, ask(control, source, "resync_apply", arguments), options.timeout)
    if outcome is None:
        return f"{reading.count} rows read; not yet applied, the request stands", False
    if outcome.startswith("not "):
        return f"{reading.count} rows read; {outcome}", False
    for halt in read_halts(control, source):
        if halt.aggregate in lifts.get("types", ()) or halt.tenant in lifts.get("tenants", ()):
            return f"{reading.count} rows read; {outcome}; {halt.told()}: {halt.remedy(source)}", False
    return f"{reading.count} rows read; {outcome}", True


def _need_same_database(control: psycopg.Connection, database: psycopg.Connection[Any], source: str) -> None:
    """
    Make sure that *database* is the one that *source* is captured from: rows that it lacks end as deleted.

    Raises:
        ConfigurationError: it is a standby, a copy, or another one.

    """
    where = f"database of source {source}"
    found = database.execute(_IDENTITY, (slot_name(source),)).fetchone()
    assert found is not None, "functions return one row"
    in_recovery, system, has_slot = found
    if in_recovery:
        raise ConfigurationError("is a standby, which may be behind", where=where, fix="give the primary's address")
    position = read_position(control, source)
    known = (position.heartbeat or {}).get("system_identifier") if position else None
    if known is None:
        fix = f"rowcast sources status {source}"
        raise ConfigurationError("nothing was captured from it yet", where=where, fix=fix)
    if not has_slot or str(known) != system:
        raise ConfigurationError(
            f"is not the one that the source is captured from: replication slot {slot_name(source)} is not in it",
            where=where,
            fix=f"rowcast sources status {source}",
        )


def _lifted(
    control: psycopg.Connection, database: psycopg.Connection[Any], mapping: SourceMapping, scope: Scope
) -> dict[str, Any]:
    """
    The halted types that go on when *scope* was read, and what the catalogue tells of their tables now.

    Raises:
        ConfigurationError: a halted type is read in part, or alone though it is another that has to be; or a table is
            not mended.

    """
    definition = mapping.definition
    where = f"source {definition.source}"
    halted = HaltedTypes(mapping, read_halts(control, definition.source))
    for name in scope.types:
        halt = halted.why(name) if name in halted else None
        if halt and (not scope.is_of_all_tenants or halt.cause not in scope.types):
            fix = f"rowcast sources resync {definition.source} --aggregate {halt.cause}"
            raise ConfigurationError(halt.told(), where=where, fix=fix)
    tenants = _lifted_tenants(mapping, halted, scope)
    types = sorted(halted.causes & set(scope.types))
    if not types and not tenants:
        return {}
    query = catalogue_query(definition, publication_name(definition.source))
    row = database.execute(query.encode()).fetchone()
    assert row is not None, "a SELECT of functions returns one row"
    told = orjson.loads(row[0])
    tables = {table.name: table for table in definition.tables if table.name in halted.feeding(types)}
    defects = [each for each in captured_defects(told["captured"], {}, tables) if each.tenant not in halted.tenants]
    of_all = {table.name: table for table in definition.tables}
    defects += [each for each in captured_defects(told["captured"], {}, of_all) if each.tenant in tenants]
    for defect in defects:
        unpublished = defect.code == "PUBLICATION_INCOMPLETE" and defect.table is not None
        fix = f"rowcast sources apply {definition.source}" if unpublished else defect.mended
        raise ConfigurationError(defect.message, where=where, fix=fix)
    return {"types": types, "tenants": tenants, "told": told}


def _lifted_tenants(mapping: SourceMapping, halted: HaltedTypes, scope: Scope) -> list[str]:
    """
    The halted tenants of which *scope* has all rows.

    Raises:
        ConfigurationError: it has some of one.

    """
    named = {scope.tenant} if scope.tenant else set(filter(None, map(tenant_of, scope.ids)))
    asked = sorted(halted.tenants & named) if named else sorted(halted.tenants)
    definition = mapping.definition
    every_type = {each.name for each in definition.aggregates if is_pattern(each.table)}
    if scope.is_whole and every_type <= set(scope.types):
        return asked
    if asked and named:
        fix = f"rowcast sources resync {definition.source} --tenant {asked[0]}"
        told = halted.why_tenant(asked[0]).told()
        raise ConfigurationError(told, where=f"source {definition.source}", fix=fix)
    return []


def _need_same_tables(database: psycopg.Connection[Any], mapping: SourceMapping, scope: Scope) -> None:
    """
    Make sure that the tables that *scope* reads are as they were when the definition was applied, and readable whole.

    Raises:
        ConfigurationError: one is not.

    """
    tables = tables_of(mapping, scope)
    names = TableNames(table.name for table in tables)
    found = read_catalogue(database, [table.name for table in tables]).tables
    for table in tables:
        if table.name not in found:
            if scope.tenant is not None:
                continue  # no tenant has any: this one may have been dropped
            where = f"table {table.name}"
            raise ConfigurationError("does not exist", where=where, fix="its rows would all end as deleted")
        for present in found[table.name].present:
            if scope.tenant is None or (names.find(present.name) or ("", None))[1] == scope.tenant:
                _need_same_table(table, present)


def _need_same_table(table: TableDefinition, present: Table) -> None:
    """Raises as `_need_same_tables`."""
    where = f"table {present.name}"
    if not present.readable or present.secured:
        why = "row-level security hides rows of it" if present.readable else "the login may not read it"
        raise ConfigurationError(why, where=where, fix="the login that resyncs has to see all rows")
    for column in table.columns:
        now = present.column(column.name)
        if now is None or now.type != column.type:
            raise ConfigurationError(
                f"column {column.name} is not as it was applied: {now.type if now else 'it is gone'}",
                where=where,
                fix="change the source file, and apply it first",
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
