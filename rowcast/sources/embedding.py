"""
Embedded tables: rows that are a part of an aggregate, published inside its entity, as the source file declares them.

An order with its lines is one aggregate of two tables: `embedded` names the property, the table of its rows, and the
columns by which each names the row that it belongs to. Embedded rows may have embedded rows of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rowcast.sources.document import Section
from rowcast.sources.field import (
    ConditionDefinition,
    FieldDefinition,
    conditions_of,
    field_of,
    read_conditions,
    read_field,
    read_place,
)

_FIELDS = ("table", "column", "order", "one", "where", "soft_delete", "fields", "embedded")
_TABLE_FORM = "schema.table, such as public.order_line"
_COLUMN_FORM = "the column, or list of columns, that holds the key of the row above"
# Deep enough for any order with lines with shipments; each level costs a query for each batch.
LEVELS_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedDefinition:
    """
    The rows of *table* that stand in property *name* of the row above: a list, or with *one* a single object or null.

    *columns* hold the key of the row above, in the order of that key. *order* names the columns by which a list is
    ordered, before the table's own key. Only rows count that fulfil *where* and have nothing, or false, at
    *soft_delete*. *dropped* has the declared fields that are never published.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    order: tuple[str, ...] = ()
    one: bool = False
    fields: Mapping[str, FieldDefinition] = field(default_factory=dict)
    where: tuple[ConditionDefinition, ...] = ()
    soft_delete: str = ""
    embedded: tuple[EmbeddedDefinition, ...] = ()
    dropped: Mapping[str, FieldDefinition] = field(default_factory=dict)

    @property
    def places(self) -> tuple[str, ...]:
        """Every place of a row of the table that is read."""
        return (
            *self.columns,
            *self.order,
            *(place for each in self.fields.values() for place in each.places),
            *(each.place for each in self.where),
            *((self.soft_delete,) if self.soft_delete else ()),
        )

    def with_below(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], EmbeddedDefinition]]:
        """It and all below it, each with the properties that lead to it from below *path*."""
        path = (*path, self.name)
        yield path, self
        for each in self.embedded:
            yield from each.with_below(path)


def read_embedded(section: Section, table_name: re.Pattern[str], level: int = 1) -> tuple[EmbeddedDefinition, ...]:
    """The embedded tables that `embedded` of *section* declares."""
    entries = section.section("embedded")
    if level > LEVELS_MAX and entries.nodes:
        section.fault("embedded", "is nested too deeply", f"at most {LEVELS_MAX} levels")
        return ()
    found = []
    for name in entries:
        entry = entries.section(name, _FIELDS)
        fields = entry.section("fields")
        found.append(
            EmbeddedDefinition(
                name=name,
                table=entry.text("table", table_name, _TABLE_FORM),
                columns=entry.texts("column", _COLUMN_FORM),
                order=entry.texts("order", "a column, or a list of columns") if "order" in entry else (),
                one=entry.truth("one"),
                fields={each: read_field(fields, each) for each in fields},
                where=read_conditions(entry, "where"),
                soft_delete=read_place(entry, "soft_delete", default=""),
                embedded=read_embedded(entry, table_name, level + 1),
            )
        )
        if found[-1].one and found[-1].order:
            entry.fault("order", "orders a single row", "`one` or `order`")
    return tuple(found)


def embedded_of(entry: Mapping[str, Any]) -> EmbeddedDefinition:
    """The definition that the parsed JSON *entry* of an applied definition holds."""
    return EmbeddedDefinition(
        **{
            **entry,
            "columns": tuple(entry["columns"]),
            "order": tuple(entry["order"]),
            "fields": {name: field_of(each) for name, each in entry["fields"].items()},
            "where": conditions_of(entry["where"]),
            "embedded": tuple(embedded_of(each) for each in entry["embedded"]),
            "dropped": {name: field_of(each) for name, each in entry.get("dropped", {}).items()},
        }
    )
