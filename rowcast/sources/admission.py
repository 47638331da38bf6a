"""
Which tables may be published: everything is decided before anything is touched.

PostgreSQL lets anybody add a table to a publication and then fails the *application's* UPDATE or DELETE, or
silently publishes nothing. Such a table is refused here, with its fix.
"""

from __future__ import annotations

from collections.abc import Iterator

from rowcast.sources.catalogue import Catalogue, Table
from rowcast.sources.connector import slot_name
from rowcast.sources.document import DocumentError
from rowcast.sources.source_file import SourceFile

_OLDEST_VERSION = 140_000
# Connections of a source's login at the same time: connector, heartbeat, validation, a command; rights.md says which.
SOURCE_CONNECTIONS = 5
SPARE = 10
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_PERSISTENCE = {"u": "unlogged", "t": "temporary"}


def refuse_unfit(source: SourceFile, catalogue: Catalogue) -> None:
    """
    Refuse a server or tables that cannot be captured, or whose publication would hurt the application.

    Raises:
        DocumentError: names every table and its fix.

    """
    misfits = [*server_misfits(catalogue), *_capacity_misfits(slot_name(source.source), catalogue)]
    faults = [source.fault("database", message, fix) for message, fix in misfits]
    for field, name in source.named_tables():
        table = catalogue.tables.get(name)
        present = [None] if table is None else table.present
        faults.extend(
            source.fault(field, f"{each.name if each else name}: {message}", fix)
            for each in present
            for message, fix in (*table_misfits(each, catalogue), *tenant_misfits(table, each))
        )
    if faults:
        raise DocumentError(source.path, faults)


def server_misfits(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Why the server cannot be captured from: the message, and what would be accepted."""
    if catalogue.version < _OLDEST_VERSION:
        yield f"PostgreSQL {catalogue.version // 10_000} cannot publish what is needed", "PostgreSQL 14 or newer"
    if catalogue.wal_level != "logical":
        yield f"wal_level is {catalogue.wal_level!r}", "ALTER SYSTEM SET wal_level = logical, then restart the server"
    if catalogue.in_recovery:
        yield "the server is a standby", "the primary server"
    if not catalogue.may_replicate:
        yield "the login may not replicate", "ALTER ROLE … REPLICATION: `rowcast sources plan --sql`"
    if catalogue.slots_max < 1:
        yield "max_replication_slots is 0", "ALTER SYSTEM SET max_replication_slots = 10, then restart the server"


def _capacity_misfits(slot: str, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """What there is too little of for another source."""
    used, most = len(catalogue.slots), catalogue.slots_max
    fresh = slot not in catalogue.slots
    if fresh and used >= most > 0:
        message = f"all {most} replication slots of the server are taken: {', '.join(catalogue.slots)}"
        fix = f"ALTER SYSTEM SET max_replication_slots = {used + SPARE}, then restart the server"
        yield message, f"{fix}; or drop one that nobody reads: SELECT pg_drop_replication_slot('…')"
    if fresh and catalogue.senders_used >= catalogue.senders_max:
        fix = f"ALTER SYSTEM SET max_wal_senders = {catalogue.senders_used + SPARE}, then restart the server"
        yield f"all {catalogue.senders_max} WAL senders of the server are at work", fix
    if 0 <= catalogue.connections_max < SOURCE_CONNECTIONS:
        message = f"the login's CONNECTION LIMIT is {catalogue.connections_max}; connector and commands need"
        yield f"{message} {SOURCE_CONNECTIONS}", f"ALTER ROLE … CONNECTION LIMIT {SOURCE_CONNECTIONS}"


def table_misfits(table: Table | None, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Why a table cannot be captured, or may not be: the message, and what would be accepted."""
    if table is None:
        message = f"does not exist in database {catalogue.database!r}"
        yield message, "the schema and name of a table there; of a pattern, of one tenant at least"
        return
    if table.kind in _KINDS:
        yield f"is {_KINDS[table.kind]}; only tables have changes to capture", "an ordinary or partitioned table"
        return
    if table.persistence in _PERSISTENCE:
        yield f"is {_PERSISTENCE[table.persistence]}: its changes are not in the WAL", "ALTER TABLE … SET LOGGED"
    if table.partition_of:
        yield "is a partition", f"the partitioned table, {table.partition_of}"
    if table.inherits:
        yield f"inherits from {table.inherits}; its rows would belong to two tables", "a table without INHERITS"
    if table.heir:
        yield f"is inherited by {table.heir}; a snapshot would read the rows of both", "a table without INHERITS"
    yield from _rights(table)
    yield from _identity(table, catalogue)


def tenant_misfits(declared: Table | None, table: Table | None) -> Iterator[tuple[str, str]]:
    """Why the *table* of a tenant cannot be captured with those of others, *declared* together."""
    if declared is None or table is None or not declared.tenants:
        return
    if table.kind == "p":
        yield "is partitioned, and has a tenant: what comes and goes with partitions would be missed", "a plain table"
    if table.replica_identity == "i":
        yield "has an index as its replica identity, and a tenant", f"ALTER TABLE {table.name} REPLICA IDENTITY DEFAULT"
    elif table.replica_identity != declared.replica_identity:
        message = f"its replica identity is {table.replica_identity!r}, that of {declared.tenants[0].name}"
        yield f"{message} {declared.replica_identity!r}", "ALTER TABLE … REPLICA IDENTITY, the same for all tenants"
    if table.row_key != declared.row_key:
        message = f"its rows are told apart by {', '.join(table.row_key)}, those of {declared.tenants[0].name} by"
        yield f"{message} {', '.join(declared.row_key)}", "the same key for all tenants"


def _rights(table: Table) -> Iterator[tuple[str, str]]:
    if not table.readable:
        yield "the login may not read it", "GRANT USAGE on its schema and SELECT on it: `rowcast sources plan --sql`"
    elif table.secured:
        yield "row-level security hides rows from the login", "ALTER ROLE … BYPASSRLS: `rowcast sources plan --sql`"


def _identity(table: Table, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    identities = table.leaf_identities or {table.replica_identity}
    if "n" in identities:
        yield (
            "has replica identity NOTHING; once published, every UPDATE and DELETE of the application would fail",
            f"ALTER TABLE {table.name} REPLICA IDENTITY DEFAULT, with a primary key",
        )
    if "i" in table.leaf_identities:
        message = "has a partition whose replica identity is an index; its deletions may lack the primary key"
        yield message, "ALTER TABLE <partition> REPLICA IDENTITY DEFAULT, or FULL"
    if table.deferrable and "d" in identities:
        yield (
            "has a deferrable primary key; once published, every UPDATE and DELETE of the application would fail",
            f"ALTER TABLE {table.name} REPLICA IDENTITY FULL, or a primary key that is not deferrable",
        )
    if not table.id_columns:
        harm = "once published, every UPDATE and DELETE of the application would fail" if "d" in identities else ""
        message = "has no primary key" + (f"; {harm}" if harm else ", by which its rows could be told apart")
        yield message, f"ALTER TABLE {table.name} ADD PRIMARY KEY (…)"
    generated = [column.name for column in table.columns if column.generated]
    if kept := [name for name in dict.fromkeys((*table.row_key, *table.id_columns)) if name in generated]:
        message = f"is told apart by the generated column {kept[0]!r}, which PostgreSQL does not publish"
        yield message, f"a key of {table.name} with stored columns alone"
    if "f" in identities and generated and catalogue.version >= 180_000:
        yield (
            (
                f"has replica identity FULL and the generated column {generated[0]!r}; once published, every UPDATE and"
                " DELETE of the application would fail"
            ),
            f"ALTER TABLE {table.name} REPLICA IDENTITY DEFAULT",
        )
