"""
Embedded tables, compiled: rows that stand inside the entity of an aggregate, in a declared order.

What is embedded has a name of its own in row state, ``<aggregate>.<property>…``, and each of its rows is stored with
the key of the row above as its owner: a row and the one above it may come in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rowcast.errors import MappingError
from rowcast.sources.column_type import plain_type
from rowcast.sources.definition import AggregateDefinition, TableDefinition
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.shielded_column import RowRules, embedded_rules, root_rules
from stream_app.core.change import Columns
from stream_app.core.field import Condition, condition
from stream_app.core.image import Image
from stream_app.core.row import Makers, RowMapping, row_parts
from stream_app.core.row_id import IdReader, id_reader

# Column types whose values may be numbers, although events have some of them as text.
_NUMBERS = {"smallint", "integer", "bigint", "oid", "numeric", "money", "real", "double precision"}
_SortKey = tuple[int, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedMapping(RowMapping):
    """
    One embedded table of aggregate type *aggregate*, ready to use. *above* is what row state calls the rows that it is
    embedded in, *below* what is embedded in its own; *order* has the columns that a list is ordered by.
    """

    name: str
    aggregate: str
    above: str
    definition: EmbeddedDefinition
    read_owner: IdReader
    order: tuple[tuple[str, Callable[[Any], _SortKey]], ...]
    counts: Condition | None
    below: tuple[EmbeddedMapping, ...]

    def with_below(self) -> Iterator[EmbeddedMapping]:
        """It and all below it."""
        yield self
        for each in self.below:
            yield from each.with_below()

    def owner(self, columns: Columns) -> str | None:
        """
        The key text of the row above; None where it names none.

        Raises:
            MappingError: it cannot be told.

        """
        return self.read_owner(columns)

    def standing(self, columns: Columns) -> Image | None:
        """
        The row image, when the row counts.

        Raises:
            MappingError: it cannot be told whether it does.

        """
        image = self.image(columns)
        return image if self.counts is None or self.counts(image) else None

    def sort_key(self, image: Image) -> tuple[_SortKey, ...]:
        """
        The place of a row among those of the same row above.

        Raises:
            MappingError: a value is not available.

        """
        return tuple(key(image.value(column)) for column, key in self.order)

    def object(self, columns: Columns) -> dict[str, Any]:
        """
        The object that a row gives, without what is embedded in it.

        Raises:
            MappingError: a value is missing, or cannot be what is declared.

        """
        if self.readings:
            self.check_available(columns)
        return self.entity(columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMapping(EmbeddedMapping):
    """
    A link table, each row of which binds an aggregate with one parent; it is embedded, but published in `ancestors`.

    Row state has each row twice: as *name* owned by the aggregate, and as *index* owned by the parent, with the
    aggregate's id text.
    """

    index: str
    read_parent: IdReader

    def parent(self, columns: Columns) -> str | None:
        """
        The id text of the parent that a row names; None where it names none.

        Raises:
            MappingError: it cannot be told.

        """
        return self.read_parent(columns)


def compile_embedded(
    aggregate: AggregateDefinition, tables: Mapping[str, TableDefinition], made_with: Makers
) -> tuple[EmbeddedMapping, ...]:
    """The embedded tables of an aggregate type."""
    above = aggregate.name, aggregate.name, root_rules(aggregate)
    return tuple(_compile(above, each, tables, made_with) for each in aggregate.embedded)


def compile_link(
    aggregate: AggregateDefinition, tables: Mapping[str, TableDefinition], made_with: Makers
) -> LinkMapping | None:
    """The link table to the parents of an aggregate type, if it has one."""
    parent = aggregate.parent
    if parent is None or parent.through is None:
        return None
    table, name = tables[parent.through.table], f"{aggregate.name}.ancestors"  # which no property can be called
    definition = EmbeddedDefinition(name="ancestors", table=table.name, columns=parent.through.columns)
    links = (*definition.columns, *parent.columns)
    row = row_parts(table, links, RowRules(links=links), made_with, plain=True)
    return LinkMapping(
        **row,
        name=name,
        aggregate=aggregate.name,
        above=aggregate.name,
        definition=definition,
        read_owner=id_reader(table.name, definition.columns, row["converters"]),
        order=(),
        counts=None,
        below=(),
        index=f"{name}.index",
        read_parent=id_reader(table.name, parent.columns, row["converters"]),
    )


def _compile(
    above: tuple[str, str, RowRules],
    definition: EmbeddedDefinition,
    tables: Mapping[str, TableDefinition],
    made_with: Makers,
) -> EmbeddedMapping:
    aggregate, name_above, rules_above = above
    rules = embedded_rules(rules_above, definition)
    table, name = tables[definition.table], f"{name_above}.{definition.name}"
    types = {column.name: column.type for column in table.columns}
    row = row_parts(table, definition.places, rules, made_with, plain=True)
    return EmbeddedMapping(
        **row,
        name=name,
        aggregate=aggregate,
        above=name_above,
        definition=definition,
        read_owner=id_reader(table.name, definition.columns, row["converters"]),
        order=tuple((column, _sorting(types[column])) for column in dict.fromkeys((*definition.order, *table.key))),
        counts=condition(definition.where, definition.soft_delete),
        below=tuple(_compile((aggregate, name, rules), each, tables, made_with) for each in definition.embedded),
    )


def _sorting(column_type: str) -> Callable[[Any], _SortKey]:
    """How values of a column are ordered: numbers as numbers, all else by its text in events; NULL comes last."""
    return _number_key if plain_type(column_type) in _NUMBERS else _text_key


def _number_key(value: Any) -> _SortKey:
    if value is None:
        return 2, 0
    number = Decimal(str(value))
    return (1, 0) if number.is_nan() else (0, number)  # NaN is above all numbers, as in PostgreSQL


def _text_key(value: Any) -> _SortKey:
    if isinstance(value, (list, dict)):
        raise MappingError("rows cannot be ordered by lists and objects")
    return (2, "") if value is None else (0, value)
