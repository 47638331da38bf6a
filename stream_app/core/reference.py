"""
Reference tables: small ones, kept whole, whose rows stand for the values that other rows name by key.

Every change of one is a change of all entities that were made with it: `dependents` says where to look for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from rowcast.errors import MappingError
from rowcast.identity import join_id_parts, tenant_of, with_tenant
from rowcast.sources.definition import ReferenceDefinition, SourceDefinition, TableDefinition
from rowcast.sources.field import FieldDefinition
from rowcast.sources.place import parse_place
from rowcast.sources.tenant import TENANT_COLUMN, is_pattern
from stream_app.core.array import converter
from stream_app.core.change import Columns, Operation, RowChange
from stream_app.core.column import Converter, id_part, is_unavailable, unchanged
from stream_app.core.image import Image, Reader, place_reader

# Keys that change together beyond this number: every entity that uses the table is looked at.
_KEYS_MAX = 100
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._-]+")


class Dependent(NamedTuple):
    """What row state calls rows that use a reference table, and the *place* of the key in these."""

    name: str
    place: str


@dataclass(slots=True)
class ReferenceTable:
    """One reference table with its rows, by key text; *name* is what row state calls its rows."""

    name: str
    definition: ReferenceDefinition
    needed: frozenset[str]
    converters: Mapping[str, Converter]
    value: Reader
    dependents: tuple[Dependent, ...]
    rows: dict[str, Columns] = field(default_factory=dict)

    def row_key(self, columns: Columns) -> str:
        """
        The key text of a row.

        Raises:
            MappingError: it has none.

        """
        image = self._image(columns)
        return self.key_of(image.value(self.definition.key), image)

    def key_of(self, value: Any, image: Image) -> str:
        """
        The text of a key with this *value* that a row names of which *image* is one; of the same tenant, if it has one.

        Raises:
            MappingError: it has none.

        """
        text = key_text(value)
        return with_tenant(image.value(TENANT_COLUMN), text) if self.of_tenants else text

    def forget(self, tenant: str | None) -> None:
        """All rows are gone, or those of one *tenant*."""
        self.rows = {key: row for key, row in self.rows.items() if tenant is not None and tenant_of(key) != tenant}

    @property
    def of_tenants(self) -> bool:
        """Whether each row is of one tenant, and looked up from rows of the same."""
        return is_pattern(self.definition.table)

    def complete(self, change: RowChange, row_key: str) -> dict[str, Any]:
        """The part of the row that is kept, with what an UPDATE did not touch."""
        columns = {name: value for name, value in (change.after or {}).items() if name in self.needed}
        known = self.rows.get(row_key, {})
        return {name: known.get(name) if is_unavailable(value) else value for name, value in columns.items()}

    def find(self, key: str) -> tuple[bool, Any]:
        """
        Whether there is a row with this key, and its value.

        Raises:
            MappingError: the row has no value that could be told.

        """
        columns = self.rows.get(key)
        return (False, None) if columns is None else (True, self.value(self._image(columns)))

    def _image(self, columns: Columns) -> Image:
        return Image(self.definition.table, columns, self.converters)

    def patterns(self, keys: Iterable[str], place: str) -> list[str] | None:
        """Texts of which one stands in each stored row that names one of *keys* at *place*; None: in any row."""
        column, path = parse_place(place)
        found = []
        for key in keys:
            columns = self.rows.get(key)
            if path is not None or columns is None:
                # Inside a document, or of a row that is gone: the text alone, which matches more than it has to.
                text = key.rpartition("/")[2]
                if not _PLAIN_KEY.fullmatch(text):
                    return None
                found.append(text)
            else:
                found.append(orjson.dumps({column: columns[self.definition.key]}).decode()[1:-1])
        return found if len(found) <= _KEYS_MAX else None


def key_text(value: Any) -> str:
    """The text of a key, in which equal keys are equal."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise MappingError("a key is a string or a whole number")
    return join_id_parts([id_part(value)])


def compile_references(definition: SourceDefinition) -> dict[str, ReferenceTable]:
    """The reference tables of a source by the name of the table, empty."""
    tables = {table.name: table for table in definition.tables}
    return {
        each.table: _compile(each, tables[each.table], _dependents(definition, each.name))
        for each in definition.references
    }


def _compile(
    definition: ReferenceDefinition, table: TableDefinition, dependents: tuple[Dependent, ...]
) -> ReferenceTable:
    converters = {column.name: converter(column.type) for column in table.columns}
    if is_pattern(table.name):
        converters[TENANT_COLUMN] = unchanged
    return ReferenceTable(
        name=f"references.{definition.name}",  # no aggregate type has a dot in its name
        definition=definition,
        needed=frozenset(converters),
        converters=converters,
        value=place_reader(definition.value),
        dependents=dependents,
    )


def _dependents(definition: SourceDefinition, name: str) -> tuple[Dependent, ...]:
    return tuple(
        dict.fromkeys(
            Dependent(used_in, each.place)
            for used_in, fields in _fields(definition)
            for each in fields.values()
            if each.reference == name and each.place is not None
        )
    )


def _fields(definition: SourceDefinition) -> Iterator[tuple[str, Mapping[str, FieldDefinition]]]:
    """The fields of all rows, with what row state calls these."""
    for aggregate in definition.aggregates:
        yield aggregate.name, aggregate.fields
        for path, embedded in aggregate.embeddings():
            yield ".".join((aggregate.name, *path)), embedded.fields


class Referring(NamedTuple):
    """
    Aggregates that may have to be mapped anew: of which a row has one of *patterns* in it (None: all).

    *name* is what row state calls these rows.
    """

    name: str
    patterns: list[str] | None


def referring(references: Mapping[str, ReferenceTable], rows: Iterable[RowChange]) -> list[Referring]:
    """What uses the reference rows among *rows*."""
    keys: dict[str, set[str] | None] = {}
    for row in rows:
        table = references.get(row.table)
        if table is None:
            continue
        known = keys.setdefault(row.table, set())
        if row.operation is Operation.TRUNCATE:
            keys[row.table] = None
        elif known is not None:
            known.add(table.row_key((row.before if row.operation is Operation.DELETE else row.after) or {}))
    return [
        Referring(dependent.name, None if found is None else references[name].patterns(found, dependent.place))
        for name, found in keys.items()
        for dependent in references[name].dependents
    ]
