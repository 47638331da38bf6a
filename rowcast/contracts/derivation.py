"""
The one rule that turns a contract (the entity) into the schema of an event's whole value.

Pure and published: the same contract gives the same schema for ever. ``after`` is the entity or null;
``before`` the same properties with none required, plus the former ancestors, or null; ``ancestors`` the types
up the declared hierarchy; ``context`` one fixed shape. Local definitions (``$defs``) move to the new root, so
that ``#/$defs/…`` goes on to mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rowcast.deprecation import KEYWORD

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# What the entity says about itself as a document; all else describes its content and is kept.
_DOCUMENT_KEYWORDS = {"$schema", "$id", "$defs", "$comment", "title", "description", "x-ancestors", KEYWORD}


def derive_value_schema(entity: Mapping[str, Any], dataschema: str) -> dict[str, Any]:
    """The value schema named *dataschema* of the contract *entity*."""
    title = entity.get("title", dataschema)
    content = {name: part for name, part in entity.items() if name not in _DOCUMENT_KEYWORDS}
    ancestors = _ancestors(entity.get("x-ancestors", ()))
    former = {name: part for name, part in content.items() if name not in {"required", "minProperties"}}
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": dataschema,
        "title": f"{title}: event value",
        "description": "Derived from the contract beside this file; do not edit.",
        "type": "object",
        "required": ["after", "before", "ancestors", "context"],
        "properties": {
            "after": {
                **content,
                "type": ["object", "null"],
                "description": "The whole entity as of this version; null when it was deleted.",
            },
            "before": {
                **former,
                "type": ["object", "null"],
                "description": "Former values of the fields that changed since the version before; "
                "the whole last state when it was deleted; null when there was none.",
                "properties": {
                    **content["properties"],
                    "ancestors": {**ancestors, "description": "The former ancestors, when they changed."},
                },
            },
            "ancestors": ancestors,
            "context": _CONTEXT,
        },
    }
    if "$defs" in entity:
        schema["$defs"] = entity["$defs"]
    return schema


def derive_data_schema(data: Mapping[str, Any], dataschema: str) -> dict[str, Any]:
    """The schema of the values of stated events as far as the contract *data* alone tells."""
    schema: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": dataschema,
        "type": "object",
        "required": ["data"],
        "properties": {"data": {name: part for name, part in data.items() if name not in _DOCUMENT_KEYWORDS}},
    }
    if "$defs" in data:
        schema["$defs"] = data["$defs"]
    return schema


def derive_stated_schema(value: Mapping[str, Any], data: Mapping[str, Any], dataschema: str) -> dict[str, Any]:
    """
    The value schema named *dataschema* of stated events: *value*, that of the entity's events, and *data* beside it.

    The definitions of *data* get a name of their own, ``data.<name>``, so that they meet none of the entity's.
    """
    prefix = "data."
    while any(name.startswith(prefix) for name in value.get("$defs", {})):
        prefix += "."
    content = {name: part for name, part in data.items() if name not in _DOCUMENT_KEYWORDS}
    moved = {prefix + name: _moved(part, prefix) for name, part in data.get("$defs", {}).items()}
    described = data.get("description", "What was stated.")
    schema: dict[str, Any] = {
        **value,
        "$id": dataschema,
        "title": f"{value['title']}, {data.get('title', 'stated')}",
        "required": [*value["required"], "data"],
        "properties": {**value["properties"], "data": {**_moved(content, prefix), "description": described}},
    }
    if moved:
        schema["$defs"] = {**value.get("$defs", {}), **moved}
    return schema


def _moved(schema: Any, prefix: str) -> Any:
    # A keyword's value that is no schema, such as an example, may look like a reference and is none.
    if not isinstance(schema, dict):
        return schema
    moved = dict(schema)
    for keyword, part in schema.items():
        if keyword == "$ref":
            moved[keyword] = str(part).replace("#/$defs/", f"#/$defs/{prefix}", 1)
        elif keyword in {"items", "additionalProperties"}:
            moved[keyword] = _moved(part, prefix)
        elif keyword == "oneOf" and isinstance(part, list):
            moved[keyword] = [_moved(each, prefix) for each in part]
        elif keyword == "properties" and isinstance(part, dict):
            moved[keyword] = {name: _moved(each, prefix) for name, each in part.items()}
    return moved


def in_contract(pointer: str) -> str:
    """The JSON *pointer* into a derived schema as one into its contract, where it leads there."""
    # The derived schema holds the entity twice; `$defs` stand at its root.
    for part in ("/properties/after", "/properties/before", "/properties/data"):
        if pointer == part or pointer.startswith(part + "/"):
            return pointer.removeprefix(part)
    return pointer


def _ancestors(types: list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "The ids of the entity's ancestors by type, as their events carry them in ce_subject.",
        "required": list(types),
        "properties": {
            name: {
                "description": f"Ids of the {name} above; empty where the entity names none, null while unknown.",
                "type": ["array", "null"],
                "items": {"type": "string"},
            }
            for name in types
        },
    }


_CONTEXT: dict[str, Any] = {
    "type": "object",
    "description": "What the writer attached to its transaction.",
    "properties": {
        "actor": {"type": "string", "description": "Who made the change."},
        "reason": {"type": "string", "description": "Why it was made."},
        "error": {"type": "string", "description": "Why the writer's context could not be read."},
    },
}
