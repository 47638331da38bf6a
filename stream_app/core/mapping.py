"""
From a row to its entity: the declared mapping of one aggregate type, compiled.

An aggregate publishes exactly the fields of its contract; columns that no field, id or parent link names are
never stored, so personal data that is not declared goes nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rowcast.errors import ConfigurationError, MappingError, StopError
from rowcast.event import EventForm
from rowcast.identity import join_id_parts
from rowcast.sources.definition import AggregateDefinition, SourceDefinition, TableDefinition
from rowcast.sources.function_module import Function, load_functions
from rowcast.sources.place import parse_place
from stream_app.core.array import converter
from stream_app.core.change import Columns
from stream_app.core.column import (
    Converter,
    id_part,
    is_marked_otherwise,
    is_unavailable,
    placeholders,
    unchanged,
)
from stream_app.core.field import Condition, condition, field_reader
from stream_app.core.image import Image, Reader, kind_of, place_reader
from stream_app.core.reference import ReferenceTable, compile_references

# Raises ContractViolationError when the event's value does not satisfy the published value schema.
Validator = Callable[[Mapping[str, Any]], None]


# A key of PostgreSQL's indexes has at most 2,704 bytes, and the text stands in two of them with other columns.
_ID_TEXT_MAX = 1_000
_KEY_TEXT_MAX = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateMapping:
    """
    One aggregate type, ready to use. *rank* is its place in the order parents first; *needed* the columns
    that row state keeps; *ancestor_types* the types up the hierarchy, nearest first; *readings* has each field
    with its column, and its converter unless the value stays as it is. *makers* takes the place of *readings* where
    a field is not simply a column. *holding* says how a row is tied to its aggregate where that is not its primary
    key, see `stream_app.core.holding`. *placeholders* stand in an entity of which a value is not available, unless it
    is made by *makers*; *seldom_whole*: a row may lack values although it does not say so.
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
    key: tuple[str, ...]
    makers: tuple[tuple[str, Reader], ...] = ()
    holding: Holding | None = None
    placeholders: tuple[bytes, ...] = ()
    seldom_whole: bool = False

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

    def row_key(self, columns: Columns) -> str:
        """
        The text of a row's primary key. It is the id of the row's aggregate unless there is a *holding*.

        Raises:
            MappingError: a key column is missing or NULL.

        """
        text = self._reference(columns, self.key)
        if text is None:
            raise MappingError(f"{self.definition.table}: an id column is NULL")
        return text

    def parent_id_text(self, columns: Columns) -> str | None:
        """
        The id text of the parent that the row points at; None without parent.

        Raises:
            MappingError: it cannot be told.

        """
        parent = self.definition.parent
        if parent is None:
            return None
        if self.holding is not None:
            return self.holding.parent_id_text(self.image(columns))
        return self._reference(columns, parent.columns)

    def image(self, columns: Columns) -> Image:
        """*columns* as a row image to read places of."""
        return Image(self.definition.table, columns, self.converters)

    def _reference(self, columns: Columns, names: tuple[str, ...]) -> str | None:
        parts = []
        for name in names:
            value = self.converters[name](self._available(columns, name, name))
            if value is None:
                return None
            parts.append(id_part(value))
        text = join_id_parts(parts)
        if len(text) > _KEY_TEXT_MAX:
            raise MappingError(f"{' and '.join(names)}: the id has more than {_KEY_TEXT_MAX} bytes as a record key")
        return text

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
            MappingError: a value is missing, or cannot be what is declared.

        """
        if self.makers:
            return self._made(columns)
        try:
            return {
                field: columns[column] if convert is None else convert(columns[column])
                for field, column, convert in self.readings
            }
        except (KeyError, MappingError):
            self.check_available(columns)
            self._check_forms(columns)
            raise

    def check_available(self, columns: Columns) -> None:
        """
        Make sure that the row has a value for every field.

        Raises:
            MappingError: a column is missing, or its value is not available.

        """
        for field, column, _convert in self.readings:
            self._available(columns, column, field)

    def _check_forms(self, columns: Columns) -> None:
        for _field, column, convert in self.readings:
            try:
                (convert or unchanged)(columns[column])
            except MappingError as error:
                raise MappingError(f"{self.definition.table}: column {column!r}: {error}") from error

    def lacks(self, published: bytes) -> bool:
        """Whether an entity, of which *published* is the JSON, may have values that are not available."""
        return any(each in published for each in self.placeholders)

    def _made(self, columns: Columns) -> dict[str, Any]:
        image = self.image(columns)
        if self.holding is not None:
            # Of which it cannot be told whether it counts, or which aggregate it is, has no entity either.
            self.holding.counts(image)
            self.holding.id_text(image)
        return {field: make(image) for field, make in self.makers}


@dataclass(frozen=True, slots=True)
class Holding:
    """
    How a row names its aggregate and the parent of that: by *id* and *parent*, readers of places in the row.

    Rows that do not fulfil *condition* name none.
    """

    id: tuple[tuple[str, Reader], ...]
    parent: tuple[tuple[str, Reader], ...]
    condition: Condition | None

    def counts(self, image: Image) -> bool:
        """
        Whether the row stands for an aggregate at all.

        Raises:
            MappingError: it cannot be told.

        """
        return self.condition is None or self.condition(image)

    def id_text(self, image: Image) -> str:
        """
        The id text of the aggregate that the row stands for.

        Raises:
            MappingError: the row has none.

        """
        text = _id_text(image, self.id)
        if text is None:
            raise MappingError(f"{' or '.join(place for place, _ in self.id)} is null or missing; it is the id")
        return text

    def parent_id_text(self, image: Image) -> str | None:
        """
        The id text of the parent; None when the row names none.

        Raises:
            MappingError: it cannot be told.

        """
        return _id_text(image, self.parent) if self.parent else None


def _id_text(image: Image, readers: tuple[tuple[str, Reader], ...]) -> str | None:
    parts = []
    for place, read in readers:
        value = read(image)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise MappingError(f"{place} is {kind_of(value)}; an id is a string or a whole number")
        parts.append(id_part(value))
    text = join_id_parts(parts)
    if len(text) > _ID_TEXT_MAX:
        raise MappingError(f"{' and '.join(place for place, _ in readers)}: the id has more than {_ID_TEXT_MAX} bytes")
    return text


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """
    All aggregate types of a source, by type and by root table, parents first.

    *held* are the types whose rows are not tied to their aggregates by primary key. *references* has the reference
    tables by table: their rows are state, filled by whoever works on the source. *tables* has the table of each type
    and of each reference table by its name in row state.
    """

    definition: SourceDefinition
    by_type: Mapping[str, AggregateMapping]
    by_table: Mapping[str, AggregateMapping]
    by_rank: tuple[AggregateMapping, ...]
    held: frozenset[str] = frozenset()
    references: Mapping[str, ReferenceTable] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, str] = dataclasses.field(default_factory=dict)


def compile_mapping(definition: SourceDefinition, validators: Mapping[str, Validator]) -> SourceMapping:
    """
    Compile *definition*; *validators* holds one for each aggregate type.

    Raises:
        StopError: the functions of the definition cannot be loaded here.

    """
    tables = {table.name: table for table in definition.tables}
    try:
        functions = load_functions(definition.functions, definition.source)
    except ConfigurationError as error:
        raise StopError(
            "FUNCTIONS_UNUSABLE", str(error), remedy="install on the worker's machine what the module imports"
        ) from error
    references = compile_references(definition)
    by_name = {each.definition.name: each for each in references.values()}
    mappings = tuple(
        _compile(definition, rank, tables[aggregate.table], (validators[aggregate.name], functions, by_name))
        for rank, aggregate in enumerate(definition.aggregates)
    )
    return SourceMapping(
        definition,
        {each.name: each for each in mappings},
        {each.definition.table: each for each in mappings},
        mappings,
        frozenset(each.name for each in mappings if each.holding is not None),
        references,
        {
            **{each.name: each.definition.table for each in mappings},
            **{each.name: table for table, each in references.items()},
        },
    )


def _compile(
    definition: SourceDefinition,
    rank: int,
    table: TableDefinition,
    made_with: tuple[Validator, Mapping[str, Function], Mapping[str, ReferenceTable]],
) -> AggregateMapping:
    validate, functions, references = made_with
    aggregate = definition.aggregates[rank]
    needed = frozenset({*table.key, *(parse_place(place).column for place in aggregate.places)})
    types = {column.name: column.type for column in table.columns}
    converters = {name: converter(types[name]) for name in needed}
    holding = _holding(aggregate, table)
    plain = holding is None and all(each.is_plain for each in aggregate.fields.values())
    columns = {name: each.place for name, each in aggregate.fields.items() if each.place is not None} if plain else {}
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
            for field, column in columns.items()
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
        key=table.key,
        makers=()
        if plain
        else tuple((name, field_reader(each, functions, references)) for name, each in aggregate.fields.items()),
        holding=holding,
        placeholders=placeholders(types[column] for column in columns.values()),
        seldom_whole=any(is_marked_otherwise(types[name]) for name in needed),
    )


def _holding(aggregate: AggregateDefinition, table: TableDefinition) -> Holding | None:
    """None where all rows count, by their primary key, and columns hold the parent's id: nothing is looked up then."""
    parent = aggregate.parent.columns if aggregate.parent else ()
    counts = condition(aggregate.where, aggregate.soft_delete)
    if counts is None and aggregate.id == table.key and all(parse_place(each).path is None for each in parent):
        return None
    return Holding(
        tuple((place, place_reader(place)) for place in aggregate.id),
        tuple((place, place_reader(place)) for place in parent),
        counts,
    )
