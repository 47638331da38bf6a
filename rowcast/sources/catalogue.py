"""
What the source database's catalogue says about the tables of a source. Reads only.

Types are PostgreSQL's ``format_type`` with every name qualified, those of known extensions by their bare name; a domain
counts as the type under it, and an array of a domain is ``domain <type under it>[]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from rowcast.database_fault import database_fault
from rowcast.errors import ConfigurationError, DatabaseUnavailableError
from rowcast.settings import DatabaseSettings
from rowcast.sources.tenant import TENANT, TableNames, TenantPattern, is_pattern

_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; *enum* when its type is an enumeration or an array of one, *generated* when it is computed."""

    name: str
    type: str
    nullable: bool
    enum: bool
    generated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """
    A table as it stands. *kind*, *persistence* and *replica_identity* are PostgreSQL's letters
    (``relkind``, ``relpersistence``, ``relreplident``); *partition_of* and *inherits* name a parent table;
    *leaf_identities* are the replica identities of the partitions below; *identity* has the columns of the index where
    one is the replica identity. *deferrable*: the primary key is, so it is no replica identity. *heir* is a table that
    inherits from this one. The login may read it when it is *readable*; row-level security hides rows from the login
    when it is *secured*.

    One that was asked for as a pattern (`rowcast.sources.tenant`) has the *tenants*' tables, and is otherwise as the
    first of these; its columns are nullable, and it is secured or not readable, where any of these is.
    """

    name: str
    kind: str
    persistence: str
    replica_identity: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_of: str | None
    inherits: str | None
    leaf_identities: frozenset[str]
    identity: tuple[str, ...] = ()
    deferrable: bool = False
    heir: str | None = None
    readable: bool = True
    secured: bool = False
    tenants: tuple[Table, ...] = ()

    @property
    def present(self) -> tuple[Table, ...]:
        """The tables of the database that it stands for."""
        return self.tenants or (self,)

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The primary key, or what stands for it where there is none."""
        return self.key or self.identity

    @property
    def row_key(self) -> tuple[str, ...]:
        """The columns that tell rows apart and are in the WAL of every change, also of a DELETE."""
        return self.identity if self.identity and not set(self.key) <= set(self.identity) else self.id_columns

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((each for each in self.columns if each.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """
    A database: *version* as in ``server_version_num``, the *tables* asked for that exist, and whether the login
    *may_replicate*.

    Tables asked for as patterns are there under these, where one of any tenant exists; see `Table`.

    *slots* are all replication slots of the server, *senders_used* of *senders_max* WAL senders are at work.
    *connections_max* bounds the login's connections; -1: nothing does.
    """

    database: str
    version: int
    wal_level: str
    slots_max: int
    in_recovery: bool
    may_replicate: bool
    slots: Sequence[str] = ()
    senders_max: int = 10
    senders_used: int = 0
    connections_max: int = -1
    tables: Mapping[str, Table]

    @property
    def present(self) -> tuple[str, ...]:
        """The names of all tables of the database that were asked for."""
        return tuple(each.name for table in self.tables.values() for each in table.present)


def connect_source(settings: DatabaseSettings) -> psycopg.Connection[Any]:
    """
    An autocommit connection to a source database; statements and locks are limited in time.

    Raises:
        ConfigurationError: the database does not exist or refuses the login.
        DatabaseUnavailableError: the server did not answer.

    """
    try:
        return psycopg.connect(
            settings.url,
            autocommit=True,
            application_name="rowcast sources",
            # pg_catalog first and alone: types come out qualified, and nothing on a search path is run.
            options=f"-c statement_timeout={_TIMEOUT_S}s -c lock_timeout=5s -c search_path=pg_catalog",
            connect_timeout=10,
            tcp_user_timeout=10_000,
        )
    except psycopg.OperationalError as error:
        fault = database_fault(error, settings.url)
        where = f"database {settings.name!r}" + (f" ({settings.where})" if settings.where else "")
        told = ConfigurationError(fault.message, where=where, fix=fault.fix)
        if fault.lasting:
            raise told from error
        raise DatabaseUnavailableError(str(told)) from error


def read_catalogue(connection: psycopg.Connection[Any], tables: Sequence[str]) -> Catalogue:
    """The catalogue's entries of *tables* (``schema.table``, or patterns); tables that do not exist are left out."""
    patterns = [TenantPattern.read(name) for name in tables if is_pattern(name)]
    asked = {
        "tables": list(tables),
        "schemas": [each.schema_expression for each in patterns],
        "names": [each.table for each in patterns],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        server = cursor.execute(_SERVER).fetchone()
        assert server is not None, "one row"
        relations = cursor.execute(_RELATIONS, asked).fetchall()
        columns: dict[int, list[Column]] = {}
        for row in cursor.execute(_ALL_COLUMNS, {"oids": [relation["oid"] for relation in relations]}):
            del row["number"]
            columns.setdefault(row.pop("oid"), []).append(Column(**row))
    names = TableNames(tables)
    found: dict[str, list[Table]] = {}
    for relation in relations:
        declared, tenant = names.find(relation["name"]) or (relation["name"], None)
        table = _table(relation, columns.get(relation["oid"], []))
        if tenant is not None:
            table = _anywhere(table, relation["schema"] + ".", declared.partition(".")[0] + ".")
        found.setdefault(declared, []).append(table)
    return Catalogue(**server, tables={name: _declared(name, each) for name, each in found.items()})


def _anywhere(table: Table, schema: str, declared: str) -> Table:
    """*table* with types of its tenant's schema as all tenants have them."""
    columns = tuple(replace(each, type=each.type.replace(schema, declared)) for each in table.columns)
    return replace(table, columns=columns)


def _declared(name: str, present: list[Table]) -> Table:
    if TENANT not in name:
        return present[0]
    first, *others = sorted(present, key=lambda table: table.name)
    nullable = {column.name for table in present for column in table.columns if column.nullable}
    identities = frozenset(each for table in present for each in table.leaf_identities)
    return replace(
        first,
        name=name,
        columns=tuple(replace(each, nullable=each.name in nullable) for each in first.columns),
        leaf_identities=identities,
        readable=all(each.readable for each in present),
        secured=any(each.secured for each in present),
        tenants=(first, *others),
    )


def _table(relation: Mapping[str, Any], columns: list[Column]) -> Table:
    is_partition, parent = relation["is_partition"], relation["parent"]
    return Table(
        name=relation["name"],
        kind=relation["kind"],
        persistence=relation["persistence"],
        replica_identity=relation["replica_identity"],
        columns=tuple(columns),
        key=tuple(relation["key"] or ()),
        partition_of=parent if is_partition else None,
        inherits=None if is_partition else parent,
        leaf_identities=frozenset(relation["leaf_identities"] or ()),
        identity=tuple(relation["identity"] or ()),
        deferrable=relation["deferrable"] or False,
        heir=relation["heir"],
        readable=relation["readable"],
        secured=relation["secured"],
    )


_SERVER = """
SELECT current_database() AS database, current_setting('server_version_num')::int AS version,
       current_setting('wal_level') AS wal_level, current_setting('max_replication_slots')::int AS slots_max,
       pg_is_in_recovery() AS in_recovery,
       (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
       -- hosted servers grant replication by a role of this name
       OR EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'rds_replication'
                  AND pg_has_role(current_user, oid, 'member')) AS may_replicate,
       ARRAY(SELECT slot_name::text FROM pg_replication_slots ORDER BY slot_name) AS slots,
       current_setting('max_wal_senders')::int AS senders_max,
       (SELECT count(*) FROM pg_stat_replication)::int AS senders_used,
       (SELECT CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END FROM pg_roles WHERE rolname = current_user)
         AS connections_max
"""

_RELATIONS = """
SELECT c.oid, n.nspname || '.' || c.relname AS name, quote_ident(n.nspname) AS schema,
       c.relkind AS kind, c.relpersistence AS persistence,
       c.relreplident AS replica_identity, c.relispartition AS is_partition,
       (SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = c.oid LIMIT 1) AS parent,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
         WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts) AS key,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
         WHERE i.indrelid = c.oid AND i.indisreplident AND c.relreplident = 'i'
           AND k.place <= i.indnkeyatts) AS identity,
       (SELECT NOT i.indimmediate FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS deferrable,
       (SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = c.oid AND c.relkind = 'r' LIMIT 1) AS heir,
       CASE WHEN c.relkind = 'p' THEN
         (SELECT array_agg(DISTINCT l.relreplident::text) FROM pg_partition_tree(c.oid) t
            JOIN pg_class l ON l.oid = t.relid WHERE t.isleaf) END AS leaf_identities,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
       row_security_active(c.oid) AS secured
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE (n.nspname || '.' || c.relname = ANY (%(tables)s)
        OR EXISTS (SELECT FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS p (schema, name)
                    WHERE c.relname = p.name AND n.nspname ~ p.schema
                      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'))
   AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# The names of types are the same on every search path.
_TYPE_NAME = """(SELECT CASE WHEN b.typnamespace <> 'pg_catalog'::regnamespace AND pg_type_is_visible(b.oid)
                        THEN b.typnamespace::regnamespace || '.' ELSE '' END || format_type({0}, {1})
                   FROM pg_type n LEFT JOIN pg_type m ON m.oid = n.typelem AND m.typarray = n.oid
                   JOIN pg_type b ON b.oid = coalesce(m.oid, n.oid) WHERE n.oid = {0})"""


def columns_query(tables: str) -> str:
    """The query for the columns of *tables*, an expression for an array of their oids."""
    under, plain = _TYPE_NAME.format("under.type", "under.modifier"), _TYPE_NAME.format("r.type", "r.modifier")
    return _COLUMNS.replace("{tables}", tables).replace("{under}", under).replace("{plain}", plain)


_COLUMNS = """
WITH RECURSIVE resolved AS (
    SELECT a.attrelid, a.attnum, a.attname, a.attgenerated, t.oid AS type, a.atttypmod AS modifier,
           -- one that is not valid says nothing of older rows
           a.attnotnull AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conrelid = a.attrelid
             AND k.contype = 'n' AND NOT k.convalidated AND k.conkey = ARRAY[a.attnum]) AS attnotnull
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = ANY ({tables}) AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
    SELECT r.attrelid, r.attnum, r.attname, r.attgenerated, t.typbasetype, t.typtypmod, r.attnotnull OR t.typnotnull
      FROM resolved r JOIN pg_type t ON t.oid = r.type WHERE t.typtype = 'd'
)
SELECT r.attrelid AS oid, r.attnum AS number, r.attname::text AS name, NOT r.attnotnull AS nullable,
       r.attgenerated <> '' AS generated,
       coalesce(e.typtype, t.typtype) = 'e' AS enum,
       CASE WHEN under.type IS NOT NULL THEN 'domain ' || {under} || '[]'
            WHEN x.extname IS NOT NULL THEN coalesce(e.typname || '[]', t.typname)
            ELSE {plain} END AS type
  FROM resolved r JOIN pg_type t ON t.oid = r.type
  LEFT JOIN pg_type e ON e.oid = t.typelem AND t.oid = e.typarray
  LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = coalesce(e.oid, t.oid) AND d.deptype = 'e'
  LEFT JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = coalesce(e.typname, t.typname)
   AND x.extname IN ('citext', 'hstore', 'ltree')
  LEFT JOIN LATERAL (
      WITH RECURSIVE u AS (
          SELECT e.typbasetype AS type, e.typtypmod AS modifier WHERE e.typtype = 'd'
        UNION ALL
          SELECT b.typbasetype, b.typtypmod FROM u JOIN pg_type b ON b.oid = u.type WHERE b.typtype = 'd')
      SELECT u.type, u.modifier FROM u JOIN pg_type b ON b.oid = u.type WHERE b.typtype <> 'd') under ON true
 WHERE t.typtype <> 'd' ORDER BY r.attrelid, r.attnum
"""
_ALL_COLUMNS = columns_query("%(oids)s").encode()
