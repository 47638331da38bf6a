"""
From a row to JSON: the declared fields of one table's rows, compiled.

Columns that no field, id or link names are never stored, so personal data that is not declared goes nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rowcast.contracts.personal_data import Classification, Treatment
from rowcast.errors import MappingError
from rowcast.identity import join_id_parts, stands_for_itself
from rowcast.sources.definition import TableDefinition
from rowcast.sources.function_module import Function
from rowcast.sources.place import parse_place
from rowcast.sources.shielded_column import RowRules
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
from stream_app.core.field import field_reader, pruned
from stream_app.core.image import Image, Reader, place_reader
from stream_app.core.reference import ReferenceTable
from stream_app.core.shield import revealed

# A key of PostgreSQL's indexes has at most 2,704 bytes, and the text stands in two of them with other columns.
ID_TEXT_MAX = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMapping:
    """
    The rows of *table*, ready to use. *key* are the columns that tell them apart, *needed* those that row state keeps;
    *readings* has each field with its column, and its converter unless the value stays as it is. *makers* takes the
    place of *readings* where a field is not simply a column. *placeholders* stand in an entity of which a value is not
    available, unless it is made by *makers*; *seldom_whole*: a row may lack values although it does not say so.
    *shielded* are the columns that are kept as they are published, *shown* the places whose values are.
    """

    table: str
    key: tuple[str, ...]
    needed: frozenset[str]
    converters: Mapping[str, Converter]
    readings: tuple[tuple[str, str, Converter | None], ...] = ()
    makers: tuple[tuple[str, Reader], ...] = ()
    placeholders: tuple[bytes, ...] = ()
    seldom_whole: bool = False
    shielded: Mapping[str, tuple[Treatment, Converter]] = dataclasses.field(default_factory=dict)
    shown: tuple[str, ...] = ()

    def keep(self, columns: Columns) -> dict[str, Any]:
        """The part of a row image that row state keeps."""
        needed = self.needed
        return {name: value for name, value in columns.items() if name in needed}

    def row_key(self, columns: Columns) -> str:
        """
        The text of a row's primary key.

        Raises:
            MappingError: a key column is missing or NULL.

        """
        text = self.reference(columns, self.key)
        if text is None:
            raise MappingError(f"{self.table}: an id column is NULL")
        return text

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

    def reference(self, columns: Columns, names: tuple[str, ...]) -> str | None:
        """
        The id text that the columns *names* hold together; None where one of them is NULL.

        Raises:
            MappingError: one is missing or not available, or the text is too long.

        """
        if len(names) == 1:
            # What most keys are, told as quickly as can be.
            value = columns.get(names[0])
            if self.converters[names[0]] is unchanged:
                if value.__class__ is int:
                    return str(value)
                if value.__class__ is str and stands_for_itself(value) and len(value) <= ID_TEXT_MAX:
                    return value
        parts = []
        for name in names:
            value = self.converters[name](self._available(columns, name, name))
            if value is None:
                return None
            parts.append(id_part(value))
        text = join_id_parts(parts)
        if len(text) > ID_TEXT_MAX:
            raise MappingError(f"{' and '.join(names)}: the id has more than {ID_TEXT_MAX} bytes as a record key")
        return text

    def _available(self, columns: Columns, column: str, field: str) -> Any:
        try:
            value = columns[column]
        except KeyError:
            of_field = "" if field == column else f" of field {field!r}"
            raise MappingError(f"{self.table}: column {column!r}{of_field} is not in the row") from None
        if is_unavailable(value):
            raise MappingError(f"{self.table}: the value of column {column!r} is not available")
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
    read = (each.place for each in fields.values() if each.place is not None)
    plain = plain and all(each.is_plain for each in fields.values())
    columns = {name: each.place for name, each in fields.items() if each.place is not None} if plain else {}
    return {
        "table": table.name,
        "key": table.key,
        "needed": needed,
        "converters": converters,
        "readings": tuple(
            (name, column, None if convert is unchanged else convert)
            for name, column in columns.items()
            for convert in (pruned(classification.of(name), converters[column]),)
        ),
        "makers": ()
        if plain
        else tuple(
            (name, pruned(classification.of(name), field_reader(each, makers.functions, makers.references)))
            for name, each in fields.items()
        ),
        "placeholders": placeholders(types[column] for column in columns.values()),
        "seldom_whole": any(is_marked_otherwise(types[name]) for name in needed),
        "shielded": shielded,
        "shown": tuple(dict.fromkeys((*table.key, *rules.links, *read))),
    }
