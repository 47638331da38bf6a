"""
The rows of a source's database read once more, beside the change log, and compared with row state.

What differs is left in the control database for the owner of the source, see `stream_app.drift`. All rows are read in
one snapshot of the database, so that they belong together; nothing is written to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg import sql

from rowcast.errors import ConfigurationError, MappingError
from rowcast.identity import Identity, tenant_of
from rowcast.sources.catalogue import read_catalogue
from rowcast.sources.definition import TableDefinition
from rowcast.sources.row_reading import RowCondition, Rows, has_values, is_below, stream_rows
from rowcast.sources.tenant import TENANT_COLUMN, TenantPattern, is_pattern
from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.change import Columns
from stream_app.core.embedding import EmbeddedMapping
from stream_app.core.mapping import AggregateMapping, SourceMapping
from stream_app.core.reference import ReferenceTable
from stream_app.statements import OF_TENANT

_ROWS = 2_000
_KEYS = 200
_SNAPSHOT_WAIT_S = 60.0
_STAGE = "COPY rowcast.reread_row (source, generation, table_name, row_key, columns) FROM STDIN"
_KNOWN = """
SELECT row_key, columns FROM rowcast.row_state
WHERE source = %s AND table_name = %s AND row_key = ANY (%s)
"""
# Of what row state has and nothing has come since: what was not read.
_NOT_READ = f"""
FROM rowcast.row_state r WHERE r.source = %(source)s AND r.table_name = %(table)s AND r.generation < %(generation)s
AND NOT EXISTS (SELECT FROM rowcast.reread_row d WHERE d.source = r.source AND d.generation = %(generation)s
                AND d.table_name = r.table_name AND d.row_key = r.row_key)
AND {OF_TENANT.format("r.row_key")}
"""
_STAGE_ABSENT = f"""
INSERT INTO rowcast.reread_row (source, generation, table_name, row_key)
SELECT r.source, %(generation)s, r.table_name, r.row_key {_NOT_READ}
"""
_ABSENT_BELOW = f"""
SELECT r.row_key, r.columns {_NOT_READ}
AND r.owner IN (SELECT row_key FROM rowcast.reread_row
                WHERE source = %(source)s AND generation = %(generation)s AND table_name = %(above)s)
"""
_ABSENT_ROOTS = f"SELECT r.row_key, r.columns {_NOT_READ} AND r.row_key = ANY (%(ids)s)"
_ABSENT_HOLDERS = f"SELECT r.row_key, r.columns {_NOT_READ} AND r.owner = ANY (%(ids)s)"
_PROCESSED = """
SELECT EXISTS (SELECT FROM rowcast.processed_transaction p CROSS JOIN unnest(p.entries) WITH ORDINALITY AS e(number, n)
               WHERE p.source = %s AND e.n %% 3 = 2 AND e.number = ANY (%s))
"""

RowKind = AggregateMapping | EmbeddedMapping | ReferenceTable


class Scope(NamedTuple):
    """
    What is read: all rows of the aggregate *types*; with *ids*, or a condition *where* on root rows as ``r``, only
    those aggregates, of one type. With *tenant* only what is this one's.
    """

    types: tuple[str, ...]
    ids: tuple[str, ...] = ()
    where: str | None = None
    tenant: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the tables are read, or of the tenant's."""
        return not self.ids and self.where is None

    @property
    def is_of_all_tenants(self) -> bool:
        """Whether all rows of all tables are read."""
        return self.is_whole and self.tenant is None


class Rereading:
    """
    One reading for *generation*, of tables of *database* into the *control* database.

    `behind` is the LSN behind which the log has all that was visible, `count` how many rows were read.
    """

    def __init__(
        self,
        mapping: SourceMapping,
        generation: int,
        database: psycopg.Connection[Any],
        control: psycopg.Connection,
    ) -> None:
        self._mapping = mapping
        self._source = mapping.definition.source
        self._generation = generation
        self._database = database
        self._control = control
        self._tables = {table.name: table for table in mapping.definition.tables}
        self._tenants: dict[str, list[str]] = {}
        self.behind = 0
        self.count = 0

    def read(self, scope: Scope) -> None:
        """
        Read what *scope* says, and stage what differs from row state.

        Raises:
            ConfigurationError: an id or a condition cannot be understood, or a row has no key.

        """
        with self._snapshot():
            self._find_tenants()
            for name in scope.types:
                root = self._mapping.by_type[name]
                for part in self._parts(root, scope):
                    self._read_type(root, part)
            if scope.is_whole:
                for reference in self._mapping.references.values():
                    if scope.tenant is None or reference.of_tenants:
                        self._read_whole(reference, scope.tenant)
        self._control.execute(
            "DELETE FROM rowcast.reread_row WHERE source = %s AND generation = %s AND columns = ''",
            (self._source, self._generation),
        )

    def _find_tenants(self) -> None:
        """Which tables there are of those of tenants, as of the snapshot."""
        names = [name for name in self._tables if is_pattern(name)]
        found = read_catalogue(self._database, names).tables if names else {}
        for name in names:
            pattern = TenantPattern.read(name)
            present = [each.name for each in found[name].present] if name in found else []
            self._tenants[name] = [tenant for each in present if (tenant := pattern.tenant_of(each)) is not None]

    def _parts(self, root: AggregateMapping, scope: Scope) -> Iterator[Scope]:
        """*scope*, or what of it each tenant has, where rows are looked for by what they hold."""
        if not is_pattern(root.table) or scope.is_whole:
            yield scope
        elif scope.ids:
            for tenant in sorted({tenant_of(each) or "" for each in scope.ids}):
                yield scope._replace(ids=tuple(each for each in scope.ids if tenant_of(each) == tenant), tenant=tenant)
        else:
            for tenant in [scope.tenant] if scope.tenant else self._tenants[root.table]:
                yield scope._replace(tenant=tenant)

    def _present(self, kind: RowKind, tenant: str | None) -> list[tuple[str | None, TableDefinition]]:
        """The tables of the database that hold rows of *kind*, each with its tenant; of one *tenant*, or of all."""
        table = self._tables[_table(kind)]
        if not is_pattern(table.name):
            return [(None, table)]
        pattern = TenantPattern.read(table.name)
        found = [each for each in self._tenants[table.name] if tenant in {None, each}]
        return [(each, replace(table, name=pattern.table_of(each))) for each in found]

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """
        The snapshot that all is read in.

        Replication may be ahead of what is visible: a transaction that the worker has seen before this generation
        began, and that waits for a synchronous standby, would look undone. Then another snapshot is taken.
        """
        deadline_s = time.monotonic() + _SNAPSHOT_WAIT_S
        try:
            while self._is_processed(self._begin()):
                self._database.rollback()
                if time.monotonic() > deadline_s:
                    raise ConfigurationError(
                        "transactions that were committed are not visible yet",
                        where=f"database of source {self._source}",
                        fix="they may wait for a synchronous standby: see synchronous_standby_names",
                    )
                time.sleep(0.2)
            yield
        finally:
            self._database.rollback()

    def _begin(self) -> list[int]:
        """Begin a transaction; the numbers of those that are under way, as the change log has them."""
        self._database.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = 0;"
            " SET LOCAL row_security = off"
        )
        # The first query takes the snapshot; what is asked for behind it is later.
        row = self._database.execute("SELECT pg_current_snapshot()::text").fetchone()
        end = self._database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None, "a function returns one row"
        assert end is not None, "a function returns one row"
        self.behind = int(end[0])
        return [int(xid) % 2**32 for xid in str(row[0]).split(":")[2].split(",") if xid]

    def _is_processed(self, xids: list[int]) -> bool:
        if not xids:
            return False
        row = self._control.execute(_PROCESSED, (self._source, xids)).fetchone()
        return row is not None and bool(row[0])

    def _read_type(self, root: AggregateMapping, scope: Scope) -> None:
        below: list[EmbeddedMapping] = [each for top in root.embedded for each in top.with_below()]
        if root.link is not None:
            below.append(root.link)
        tenant = scope.tenant
        if scope.is_whole:
            self._read_whole(root, tenant)
            for each in below:
                self._read_whole(each, tenant)
            return
        conditions: dict[str, RowCondition] = {root.name: self._condition(root, scope)}
        self._stage(root, conditions[root.name], tenant)
        if scope.ids:
            query = _ABSENT_ROOTS if root.holding is None else _ABSENT_HOLDERS
            self._stage_absent(root, query, {"ids": list(scope.ids), "tenant": tenant})
        for each in below:
            above = self._mapping.rows_of(each.above)
            # One table, because *scope* is of one tenant, or none has any; none where it was dropped.
            for _, table in self._present(above, tenant) if above.name in conditions else ():
                conditions[each.name] = is_below(each.definition.columns, table.name, above.key, conditions[above.name])
                self._stage(each, conditions[each.name], tenant)
            self._stage_absent(each, _ABSENT_BELOW, {"above": above.table, "tenant": tenant})

    def _condition(self, root: AggregateMapping, scope: Scope) -> RowCondition:
        if scope.where is not None:
            # A comment at its end does not reach the bracket.
            text = "(" + scope.where.replace("%", "%%") + "\n)"
            return sql.SQL(text), ()  # the operator's own SQL
        conditions, parameters = [], list[object]()
        for id_text in scope.ids:
            parts = Identity.from_id_text("", "", id_text).parts
            condition, values = has_values(root.definition.id, parts)
            conditions.append(condition)
            parameters += values
        return sql.SQL("({})").format(sql.SQL(" OR ").join(conditions)), parameters

    def _read_whole(self, kind: RowKind, tenant: str | None) -> None:
        self._stage(kind, None, tenant)
        self._control.execute(_STAGE_ABSENT.encode(), {**self._parameters(kind), "tenant": tenant})

    def _parameters(self, kind: RowKind) -> dict[str, object]:
        return {"source": self._source, "generation": self._generation, "table": _table(kind)}

    def _stage_absent(self, kind: RowKind, query: str, parameters: dict[str, Any]) -> None:
        """Rows that were expected in the scope and are not: gone, or moved to another aggregate."""
        found = self._control.execute(query.encode(), {**self._parameters(kind), **parameters}).fetchall()
        key = self._tables[_table(kind)].key
        for start in range(0, len(found), _KEYS):
            rows = {row_key: orjson.loads(columns) for row_key, columns in found[start : start + _KEYS]}
            conditions, values = [], list[object]()
            for columns in rows.values():
                condition, more = has_values(key, [columns.get(name) for name in key])
                conditions.append(condition)
                values += more
            moved = self._stage(kind, (sql.SQL(" OR ").join(conditions), values), parameters["tenant"])
            self._copy(kind, ((each, None) for each in rows if each not in moved))

    def _stage(self, kind: RowKind, condition: RowCondition, tenant: str | None) -> set[str]:
        """Stage what differs of the rows that fulfil *condition*, and that the others were read; the last keys."""
        read = set[str]()
        try:
            for whose, table in self._present(kind, tenant):
                for rows in stream_rows(self._database, table, condition, _ROWS):
                    images = dict(self._images(kind, rows, whose))
                    self.count += len(images)
                    self._copy(kind, self._compared(kind, images))
                    read = set(images)
        except (psycopg.DataError, psycopg.errors.SyntaxErrorOrAccessRuleViolation) as error:
            raise ConfigurationError(str(error).strip().splitlines()[0], where=f"rows of {_table(kind)}") from error
        return read

    def _images(self, kind: RowKind, rows: Rows, tenant: str | None) -> Iterator[tuple[str, Columns]]:
        shield, table = self._mapping.shield, _table(kind)
        for row in rows:
            columns = row if shield is None else shield.row(table, row)
            if tenant is not None:
                columns = {TENANT_COLUMN: tenant, **columns}
            try:
                row_key = kind.row_key(columns)
            except MappingError as error:
                raise ConfigurationError(str(error), where=f"a row of {table}") from error
            yield row_key, {name: value for name, value in columns.items() if name in kind.needed}

    def _compared(self, kind: RowKind, images: dict[str, Columns]) -> Iterator[tuple[str, bytes]]:
        rows = self._control.execute(_KNOWN, (self._source, _table(kind), list(images)))
        known = {str(row_key): str(columns) for row_key, columns in rows}
        for row_key, columns in images.items():
            former, text = known.get(row_key, ""), orjson.dumps(columns)
            same = former.encode() == text or _is_same(kind, orjson.loads(text), _loads(former))
            yield row_key, b"" if same else text

    def _copy(self, kind: RowKind, rows: Iterable[tuple[str, bytes | None]]) -> None:
        first = b"%b\t%d\t%b\t" % (copy_text(self._source), self._generation, copy_text(_table(kind)))
        lines = [
            b"%b%b\t%b\n" % (first, copy_text(row_key), NULL if columns is None else copy_text(columns))
            for row_key, columns in rows
        ]
        if lines:
            copy_lines(self._control, _STAGE, lines)


def _table(kind: RowKind) -> str:
    return kind.definition.table if isinstance(kind, ReferenceTable) else kind.table


def _loads(text: str) -> Columns:
    """What row state has; nothing where somebody has left something there that is no row."""
    try:
        columns = orjson.loads(text)
    except ValueError:
        return {}
    return columns if isinstance(columns, dict) else {}


def _is_same(kind: RowKind, found: Columns, known: Columns) -> bool:
    """Whether two rows give the same values: what SELECT shows may be written otherwise in the change log."""
    return found.keys() == known.keys() and all(
        value == known[name] or _value(kind, name, value) == _value(kind, name, known[name])
        for name, value in found.items()
    )


def _value(kind: RowKind, name: str, value: object) -> object:
    try:
        return kind.converters[name](value)
    except MappingError:
        return MappingError  # in no event, whatever it is


def tables_of(mapping: SourceMapping, scope: Scope) -> Sequence[TableDefinition]:
    """The tables that are read."""
    names = set[str]()
    for name in scope.types:
        root = mapping.by_type[name]
        names.update((root.table, *(each.table for top in root.embedded for each in top.with_below())))
        names.update([root.link.table] if root.link else ())
    if scope.is_whole:
        names.update(mapping.references)
    return [table for table in mapping.definition.tables if table.name in names]
