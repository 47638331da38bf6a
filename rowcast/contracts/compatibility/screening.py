"""
Pairs of versions that are compatible at a glance: fields were added or removed that nobody requires, nothing else.

Such a pair needs no proof of its own. With the fields that both know unchanged, the same fields required, and all
schemas of a kind that reads what it writes, each side's document satisfies every keyword of the other side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from rowcast.contracts.compatibility.document import subschemas
from rowcast.contracts.compatibility.sameness import TURNING
from rowcast.deprecation import KEYWORD

# What validation does not look at; `x-…` is neither.
WORDS = {"title", "description", "examples", "$comment", "deprecated"}
# Beside `properties` and `required`, all that leaves single properties to themselves.
_QUIET = {"$schema", "$defs", "type"}
_APART = {"properties", "required", "$id", KEYWORD, *WORDS}


@dataclass(frozen=True, slots=True)
class Outline:
    """An object schema in comparable parts: each property as text, what is required, and everything else."""

    properties: Mapping[str, bytes]
    required: frozenset[str]
    rest: bytes
    plain: bool

    def compatible(self, other: Outline) -> bool:
        """True when both surely read what the other's writer emits; False may mean unknown."""
        if not (self.plain and other.plain and self.rest == other.rest and self.required == other.required):
            return False
        if not (self.required <= self.properties.keys() and self.required <= other.properties.keys()):
            return False
        return all(other.properties.get(name, text) == text for name, text in self.properties.items())


class Screening:
    """Makes outlines; what several versions of a contract share is looked at once."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[bytes, bool]] = {}

    def outline(self, entity: Mapping[str, Any]) -> Outline:
        """The outline of *entity*, an object schema."""
        rest = {name: part for name, part in entity.items() if name not in _APART}
        text, plain = self._part(rest)
        plain = plain and all(name in _QUIET or name.startswith("x-") for name in rest)
        parts = {name: self._part(part) for name, part in entity["properties"].items()}
        plain = plain and all(each for _text, each in parts.values())
        properties = {name: part for name, (part, _plain) in parts.items()}
        return Outline(properties, frozenset(entity.get("required", ())), text, plain)

    def _part(self, schema: Any) -> tuple[bytes, bool]:
        # Its text without words, and whether single properties of it can be left to themselves.
        text = _text(schema)
        if text not in self._seen:
            self._seen[text] = _text(without_words(schema)), _plain(schema)
        return self._seen[text]


def _text(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Large integers, and halves of characters.
        return json.dumps(value, sort_keys=True).encode()


def _plain(schema: Any) -> bool:
    for each in subschemas(schema):
        # References of contracts lead to their own definitions, which are part of the rest.
        turning = TURNING & each.keys()
        if turning and (turning != {"$ref"} or not str(each["$ref"]).startswith("#/$defs/")):
            return False
        if "$id" in each or each.get("additionalProperties") is False:
            return False
    return True


def without_words(value: Any, *, names: bool = False) -> Any:
    """*value*, a schema, without what validation does not look at. *names*: its keys are names, not keywords."""
    if isinstance(value, list):
        return [without_words(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: each
        if key in ("enum", "const") and not names
        else without_words(each, names=not names and key in ("properties", "$defs"))
        for key, each in value.items()
        if names or key not in WORDS
    }
