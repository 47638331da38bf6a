"""The fields of a contract as people read them: one row each, nested ones by their path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from rowcast.contracts.contract import Contract

# Definitions within definitions; those that refer to each other would be told without end.
_DEFINITIONS_MAX = 3
_WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "object": "object"}
_BOUNDS = (
    *("pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "minItems", "maxItems", "uniqueItems", "contentEncoding"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """One field; *path* is its name below those of what holds it: ``lines[].sku``, ``names{}`` for a map's values."""

    path: str
    type: str
    required: bool
    description: str
    pii: str
    deprecated: bool
    examples: tuple[str, ...]


def field_rows(contract: Contract) -> Iterator[FieldRow]:
    """The fields of *contract* in declared order, each before those within it; what contains itself is told once."""
    yield from _rows(contract.entity, "", contract.entity.get("$defs", {}), frozenset())


def _rows(
    holder: Mapping[str, Any], above: str, definitions: Mapping[str, Any], seen: frozenset[str]
) -> Iterator[FieldRow]:
    for name, schema in holder.get("properties", {}).items():
        path = f"{above}{name}"
        yield FieldRow(
            path=path,
            type=_type(schema, definitions),
            required=name in holder.get("required", ()),
            description=str(schema.get("description", "")),
            pii=str(schema.get("x-pii", "")),
            deprecated=schema.get("deprecated") is True,
            examples=tuple(_json(each) for each in schema.get("examples", ())),
        )
        yield from _within(schema, path, definitions, seen)


def _within(
    schema: Mapping[str, Any], path: str, definitions: Mapping[str, Any], seen: frozenset[str]
) -> Iterator[FieldRow]:
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        if name not in seen and len(seen) < _DEFINITIONS_MAX:
            yield from _within(definitions.get(name, {}), path, definitions, seen | {name})
        return
    if "properties" in schema:
        yield from _rows(schema, f"{path}.", definitions, seen)
    for keyword, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(keyword), dict):
            yield from _within(schema[keyword], path + sign, definitions, seen)
    for variant in schema.get("oneOf", ()):
        yield from _within(variant, path, definitions, seen)


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        if name in seen or len(seen) == _DEFINITIONS_MAX:
            return name
        return _type(definitions.get(name, {}), definitions, seen | {name})
    if "const" in schema:
        return _json(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(_json, schema["enum"]))
    if "oneOf" in schema:
        return " or ".join(dict.fromkeys(_type(each, definitions, seen) for each in schema["oneOf"]))
    types = schema.get("type", "anything")
    words = [_word(each, schema, definitions, seen) for each in (types if isinstance(types, list) else [types])]
    notes = [f"{each} {_json(schema[each])}" for each in _BOUNDS if each in schema]
    return " or ".join(words) + (f" ({', '.join(notes)})" if notes else "")


def _word(type_: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], seen: frozenset[str]) -> str:
    if type_ == "string" and "format" in schema:
        return f"text ({schema['format']})"
    if type_ == "array":
        return f"list of {_type(schema['items'], definitions, seen)}" if "items" in schema else "list"
    if type_ == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'], definitions, seen)}"
    return _WORDS.get(type_, type_)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return ascii(value)
