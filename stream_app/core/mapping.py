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
from rowcast.event import EventForm
from rowcast.identity import join_id_parts
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
    form: EventForm

    @property
    def name(self) -> str:
        """The aggregate type."""
        return self.definition.name

    @property
    def parent_type(self) -> str | None:
        """The aggregate type of the parents, if it has one."""
        return self.ancestor_types[0] if self.ancestor_types else None

    def keep(self, columns: Columns) -> dict[str, Any]:
        """The part of a row image that row state keeps."""
        needed = self.needed
        return {name: value for name, value in columns.items() if name in needed}

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
            value = self.converters[name](self._available(columns, name, name))
            if value is None:
                return None
            parts.append(id_part(value))
        return join_id_parts(parts)

    def _available(self, columns: Columns, column: str, field: str) -> Any:
        try:
            value = columns[column]
        except KeyError:
            of_field = "" if field == column else f" of field {field!r}"
            raise MappingError(f"{self.definition.table}: column {column!r}{of_field} is not in the row") from None
        if is_unavailable(value):
            raise MappingError(f"{self.definition.table}: the value of column {column!r} is not available")
        return value

    def entity(self, columns: Columns) -> dict[str, Any]:
        """
        The entity that a row stands for: every declared field, in declared form.

        Values that are not available may stand in it as they are: see `check_available`.

        Raises:
            MappingError: a column is missing or cannot be converted.

        """
        try:
            return {
                field: columns[column] if convert is None else convert(columns[column])
                for field, column, convert in self.readings
            }
        except (KeyError, MappingError):
            self.check_available(columns)
            raise

    def check_available(self, columns: Columns) -> None:
        """
        Make sure that the row has a value for every field.

        Raises:
            MappingError: a column is missing, or its value is not available.

        """
        for field, column, _convert in self.readings:
            self._available(columns, column, field)


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
        form=EventForm(
            source=definition.source,
            source_uri=definition.uri,
            domain=definition.domain,
            aggregate=aggregate.name,
            major=aggregate.major,
            dataschema=aggregate.dataschema,
        ),
    )
