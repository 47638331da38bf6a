"""
Validation of event values as they are sent and received: the compiled schema, limits, and messages without values.

JSON readers differ in what they do with a name that stands twice, with NaN and with endless nesting; here all of these
are refused, so that everybody sees the same event. What is refused is told by place and rule alone: a message may go
to logs, where personal data has no business.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import orjson

from rowcast.bounded_json import LIMITS, Limits, read_bounded, refuse_depth, refuse_size
from rowcast.contracts.compatibility.document import subschemas
from rowcast.errors import ContractViolationError

__all__ = ["Limits", "ValueValidator"]

# Their messages hold names that the value has, not the schema.
_NAMING = {"additionalProperties", "unevaluatedProperties", "propertyNames"}


class ValueValidator:
    """The validator of one schema of event values; formats are asserted. Compiled once, used for many values."""

    def __init__(self, schema: Mapping[str, Any], limits: Limits | None = None) -> None:
        self._limits = limits or LIMITS
        self._compiled = jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True, mask="<value>")
        self._declared = {name for each in subschemas(dict(schema)) for name in each.get("properties", ())}

    def check(self, value: Any) -> None:
        """
        Accept *value* if its schema does.

        Raises:
            ContractViolationError: it is not valid, or no JSON; names the place and the rule.

        """
        try:
            if self._compiled.is_valid(value):
                return
            error = next(self._compiled.iter_errors(value))
        except (TypeError, ValueError, RecursionError, StopIteration):
            # The library's own words would name what it stumbled over.
            raise ContractViolationError("/: cannot be validated: no JSON, or nested too deeply") from None
        raise ContractViolationError(f"/{'/'.join(self._place(error.instance_path))}: {_reason(error)}")

    def read(self, raw: bytes) -> Any:
        """
        The value that *raw* encodes, if it is within the limits, unambiguous and valid.

        Raises:
            ContractViolationError: it is not; names the place and the rule.

        """
        try:
            value = read_bounded(raw, self._limits)
        except ValueError as error:
            raise ContractViolationError(f"/: {error}") from None
        self.check(value)
        return value

    def encode(self, value: Any) -> bytes:
        """
        *value* as the bytes of a record, names in order, if it is valid and within the limits.

        Raises:
            ContractViolationError: it is not; names the place and the rule.

        """
        self.check(value)
        try:
            raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            raise ContractViolationError("/: no JSON, or nested too deeply") from None
        try:
            refuse_size(raw, self._limits)
            refuse_depth(raw, value, self._limits)
        except ValueError as error:
            raise ContractViolationError(f"/: {error}") from None
        # The encoder writes NaN and infinity as null, and says nothing.
        if b"null" in raw and not all(map(math.isfinite, _floats(value))):
            raise ContractViolationError("/: holds a number that is not finite")
        return raw

    def _place(self, path: list[str | int]) -> Iterator[str]:
        # Names in maps are data.
        for part in path:
            yield str(part) if isinstance(part, int) or part in self._declared else "*"


def _reason(error: Any) -> str:
    if error.kind.name in _NAMING:
        return f"has a name that {error.kind.name} does not allow"
    return str(error.message)


def _floats(value: Any) -> Iterator[float]:
    level: list[Any] = [[value]]
    while level:
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        found = [child for children in inner for child in children]
        yield from (child for child in found if isinstance(child, float))
        level = [child for child in found if isinstance(child, (dict, list, tuple))]
