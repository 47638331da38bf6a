"""
The forms that PostgreSQL's types take in events, as far as a contract can be checked against them.

The forms themselves are made by the worker; docs/reference/types.md is the published table of both.
"""

from __future__ import annotations

import re

from rowcast.sources.catalogue import Column

# What stands in the change log for a value that an UPDATE did not touch and the WAL does not have (TOAST).
UNAVAILABLE = "__rowcast_unavailable_2f9b6c1e7d04a853__"
RANGES = ("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange")
MULTIRANGES = tuple(each.replace("range", "multirange") for each in RANGES)
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
            "macaddr8",
            '"char"',
            "name",
            "money",
            "bit",
            "xml",
            "tsvector",
            "citext",
            "ltree",
            *RANGES,
            *MULTIRANGES,
        ),
        frozenset({"string"}),
    ),
    "oid": frozenset({"integer"}),
    **dict.fromkeys(("hstore", "point"), frozenset({"object"})),
    **dict.fromkeys(("json", "jsonb"), frozenset[str]()),
}
# Of these the connector has no arrays, or none that could be read.
_SINGLE = frozenset({"interval", "money", "bit", "xml", "point", "name", "tsvector", "ltree", *MULTIRANGES})
# An array of a domain, by the type under it: the connector writes its elements as bytes of their text.
DOMAIN = "domain "
_UNDER_DOMAIN = frozenset({"smallint", "integer", "bigint", "numeric", "boolean", "uuid", "text", "character varying"})
# Arrays of which the connector says that they stand unchanged outside their row; of others it knows no way to.
_MARKED_ARRAYS = frozenset(
    {"text", "character varying", "character", "json", "jsonb", "uuid", "integer", "bigint", "bytea"}
)
# Bits of a value that always stands in its row.
_INLINE_BITS = 64
# With a declared scale, length or precision, equal values have one text; those of another declaration have others.
_ONE_TEXT = re.compile(
    r"numeric\([0-9]+,[0-9]+\)|character\([0-9]+\)|timestamp(\([0-6]\))? with(out)? time zone|boolean"
)
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
        return None if _element_types(column) is None else frozenset({"array"})
    return frozenset({"string"}) if column.enum else _JSON_TYPES.get(plain_type(column.type))


def element_types(column: Column) -> frozenset[str] | None:
    """
    The JSON types that the elements of an array column can have, NULL apart.

    None: it is no array, or any element may be right.
    """
    return (_element_types(column) or None) if column.type.endswith("[]") else None


def _element_types(column: Column) -> frozenset[str] | None:
    element = column.type.removesuffix("[]")
    if element.startswith(DOMAIN):
        element = element.removeprefix(DOMAIN)
        return _JSON_TYPES.get(element) if plain_type(element) in _UNDER_DOMAIN else None
    if column.enum:
        return frozenset({"string"})
    return None if plain_type(element) in _SINGLE else _JSON_TYPES.get(plain_type(element))


def is_lost_outside(column: Column) -> bool:
    """
    Whether a value that stands outside its row (TOAST) and did not change cannot be told from others in a change.

    Only with replica identity FULL such values are in the WAL.
    """
    if column.type.endswith("[]"):
        return column.enum or plain_type(column.type.removesuffix("[]")) not in _MARKED_ARRAYS
    return plain_type(column.type) == "bit" and int(column.type.strip("bit()") or 1) > _INLINE_BITS


def id_family(column: Column) -> str | None:
    """
    What a column's values look like as id text; columns of one family give equal texts for equal values.

    None: equal values may have several texts (``1.0`` and ``1.00``), so they cannot name an aggregate.
    """
    if column.type.endswith("[]"):
        return None
    if column.enum or _ONE_TEXT.fullmatch(column.type):
        return column.type
    return _ID_FAMILIES.get(plain_type(column.type))
