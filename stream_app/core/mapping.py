"""
From a row to its entity: the declared mapping of one aggregate type, compiled.

An aggregate publishes exactly the fields of its contract; columns that no field, id or parent link names are
never stored, so personal data that is not declared goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rowcast.errors import MappingError
from rowcast.identity import Identity
from rowcast.sources.definition import AggregateDefinition, SourceDefinition, TableDefinition
from stream_app.core.change import Columns
from stream_app.core.column import Converter, converter, id_part, is_unavailable, unchanged

# Raises ContractViolationError when the event's value does not satisfy the published value schema.
Validator = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateMapping:
    """
    One aggregate type, ready to use. *rank* is its place in the order parents first; *needed* the columns
    that row state keeps; *ancestor_types* the types up the hierarchy, nearest first; *readings* has each field
    with its column, and its converter unless the value stays as it is.
    """

    source: str
    definition: AggregateDefinition
    topic: str
    rank: int
    needed: frozenset[str]
    ancestor_types: tuple[str, ...]
    child_types: tuple[str, ...]
    converters: Mapping[str, Converter]
    readings: tuple[tuple[str, str, Converter | None], ...]
    validate: Validator

    @property
    def name(self) -> str:
        """The aggregate type."""
        return self.definition.name

    def keep(self, columns: Columns) -> dict[str, Any]:
        """The part of a row image that row state keeps."""
        return {name: columns[name] for name in columns if name in self.needed}

    def id_text(self, columns: Columns) -> str:
        """
        The id text of the aggregate whose root row is *columns*.

        Raises:
            MappingError: an id column is missing or NULL.

        """
        text = self._reference(columns, self.definition.id)
        if text is None:
            raise MappingError(f"{self.definition.table}: an id column is NULL")
        return text

    def parent_id_text(self, columns: Columns) -> str | None:
        """The id text of the parent that the row points at; None without parent."""
        parent = self.definition.parent
        return None if parent is None else self._reference(columns, parent.columns)

    def _reference(self, columns: Columns, names: tuple[str, ...]) -> str | None:
        parts = []
        for name in names:
            if name not in columns:
                raise MappingError(f"{self.definition.table}: column {name!r} is not in the row")
            value = columns[name]
            if is_unavailable(value):
                raise MappingError(f"{self.definition.table}: the value of column {name!r} is not available")
            value = self.converters[name](value)
            if value is None:
                return None
            parts.append(id_part(value))
        return Identity(self.source, self.name, tuple(parts)).id_text

    def entity(self, columns: Columns) -> dict[str, Any]:
        """
        The entity that a row stands for: every declared field, in declared form.

        Raises:
            MappingError: a column is missing or its value is not available.

        """
        fields = {}
        for field, column, convert in self.readings:
            if column not in columns:
                raise MappingError(f"{self.definition.table}: column {column!r} of field {field!r} is not in the row")
            value = columns[column]
            if is_unavailable(value):
                raise MappingError(f"{self.definition.table}: the value of column {column!r} is not available")
            fields[field] = value if convert is None else convert(value)
        return fields


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """All aggregate types of a source, by type and by root table, parents first."""

    definition: SourceDefinition
    by_type: Mapping[str, AggregateMapping]
    by_table: Mapping[str, AggregateMapping]
    by_rank: tuple[AggregateMapping, ...]


def compile_mapping(definition: SourceDefinition, validators: Mapping[str, Validator]) -> SourceMapping:
    """Compile *definition*; *validators* holds one for each aggregate type."""
    tables = {table.name: table for table in definition.tables}
    mappings = tuple(
        _compile(definition, rank, tables[aggregate.table], validators[aggregate.name])
        for rank, aggregate in enumerate(definition.aggregates)
    )
    return SourceMapping(
        definition,
        {each.name: each for each in mappings},
        {each.definition.table: each for each in mappings},
        mappings,
    )


def _compile(definition: SourceDefinition, rank: int, table: TableDefinition, validate: Validator) -> AggregateMapping:
    aggregate = definition.aggregates[rank]
    parent_columns = aggregate.parent.columns if aggregate.parent else ()
    needed = frozenset({*aggregate.id, *table.key, *parent_columns, *aggregate.fields.values()})
    types = {column.name: column.type for column in table.columns}
    converters = {name: converter(types[name]) for name in needed}
    return AggregateMapping(
        source=definition.source,
        definition=aggregate,
        topic=definition.topic(aggregate),
        rank=rank,
        needed=needed,
        ancestor_types=definition.ancestor_types(aggregate),
        child_types=tuple(
            each.name for each in definition.aggregates if each.parent and each.parent.aggregate == aggregate.name
        ),
        converters=converters,
        readings=tuple(
            (field, column, None if converters[column] is unchanged else converters[column])
            for field, column in aggregate.fields.items()
        ),
        validate=validate,
    )
