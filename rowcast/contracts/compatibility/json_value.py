"""Values as JSON Schema sees them: 1 and 1.0 are one value, 1 and true are two."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

TYPES = ("null", "boolean", "number", "string", "array", "object")


def type_of(value: Any) -> str:
    """One of TYPES; integers are numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def is_integer(value: Any) -> bool:
    """A number without a fraction, however it is written."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value.is_integer())


def identity(value: Any) -> Hashable:
    """Equal for equal JSON values, and only for those."""
    if isinstance(value, bool) or value is None:
        return (type(value).__name__, value)
    if isinstance(value, (int, float)):
        return ("number", int(value) if is_integer(value) else value)
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ("array", tuple(map(identity, value)))
    return ("object", frozenset((name, identity(each)) for name, each in value.items()))
