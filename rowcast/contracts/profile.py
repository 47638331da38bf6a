"""
The profile: the part of JSON Schema 2020-12 that contracts may use, and what Rowcast adds to it.

It keeps contracts comparable from version to version and readable to every consumer: open objects, local
references only, every field described and classified.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from rowcast.contracts.compatibility.document import escape
from rowcast.contracts.compatibility.validator import FORMATS
from rowcast.contracts.contract import Contract
from rowcast.contracts.derivation import DIALECT
from rowcast.deprecation import KEYWORD, faults
from rowcast.event import EventKind

# (JSON pointer, rule, message)
Note = tuple[str, str, str]

KEYWORDS = {
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "multipleOf",
    "additionalProperties",
    "oneOf",
    "$ref",
    "title",
    "description",
    "examples",
    "deprecated",
    "contentEncoding",
    "$comment",
}
ROOT_KEYWORDS = {"$schema", "$id", "$defs", "type", "properties", "required", "title", "description", "$comment"}
TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}
_PII = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


def check_profile(contract: Contract) -> Iterator[Note]:
    """What *contract* does outside the profile."""
    entity = contract.entity
    if entity.get("$schema") != DIALECT:
        yield "/$schema", "DIALECT", f"must be {DIALECT}"
    if entity.get("$id") != contract.entity_id:
        yield "/$id", "NAME_MISMATCH", f"must be {contract.entity_id}, as folder and file are called"
    for keyword in entity:
        if keyword not in ROOT_KEYWORDS and not keyword.startswith("x-"):
            yield (
                "/" + escape(keyword),
                "UNSUPPORTED_KEYWORD",
                f"not supported at the root: {', '.join(sorted(ROOT_KEYWORDS))}",
            )
    if KEYWORD in entity and contract.event:
        yield f"/{KEYWORD}", "DEPRECATION_INVALID", "a stated event ends with the majors of its aggregate"
    elif KEYWORD in entity:
        yield from ((f"/{KEYWORD}", "DEPRECATION_INVALID", fault) for fault in faults(entity[KEYWORD]))
    yield from _root(contract)
    yield from check_fields(entity)


def check_fields(entity: Mapping[str, Any]) -> Iterator[Note]:
    """What the fields of *entity* and its definitions do outside the profile."""
    for name, schema in entity["properties"].items():
        yield from _property(schema, f"/properties/{escape(name)}", entity)
    for name, schema in _mapping(entity.get("$defs")).items():
        yield from _schema(schema, f"/$defs/{escape(name)}", entity)


def _root(contract: Contract) -> Iterator[Note]:
    entity, properties = contract.entity, contract.entity["properties"]
    for keyword in ("title", "description"):
        if not isinstance(entity.get(keyword), str):
            yield "", "DESCRIPTION_MISSING", f"needs a {keyword}"
    if contract.event:
        yield from _stated(contract)
        return
    if "ancestors" in properties:
        yield "/properties/ancestors", "NAME_RESERVED", "the name is taken: before.ancestors holds former ancestors"
    required = {name for name in _list(entity.get("required")) if isinstance(name, str)}
    if contract.minor == 0 and required != set(properties):
        message = "must name every property: events carry all, absent values are null; what is added belongs into v{}.1"
        yield "/required", "REQUIRED", message.format(contract.major)
    elif not required <= set(properties):
        yield "/required", "REQUIRED", "names what is not a property"
    ancestors = entity.get("x-ancestors")
    names = _list(ancestors)
    if not isinstance(ancestors, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        yield "/x-ancestors", "ANCESTORS", "must list the ancestor types, nearest first; [] for none"
    elif len(set(names)) < len(names) or contract.aggregate in names:
        yield "/x-ancestors", "ANCESTORS", "names a type twice, or the aggregate itself"


def _stated(contract: Contract) -> Iterator[Note]:
    if contract.event in tuple(EventKind):
        yield "", "NAME_RESERVED", f"no stated event is called {contract.event}"
    if contract.major != 1:
        yield "", "EVENT_MAJOR", "must be v1.<minor>: readers of one topic get every event; give it another name"
    if not {str(name) for name in _list(contract.entity.get("required"))} <= set(contract.entity["properties"]):
        yield "/required", "REQUIRED", "names what is not a property"
    if "x-ancestors" in contract.entity:
        yield "/x-ancestors", "ANCESTORS", "belongs into the contract of the entity"


def _property(schema: Any, pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    yield from _schema(schema, pointer, entity)
    if not isinstance(schema, dict):
        return
    if not isinstance(schema.get("description"), str):
        yield pointer, "DESCRIPTION_MISSING", "needs a description"
    if is_leaf(schema, entity) and not (isinstance(schema.get("x-pii"), str) and _PII.fullmatch(schema["x-pii"])):
        yield pointer, "PII_MISSING", "needs x-pii: none, or the class of personal data that it holds"


def is_leaf(schema: Mapping[str, Any], entity: Mapping[str, Any]) -> bool:
    """Whether *schema* of a property holds values, not objects with fields of their own."""
    # What holds objects is classified field by field, further down.
    for _depth in range(10):
        if "$ref" in schema:
            schema = _mapping(_mapping(entity.get("$defs")).get(str(schema["$ref"]).removeprefix("#/$defs/")))
        elif "items" in schema:
            schema = _mapping(schema["items"])
        else:
            return "properties" not in schema and "oneOf" not in schema
    return False


def _schema(schema: Any, pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    if not isinstance(schema, dict):
        yield pointer, "UNSUPPORTED_KEYWORD", "must be a schema object; true and false are not supported"
        return
    for keyword in schema:
        if keyword not in KEYWORDS and not keyword.startswith("x-"):
            yield f"{pointer}/{escape(keyword)}", "UNSUPPORTED_KEYWORD", "is not part of the supported profile"
        elif keyword in _CHECKS:
            yield from _CHECKS[keyword](schema, pointer, entity)


def _format(schema: Mapping[str, Any], pointer: str, _entity: Mapping[str, Any]) -> Iterator[Note]:
    if not _among(schema["format"], FORMATS):
        yield f"{pointer}/format", "FORMAT_UNKNOWN", f"nobody would check it; known: {', '.join(sorted(FORMATS))}"


def _additional(schema: Mapping[str, Any], pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    extra = schema["additionalProperties"]
    if "properties" in schema or not isinstance(extra, dict):
        message = "only for maps: a schema, and no properties beside it; published objects stay open"
        yield f"{pointer}/additionalProperties", "CLOSED_READER", message
    yield from _schema(extra, f"{pointer}/additionalProperties", entity)


def _required(schema: Mapping[str, Any], pointer: str, _entity: Mapping[str, Any]) -> Iterator[Note]:
    properties = _mapping(schema.get("properties"))
    for name in _list(schema["required"]):
        if not _among(name, properties):
            yield f"{pointer}/required", "REQUIRED", f"names {name!r}, which is not a property"


def _properties(schema: Mapping[str, Any], pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    for name, part in _mapping(schema["properties"]).items():
        yield from _property(part, f"{pointer}/properties/{escape(name)}", entity)


def _variants(schema: Mapping[str, Any], pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    for index, part in enumerate(_list(schema["oneOf"])):
        yield from _schema(part, f"{pointer}/oneOf/{index}", entity)


def _items(schema: Mapping[str, Any], pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    yield from _schema(schema["items"], f"{pointer}/items", entity)


def _reference(schema: Mapping[str, Any], pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    name = str(schema["$ref"])
    if not name.startswith("#/$defs/") or name.removeprefix("#/$defs/") not in _mapping(entity.get("$defs")):
        yield f"{pointer}/$ref", "REFERENCE", "must point at a definition of this file: #/$defs/<name>"


def _types(schema: Mapping[str, Any], pointer: str, _entity: Mapping[str, Any]) -> Iterator[Note]:
    types = schema["type"]
    for name in types if isinstance(types, list) else (types,):
        if not _among(name, TYPES):
            yield f"{pointer}/type", "TYPE_UNKNOWN", f"{name!r} is not a type: {', '.join(sorted(TYPES))}"


_CHECKS: dict[str, Callable[[Mapping[str, Any], str, Mapping[str, Any]], Iterator[Note]]] = {
    "$ref": _reference,
    "additionalProperties": _additional,
    "format": _format,
    "items": _items,
    "oneOf": _variants,
    "properties": _properties,
    "required": _required,
    "type": _types,
}


def _among(value: Any, names: Container[str]) -> bool:
    # What stands there may be anything, also what has no hash.
    return isinstance(value, str) and value in names


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
