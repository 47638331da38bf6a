"""
Validation of event values as they are sent and received: the compiled schema, limits, and messages without values.

JSON readers differ in what they do with a name that stands twice, with NaN and with endless nesting; here all of these
are refused, so that everybody sees the same event. What is refused is told by place and rule alone: a message may go
to logs, where personal data has no business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from rowcast.contracts.compatibility.document import subschemas
from rowcast.contracts.json_text import is_deeper, stands_once
from rowcast.errors import ContractViolationError

# Their messages hold names that the value has, not the schema.
_NAMING = {"additionalProperties", "unevaluatedProperties", "propertyNames"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a value may be: *bytes_max* encoded, nested *levels_max* deep."""

    bytes_max: int = 1_000_000
    levels_max: int = 64


class ValueValidator:
    """The validator of one schema of event values; formats are asserted. Compiled once, used for many values."""

    def __init__(self, schema: Mapping[str, Any], limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
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
        if len(raw) > self._limits.bytes_max:
            raise ContractViolationError(f"/: has {len(raw)} bytes, more than {self._limits.bytes_max}")
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ContractViolationError(f"/: no JSON at character {error.pos}") from None
        self._limit_depth(raw, value)
        # What is written back the same has no name twice; only else it has to be looked for.
        if orjson.dumps(value) != raw:
            _refuse_doubles(raw)
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
        if len(raw) > self._limits.bytes_max:
            raise ContractViolationError(f"/: has {len(raw)} bytes, more than {self._limits.bytes_max}")
        self._limit_depth(raw, value)
        # The encoder writes NaN and infinity as null, and says nothing.
        if b"null" in raw and not all(map(math.isfinite, _floats(value))):
            raise ContractViolationError("/: holds a number that is not finite")
        return raw

    def _limit_depth(self, raw: bytes, value: Any) -> None:
        levels = self._limits.levels_max
        if raw.count(b"[") + raw.count(b"{") > levels and is_deeper(value, levels):
            raise ContractViolationError(f"/: nested deeper than {levels} levels")

    def _place(self, path: list[str | int]) -> Iterator[str]:
        # Names in maps are data.
        for part in path:
            yield str(part) if isinstance(part, int) or part in self._declared else "*"


def _reason(error: Any) -> str:
    if error.kind.name in _NAMING:
        return f"has a name that {error.kind.name} does not allow"
    return str(error.message)


def _refuse_doubles(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=stands_once)
    except (ValueError, RecursionError):
        raise ContractViolationError("/: a name stands twice in one object") from None


def _floats(value: Any) -> Iterator[float]:
    level: list[Any] = [[value]]
    while level:
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        found = [child for children in inner for child in children]
        yield from (child for child in found if isinstance(child, float))
        level = [child for child in found if isinstance(child, (dict, list, tuple))]
