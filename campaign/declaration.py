"""Random schemas as PostgreSQL, a source file and contracts see them. Pure, but for the order of random choices."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from campaign.random_schema import Type, random_schema
from rowcast.sources.field import FieldDefinition

JSON_TYPES = {"text": "string", "integer": "integer", "boolean": "boolean", "numeric(10,2)": "string"}


def random_types(rng: random.Random, schemas: int) -> list[Type]:
    """The types of several random schemas, each with names of its own, parents first."""
    types: list[Type] = []
    for number in range(schemas):
        made: dict[str, Type] = {}
        for each in random_schema(rng):
            name = f"s{number}_{each.name}"
            parent = made[f"s{number}_{each.parent.name}"] if each.parent else None
            above = [parent.name, *parent.above] if parent else []
            made[name] = replace(each, name=name, rank=len(types) + len(made), parent=parent, above=above)
        types += made.values()
    return types


def source_file(name: str, types: Sequence[Type]) -> dict[str, Any]:
    """The source file of a source, and a database, called *name*."""
    aggregates = {each.name: _aggregate(each) for each in types}
    return {"source": name, "database": name, "topics": {"partitions": 3}, "aggregates": aggregates}


def table_statements(rng: random.Random, types: Sequence[Type]) -> list[str]:
    """What creates the tables: random replica identities, and large values out of line."""
    statements = []
    for made in types:
        columns = ", ".join(f"{name} {type_}" for name, type_ in made.columns.items())
        statements.append(f"CREATE TABLE {made.name} ({columns}, PRIMARY KEY ({', '.join(made.key)}))")
        for name, type_ in made.columns.items():
            if type_ in ("text", "jsonb") and name not in made.key:
                statements.append(f"ALTER TABLE {made.name} ALTER {name} SET STORAGE EXTERNAL")
        identity = rng.choice(["DEFAULT", "FULL", f"USING INDEX {made.name}_pkey"])
        statements.append(f"ALTER TABLE {made.name} REPLICA IDENTITY {identity}")
    return statements


def properties(made: Type) -> dict[str, dict[str, Any]]:
    """The properties of a type's contract, each a schema without description."""
    return {name: _property(made, each) for name, each in made.fields.items()}


def contract(domain: str, aggregate: str, version: str, above: Sequence[str], of: Mapping[str, Any]) -> dict[str, Any]:
    """The contract file of an aggregate type with the properties *of*, each a schema without description."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rowcast:schema:{domain}.{aggregate}:{version}:entity",
        "title": aggregate,
        "description": "For a test.",
        "x-ancestors": list(above),
        "type": "object",
        "required": list(of),
        "properties": {name: {"description": "-", "x-pii": "none", **each} for name, each in of.items()},
    }


def _aggregate(made: Type) -> dict[str, Any]:
    entry: dict[str, Any] = {"table": f"public.{made.name}", "id": list(made.key)}
    entry["fields"] = {name: _field(each) for name, each in made.fields.items()}
    if made.parent:
        entry["parent"] = {"aggregate": made.parent.name, "column": list(made.link)}
    if made.where:
        entry["where"] = {
            each.place: {"not": list(each.values)} if each.negated else list(each.values) for each in made.where
        }
    if made.soft_delete:
        entry["soft_delete"] = made.soft_delete
    return entry


def _field(declared: FieldDefinition) -> dict[str, Any]:
    if declared.place is None:
        return {"constant": declared.constant}
    told = {"column": declared.place, "cast": declared.cast, "default": declared.default}
    return {name: value for name, value in told.items() if value is not None}


def _property(made: Type, declared: FieldDefinition) -> dict[str, Any]:
    type_ = made.columns.get(declared.place or "", "text")
    if type_ == "jsonb":
        return {}
    json_type = "string" if declared.cast else JSON_TYPES[type_]
    return {"type": [json_type, "null"]}
