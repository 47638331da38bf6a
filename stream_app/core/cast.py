"""
The declared casts of field values: from one JSON form to another, exactly or not at all. Null stays null.

The casts are published for ever: see docs/reference/mapping.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson

from rowcast.errors import MappingError
from stream_app.core.column import scalar_converter
from stream_app.core.image import kind_of

Cast = Callable[[Any], Any]

_WHOLE = re.compile(r"(-?[0-9]{1,30})(?:\.0*)?")
_NUMBER = re.compile(r"-?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")
_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?")


def cast_to(name: str) -> Cast:
    """The cast called *name*, for values of any JSON form."""
    cast = _CASTS[name]
    return lambda value: None if value is None else cast(value)


def _refuse(value: Any, wanted: str) -> MappingError:
    return MappingError(f"{kind_of(value)} that is no {wanted}")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        raise _refuse(value, "text")
    return orjson.dumps(value).decode()


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    match = _WHOLE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not -(2**63) <= int(match[1]) < 2**64:
        raise _refuse(value, "whole number of 64 bits")
    return int(match[1])


def _number(value: Any) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if not (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise _refuse(value, "number")
    if _WHOLE.fullmatch(value) and "." not in value:
        return _integer(value)
    number = float(value)
    if Decimal(repr(number)) != Decimal(value):
        raise _refuse(value, "number that a double holds exactly")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    truth = _TRUTHS.get(str(value).lower()) if isinstance(value, (str, int)) else None
    if truth is None:
        raise _refuse(value, "true or false")
    return truth


def _json(value: Any) -> Any:
    return scalar_converter("json")(value) if isinstance(value, str) else value


def _utc(value: Any) -> str:
    if not (isinstance(value, str) and _TIMESTAMP.fullmatch(value)):
        raise _refuse(value, "timestamp without time zone")
    return value + "Z"


_CASTS: dict[str, Cast] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": _json,
    "utc": _utc,
}
