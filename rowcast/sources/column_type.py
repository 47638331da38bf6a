"""
The forms that PostgreSQL's types take in events, as far as a contract can be checked against them.

The forms themselves are made by the worker; docs/reference/types.md is the published table of both.
"""

from __future__ import annotations

from dataclasses import replace

from rowcast.sources.catalogue import Column

_JSON_TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), frozenset({"integer"})),
    **dict.fromkeys(("real", "double precision"), frozenset({"number"})),
    "boolean": frozenset({"boolean"}),
    **dict.fromkeys(
        (
            "numeric",
            "text",
            "character varying",
            "character",
            "uuid",
            "date",
            "timestamp with time zone",
            "timestamp without time zone",
            "time without time zone",
            "time with time zone",
            "bytea",
            "interval",
            "inet",
            "cidr",
            "macaddr",
        ),
        frozenset({"string"}),
    ),
}
_ID_FAMILIES = {
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "text": "text",
    "character varying": "text",
    "uuid": "uuid",
    "date": "date",
}


def plain_type(name: str) -> str:
    """A ``format_type`` name without its modifier: ``timestamp(3) with time zone`` → ``timestamp with time zone``."""
    head, bracket, rest = name.partition("(")
    return head.rstrip() + rest.partition(")")[2] if bracket else name


def json_types(column: Column) -> frozenset[str] | None:
    """
    The JSON types that a column's values can have in events, NULL apart; None when its type has no form.

    A ``json`` column holds what the writer put there: any contract type may be right.
    """
    if column.type.endswith("[]"):
        return frozenset({"array"})
    if column.type in {"json", "jsonb"}:
        return frozenset()
    return frozenset({"string"}) if column.enum else _JSON_TYPES.get(plain_type(column.type))


def element_types(column: Column) -> frozenset[str] | None:
    """
    The JSON types that the elements of an array column can have, NULL apart.

    None: it is no array, or nothing is known of its elements, such as those of an enumeration.
    """
    if not column.type.endswith("[]"):
        return None
    return json_types(replace(column, type=column.type.removesuffix("[]"))) or None


def id_family(column: Column) -> str | None:
    """
    What a column's values look like as id text; columns of one family give equal texts for equal values.

    None: equal values may have several texts (``1.0`` and ``1.00``), so they cannot name an aggregate.
    """
    return column.type if column.enum else _ID_FAMILIES.get(plain_type(column.type))
