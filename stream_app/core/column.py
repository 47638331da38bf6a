"""
The JSON form of a column's value in events, by its PostgreSQL type.

Input is what Debezium writes with the settings of docs/reference/settings.md (``isostring`` times, ``string``
decimals, ``base64`` binaries). The forms are published for ever: see docs/reference/types.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson

from rowcast.errors import MappingError

# What Debezium writes for a TOAST column that an UPDATE did not touch; see its unavailable.value.placeholder.
PLACEHOLDER = "__debezium_unavailable_value"
# The same for arrays: one element, or a fixed value for the element types that cannot hold the text.
_PLACEHOLDER_UUID = "b68a35a7-17ad-35b3-af2a-ae46edb4545a"
_PLACEHOLDER_ARRAYS: tuple[list[Any], ...] = ([PLACEHOLDER], [_PLACEHOLDER_UUID])
_PLACEHOLDER_BYTES = PLACEHOLDER.encode()
_PLACEHOLDER_UUID_BYTES = _PLACEHOLDER_UUID.encode()

Converter = Callable[[Any], Any]


def is_unavailable(value: Any) -> bool:
    """Whether *value* stands for "unchanged, and not in the WAL"."""
    kind = value.__class__
    if kind is str:
        return bool(value == PLACEHOLDER)
    return kind is list and value in _PLACEHOLDER_ARRAYS


def holds_placeholder(document: bytes) -> bool:
    """Whether a JSON *document* may hold a value that is unavailable; never False when it does."""
    return _PLACEHOLDER_BYTES in document or _PLACEHOLDER_UUID_BYTES in document


def converter(column_type: str) -> Converter:
    """The function from Debezium's value to the event's, for a ``format_type`` name."""
    if column_type.endswith("[]"):
        element = converter(column_type[:-2])
        return lambda value: _elements(element, value)
    return _CONVERTERS.get(
        column_type.partition("(")[0].strip(), _CONVERTERS.get(_without_precision(column_type), unchanged)
    )


def _elements(element: Converter, value: Any) -> list[Any] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise MappingError("not an array")
    return [element(each) for each in value]


def _without_precision(column_type: str) -> str:
    # "timestamp(3) without time zone" → "timestamp without time zone"
    head, bracket, rest = column_type.partition("(")
    return head + rest.partition(")")[2] if bracket else column_type


def unchanged(value: Any) -> Any:
    """The converter of types whose value is right as it is."""
    return value


# Shorter numbers always fit into 64 bits.
_LONG_NUMBER = re.compile(r"[0-9.]{16,}")


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
    return value[:-1] if isinstance(value, str) and value.endswith("Z") else value


_CONVERTERS: dict[str, Converter] = {
    "json": _document,
    "jsonb": _document,
    "date": _without_zone,
    "timestamp without time zone": _without_zone,
    "time without time zone": _without_zone,
}


def id_part(value: Any) -> str:
    """The text of one id column, as identities hold it."""
    if isinstance(value, str):
        return value
    if value is None:
        raise MappingError("an id column is NULL")
    return orjson.dumps(value).decode()
