"""
The JSON form of a column's value in events, by its PostgreSQL type; `stream_app.core.array` has those of arrays.

Input is what Debezium writes with the settings of docs/reference/settings.md (``isostring`` times, ``string``
decimals, base64 binaries). The forms are published for ever: see docs/reference/types.md.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from decimal import Decimal
from hashlib import md5
from typing import Any
from uuid import UUID

import orjson

from rowcast.errors import MappingError
from rowcast.sources.column_type import UNAVAILABLE

# What Debezium writes for a TOAST column that an UPDATE did not touch.
PLACEHOLDER = UNAVAILABLE
_PLACEHOLDER_BYTES = PLACEHOLDER.encode()
# The same for types that cannot hold the text: binary ones, arrays of uuid and of integers.
_PLACEHOLDER_BINARY = b64encode(_PLACEHOLDER_BYTES).decode()
_PLACEHOLDER_UUID = str(UUID(bytes=md5(_PLACEHOLDER_BYTES, usedforsecurity=False).digest(), version=3))
_PLACEHOLDER_NUMBERS = list(_PLACEHOLDER_BYTES)
_PLACEHOLDER_HSTORE = f'{{"{PLACEHOLDER}":"{PLACEHOLDER}"}}'
_PLACEHOLDER_TEXTS = frozenset({PLACEHOLDER, _PLACEHOLDER_BINARY, _PLACEHOLDER_HSTORE})
_PLACEHOLDER_ARRAYS: tuple[list[Any], ...] = (
    [PLACEHOLDER],
    [_PLACEHOLDER_UUID],
    [_PLACEHOLDER_BINARY],
    _PLACEHOLDER_NUMBERS,
)
# As they stand in a JSON document, by what the type of the column is or begins with; all others have the text.
_NUMBERS_IN_JSON = orjson.dumps(_PLACEHOLDER_NUMBERS)
_MARKED_OTHERWISE = {
    "bytea": _PLACEHOLDER_BINARY.encode(),
    "bytea[]": _PLACEHOLDER_BINARY.encode(),
    "uuid[]": _PLACEHOLDER_UUID.encode(),
    "integer[]": _NUMBERS_IN_JSON,
    "bigint[]": _NUMBERS_IN_JSON,
}
# Never outside their row, so never unavailable.
_INLINE = frozenset(
    {"smallint", "integer", "bigint", "real", "double precision", "boolean", "uuid", "date", "interval", "oid"}
)

# Whose values are never nested, not even by a document in them.
_FLAT = _INLINE | {
    "text",
    "character varying",
    "character",
    "numeric",
    "bytea",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
    "time with time zone",
}

Converter = Callable[[Any], Any]


def is_unavailable(value: Any) -> bool:
    """Whether *value* stands for "unchanged, and not in the WAL"."""
    kind = value.__class__
    if kind is str:
        return value in _PLACEHOLDER_TEXTS
    return kind is list and value in _PLACEHOLDER_ARRAYS


def holds_placeholder(document: bytes) -> bool:
    """
    Whether a JSON *document* may hold a value that is unavailable.

    Never False when it does, but for values of the types for which `is_marked_otherwise` is true.
    """
    return _PLACEHOLDER_BYTES in document


def is_marked_otherwise(column_type: str) -> bool:
    """Whether the placeholder of a column of this type is something else than the usual text."""
    return column_type in _MARKED_OTHERWISE or column_type in _MULTIRANGES


def placeholders(column_types: Iterable[str]) -> tuple[bytes, ...]:
    """What stands in the JSON of an entity when a value of one of these types is unavailable."""
    kinds = {_plain(each) for each in column_types} - _INLINE
    return tuple(sorted({_MARKED_OTHERWISE.get(each, _PLACEHOLDER_BYTES) for each in kinds}))


def is_flat(column_type: str) -> bool:
    """Whether values of this type, or the elements of such an array, have nothing inside them."""
    return _plain(column_type).removesuffix("[]") in _FLAT


def scalar_converter(column_type: str) -> Converter:
    """The function from Debezium's value to the event's, for the ``format_type`` name of what is no array."""
    if column_type.startswith("bit") and not column_type.startswith("bit varying"):
        return _bits(int(column_type.partition("(")[2].rstrip(")") or 1))
    return _CONVERTERS.get(_plain(column_type), unchanged)


def _plain(column_type: str) -> str:
    # "timestamp(3) without time zone" → "timestamp without time zone", "numeric(5,2)[]" → "numeric[]"
    head, bracket, rest = column_type.partition("(")
    return head + rest.partition(")")[2] if bracket else column_type


def unchanged(value: Any) -> Any:
    """The converter of types whose value is right as it is."""
    return value


# Shorter numbers always fit into 64 bits, and those with smaller exponents into a double.
# It begins with one class of characters and no alternatives, because only these are looked for quickly.
_LONG_NUMBER = re.compile(r"[0-9.](?:[0-9.]{15}|[eE][-+]?[0-9]{3})")


def exact_document(content: bytes) -> Any:
    """
    What a JSON text holds.

    Raises:
        MappingError: it is none, or a number in it cannot be kept exactly.

    """
    try:
        return _document(content.decode())
    except UnicodeDecodeError as error:
        raise MappingError(f"not a JSON document: {error}") from error


def _document(value: Any) -> Any:
    try:
        if isinstance(value, str) and _LONG_NUMBER.search(value):
            return json.loads(value, parse_int=_exact_int, parse_float=_exact_float)
        return None if value is None else orjson.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise MappingError(f"not a JSON document: {error}") from error


def _exact_int(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**64:
        raise MappingError("a number of the document has more than 64 bits")
    return number


def _exact_float(text: str) -> float:
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise MappingError("a number of the document has more digits than a double holds")
    return number


def _without_zone(value: Any) -> Any:
    # isostring mode appends "Z" to dates and to timestamps without time zone, which have none.
    if not isinstance(value, str):
        return value
    text = value[:-1] if value.endswith("Z") else value
    return text if text[:1] not in _SIGNS else infinity_or(text)


_SIGNS = frozenset({"+", "-"})
_YEAR = re.compile(r"[+-][0-9]{4,}")
# PostgreSQL's years go from 4713 BC, which is year -4712, to 5874897; the connector writes infinity as one beyond.
_YEAR_MIN, _YEAR_MAX = -4_712, 5_874_897
# Without its sign in a first snapshot.
_YEAR_MINUS_INFINITY = 292_269_055


def infinity_or(text: str) -> str:
    """A date or time whose year has a sign, as it is, unless the connector meant one of the infinities."""
    found = _YEAR.match(text)
    year = int(found[0]) if found else 0
    if year < _YEAR_MIN or year == _YEAR_MINUS_INFINITY:
        return "-infinity"
    return "infinity" if year > _YEAR_MAX else text


# By how the connector's names of them begin.
_NO_NUMBERS = {"NA": "NaN", "PO": "Infinity", "NE": "-Infinity"}


def _numeric(value: Any) -> Any:
    return None if value is None else _NO_NUMBERS.get(value[:2], value)


def _bits(length: int) -> Converter:
    def convert(value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return None if value is None else "01"[value]
        # The connector writes little-endian bytes and leaves out those that are zero.
        return format(int.from_bytes(b64decode(value), "little"), f"0{length}b")

    return convert


def _point(value: Any) -> Any:
    return None if value is None else {"x": value["x"], "y": value["y"]}


def text_of_bytes(value: Any) -> str | None:
    """The text of a value that the connector writes as bytes, because it does not know its type."""
    return None if value is None else b64decode(value).decode()


RANGES = ("int4range", "int8range", "numrange", "daterange", "tsrange", "tstzrange")
_MULTIRANGES = frozenset(each.replace("range", "multirange") for each in RANGES)
_MARKED_OTHERWISE.update(dict.fromkeys(_MULTIRANGES, _PLACEHOLDER_BYTES))

_CONVERTERS: dict[str, Converter] = {
    "json": _document,
    "jsonb": _document,
    "hstore": _document,
    "date": _without_zone,
    "timestamp without time zone": _without_zone,
    "time without time zone": _without_zone,
    "numeric": _numeric,
    "point": _point,
    **dict.fromkeys(_MULTIRANGES, text_of_bytes),
}


def id_part(value: Any) -> str:
    """The text of one id column, as identities hold it."""
    if isinstance(value, str):
        return value
    if value is None:
        raise MappingError("an id column is NULL")
    return orjson.dumps(value).decode()
