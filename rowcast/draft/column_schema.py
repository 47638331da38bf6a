"""
The property that a contract gives a column, and one value as its events would have it.

Pure. Types come from `rowcast.sources.column_type`, so that nothing is drafted that `plan` would refuse; formats are
added where the form of docs/reference/types.md has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rowcast.contracts.personal_data import UNCLASSIFIED
from rowcast.draft.listing import ListedTable
from rowcast.sources.catalogue import Column
from rowcast.sources.column_type import DOMAIN, element_types, json_types, plain_type

# What the form says beyond its JSON type, and an example of it.
_FORMS: Mapping[str, tuple[Mapping[str, Any], Any]] = {
    "numeric": ({}, "12.50"),
    "uuid": ({"format": "uuid"}, "0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1"),
    "date": ({"format": "date"}, "2026-03-02"),
    "timestamp with time zone": ({"format": "date-time"}, "2026-03-02T07:15:00.000000Z"),
    "timestamp without time zone": ({}, "2026-03-02T09:15:00"),
    "time without time zone": ({}, "09:15:00"),
    "time with time zone": ({"format": "time"}, "07:15:00Z"),
    "interval": ({}, "P0Y0M1DT2H0M0S"),
    "bytea": ({"contentEncoding": "base64"}, "AQL/"),
    "inet": ({}, "10.0.0.1"),
    "cidr": ({}, "10.0.0.0/8"),
    "macaddr": ({}, "08:00:2b:01:02:03"),
    "macaddr8": ({}, "08:00:2b:01:02:03:04:05"),
    "money": ({}, "12.50"),
    "xml": ({}, "<a/>"),
    "ltree": ({}, "a.b"),
    "tsvector": ({}, "'a':1"),
    "hstore": ({"additionalProperties": {"type": ["string", "null"]}}, {"a": "1"}),
    "int4range": ({}, "[1,5)"),
    "int8range": ({}, "[1,5)"),
    "numrange": ({}, "[1.5,2.5)"),
    "daterange": ({}, "[2026-01-01,2026-02-01)"),
    "tsrange": ({}, '["2026-01-01 00:00:00",)'),
    "tstzrange": ({}, '["2026-01-01 00:00:00+00",)'),
    "bit": ({}, "0101"),
}
_EXAMPLES = {"integer": 1, "number": 1.5, "string": "text", "boolean": True}


@dataclass(frozen=True, slots=True)
class Property:
    """A column's *schema*, and an *example* that it accepts."""

    schema: Mapping[str, Any]
    example: Any


def draft_property(column: Column, table: ListedTable, refers_to: str = "") -> Property | str:
    """The property of *column*, or why it has none. *refers_to* is the table that a foreign key names."""
    if column.name == "ancestors":
        return "the name is taken: before.ancestors holds former ancestors; rename it with `fields`"
    if column.generated:
        return "it is generated; PostgreSQL does not publish its values"
    if column.name.startswith("/"):
        return "its name would be read as a place in a document"
    if column.type == "point":
        return "write its property by hand: an object with the numbers x and y"
    content = _content(column, table)
    if content is None:
        return f"type {column.type} has no form in events"
    schema, example = content
    described = {"description": table.comments.get(column.name, "").strip() or _description(column, refers_to)}
    shown = {} if "enum" in schema or schema.get("type") == "boolean" else {"examples": [example]}
    return Property({**schema, **described, **shown, "x-pii": UNCLASSIFIED}, example)


def _description(column: Column, refers_to: str) -> str:
    return f"Column {column.name}, {column.type}" + (f"; refers to {refers_to}." if refers_to else ".")


def _content(column: Column, table: ListedTable) -> tuple[dict[str, Any], Any] | None:
    types = json_types(column)
    if types is None:
        return None
    if column.type.endswith("[]"):
        items, example = _item(column, table)
        return {"type": ["array", "null"] if column.nullable else "array", "items": items}, [example]
    if not types:  # what a document holds, its writer decides
        return {}, {"a": 1}
    labels = table.labels.get(column.name) or table.values.get(column.name)
    if labels:
        return _one_of(labels, nullable=column.nullable)
    return _form(column, types, nullable=column.nullable)


def _item(column: Column, table: ListedTable) -> tuple[dict[str, Any], Any]:
    """The items of an array, each of which may be NULL."""
    labels = table.labels.get(column.name)
    if labels:
        return _one_of(labels, nullable=True)
    types = element_types(column)
    if not types:  # what documents hold, their writers decide
        return {}, {"a": 1}
    return _form(replace(column, type=column.type.removesuffix("[]").removeprefix(DOMAIN)), types, nullable=True)


def _one_of(values: tuple[str | int, ...], *, nullable: bool) -> tuple[dict[str, Any], Any]:
    kind = "string" if isinstance(values[0], str) else "integer"
    if nullable:
        return {"type": [kind, "null"], "enum": [*values, None]}, values[0]
    return {"type": kind, "enum": list(values)}, values[0]


def _form(column: Column, types: frozenset[str], *, nullable: bool) -> tuple[dict[str, Any], Any]:
    names = sorted(types)
    further, example = _FORMS.get(plain_type(column.type), ({}, _EXAMPLES.get(names[0])))
    kinds = [*names, "null"] if nullable else names
    return {"type": kinds[0] if len(kinds) == 1 else kinds, **further}, example
