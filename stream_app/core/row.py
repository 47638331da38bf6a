"""
From a row to JSON: the declared fields of one table's rows, compiled.

Columns that no field, id or link names are never stored, so personal data that is not declared goes nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson

from rowcast.contracts.personal_data import Classification, Treatment
from rowcast.errors import MappingError
from rowcast.sources.definition import TableDefinition
from rowcast.sources.function_module import Function
from rowcast.sources.place import parse_place
from rowcast.sources.shielded_column import RowRules
from rowcast.sources.tenant import TENANT_COLUMN, is_pattern
from stream_app.core.array import converter
from stream_app.core.change import Columns
from stream_app.core.column import (
    Converter,
    is_flat,
    is_marked_otherwise,
    placeholders,
    unchanged,
)
from stream_app.core.field import field_reader, pruned
from stream_app.core.image import Image, Reader, place_reader
from stream_app.core.reference import ReferenceTable
from stream_app.core.row_id import KeyReader, available, key_reader
from stream_app.core.shield import revealed

# A field, its column, and what makes the one of the other; None: it stays as it is.
Reading = tuple[str, str, Converter | None]
# The fields that a row has; raises KeyError where a column is missing.
EntityReader = Callable[[Columns], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMapping:
    """
    The rows of *table*, ready to use. *key* are the columns that tell them apart, *row_key* gives their text, *needed*
    are those that row state keeps, *captured* the same in the order of the table; *read* takes fields from columns by
    *readings*. *makers* takes the place of *readings* where a field is not simply a column. *placeholders* stand in an
    entity of which a value is not available, unless it is made by *makers*; *seldom_whole*: a row may lack values
    although it does not say so. *deep*: values may be nested. *shielded* are the columns that are kept as they are
    published, *shown* the places whose values are.
    """

    table: str
    key: tuple[str, ...]
    row_key: KeyReader
    needed: frozenset[str]
    captured: tuple[str, ...]
    converters: Mapping[str, Converter]
    readings: tuple[Reading, ...]
    read: EntityReader
    makers: tuple[tuple[str, Reader], ...] = ()
    placeholders: tuple[bytes, ...] = ()
    seldom_whole: bool = False
    deep: bool = True
    shielded: Mapping[str, tuple[Treatment, Converter]] = dataclasses.field(default_factory=dict)
    shown: tuple[str, ...] = ()

    def keep(self, columns: Columns) -> Columns:
        """The part of a row image that row state keeps; not to be changed, because it may be the image itself."""
        if tuple(columns) == self.captured:
            return columns
        needed = self.needed
        return {name: value for name, value in columns.items() if name in needed}

    def published_part(self, columns: Columns) -> dict[str, Any]:
        """What of a row image events may hold, by place, for whoever looks at what was refused."""
        image, part = self.image(columns), dict[str, Any]()
        for place in self.shown:
            if place in columns:
                part[place] = columns[place]
            elif place.startswith("/"):
                try:
                    part[place] = place_reader(place)(image)
                except MappingError as error:
                    part[place] = f"<{error}>"
        return part

    def image(self, columns: Columns) -> Image:
        """*columns* as a row image to read places of."""
        return Image(self.table, columns, self.converters)

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
            return self.read(columns)
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
            available(self.table, columns, column, field)

    def _check_forms(self, columns: Columns) -> None:
        for _field, column, convert in self.readings:
            try:
                (convert or unchanged)(columns[column])
            except MappingError as error:
                raise MappingError(f"{self.table}: column {column!r}: {error}") from error

    def lacks(self, published: bytes) -> bool:
        """Whether an entity, of which *published* is the JSON, may have values that are not available."""
        for each in self.placeholders:  # noqa: SIM110 - asked of every event: a generator takes five times as long
            if each in published:
                return True
        return False

    def _made(self, columns: Columns) -> dict[str, Any]:
        image = self.image(columns)
        return {field: make(image) for field, make in self.makers}


@dataclass(frozen=True, slots=True)
class Makers:
    """What fields may be made with: the source's *functions* and *references*, by name."""

    functions: Mapping[str, Function]
    references: Mapping[str, ReferenceTable]


def entity_reader(readings: Sequence[Reading]) -> EntityReader:
    """What reads all fields of a row by *readings*."""
    fields = [field for field, _, _ in readings]
    if len(fields) < 2:
        # `itemgetter` gives a tuple of several only.
        return lambda columns: {
            field: columns[column] if convert is None else convert(columns[column])
            for field, column, convert in readings
        }
    names = _as_read([column for _, column, _ in readings])
    values_of = itemgetter(*names)
    alike = names == tuple(fields)
    converted = [(field, convert) for field, _, convert in readings if convert is not None]

    def read(columns: Columns) -> dict[str, Any]:
        if alike and tuple(columns) == names:
            entity = dict(columns)
        else:
            entity = dict(zip(fields, values_of(columns), strict=True))
        for field, convert in converted:
            entity[field] = convert(entity[field])
        return entity

    return read


def _as_read(names: Sequence[str]) -> tuple[str, ...]:
    """*names* as the objects that stand in row images: orjson remembers them, and what is the same is found sooner."""
    remembered = {name: name for name in orjson.loads(orjson.dumps(dict.fromkeys(names)))}
    return tuple(remembered[name] for name in names)


def row_parts(
    table: TableDefinition, places: Iterable[str], rules: RowRules, makers: Makers, plain: bool
) -> dict[str, Any]:
    """
    What a `RowMapping` is made of, for rows of *table* of which *places* are read; *rules* has the fields.

    While all is *plain* the fields are read from columns alone.
    """
    fields, classification = rules.fields, Classification(rules.entity, {})
    needed = frozenset({*table.key, *(parse_place(place).column for place in places)})
    types = {column.name: column.type for column in table.columns}
    converters = {name: converter(types[name]) for name in needed}
    shielded = {name: (each, converters[name]) for name, each in rules.shielded().items() if name in needed}
    converters.update(dict.fromkeys(shielded, revealed))
    captured = [column.name for column in table.columns if column.name in needed]
    if is_pattern(table.name):
        needed, captured = needed | {TENANT_COLUMN}, [TENANT_COLUMN, *captured]
        converters[TENANT_COLUMN] = unchanged
    read = (each.place for each in fields.values() if each.place is not None)
    plain = plain and all(each.is_plain for each in fields.values())
    columns = {name: each.place for name, each in fields.items() if each.place is not None} if plain else {}
    readings = tuple(
        (name, column, None if convert is unchanged else convert)
        for name, column in columns.items()
        for convert in (pruned(classification.of(name), converters[column]),)
    )
    return {
        "table": table.name,
        "key": table.key,
        "row_key": key_reader(table.name, table.key, converters),
        "needed": needed,
        "captured": _as_read(captured),
        "converters": converters,
        "readings": readings,
        "read": entity_reader(readings),
        "makers": ()
        if plain
        else tuple(
            (name, pruned(classification.of(name), field_reader(each, makers.functions, makers.references)))
            for name, each in fields.items()
        ),
        "placeholders": placeholders(types[column] for column in columns.values()),
        "deep": not plain or not all(is_flat(types[column]) for column in columns.values()),
        "seldom_whole": any(is_marked_otherwise(types[name]) for name in needed if name in types),
        "shielded": shielded,
        "shown": tuple(dict.fromkeys((*table.key, *rules.links, *read))),
    }
