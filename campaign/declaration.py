"""Random schemas as PostgreSQL, a source file and contracts see them. Pure, but for the order of random choices."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from campaign.random_schema import SHORT, Type, random_schema
from rowcast.sources.field import FieldDefinition

PARTITIONS = 3
_REFUSING = 0.25
JSON_TYPES = {"text": "string", "integer": "integer", "boolean": "boolean", "numeric(10,2)": "string"}


def random_types(rng: random.Random, schemas: int) -> list[Type]:
    """The types of several random schemas, each with names of its own, parents and what is embedded in them first."""
    types: list[Type] = []
    for number in range(schemas):
        types += random_schema(rng, f"s{number}_", len(types))
    for each in filter(lambda made: made.is_aggregate, types):
        texts = [name for name, field in each.fields.items() if _is_plain_text(each, field)]
        if texts and rng.random() < _REFUSING:
            each.short = frozenset([rng.choice(texts)])
    return types


def _is_plain_text(made: Type, declared: FieldDefinition) -> bool:
    place = declared.place or ""
    return made.columns.get(place) == "text" and place not in (*made.key, *made.link)


def source_file(name: str, types: Sequence[Type]) -> dict[str, Any]:
    """The source file of a source, and a database, called *name*."""
    aggregates = {each.name: _aggregate(each) for each in types if each.is_aggregate}
    topics = {"partitions": PARTITIONS}
    # Any number may be refused, so that the source does not stop for it.
    refusals = {"stop_above": 1}
    return {"source": name, "database": name, "topics": topics, "refusals": refusals, "aggregates": aggregates}


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
    of = {name: _property(made, each) for name, each in made.fields.items()}
    of |= {each.place: _list(properties(each)) for each in made.embedded}
    return {name: {**each, "maxLength": SHORT} if name in made.short else each for name, each in of.items()}


def _list(of: Mapping[str, Any]) -> dict[str, Any]:
    described = {name: {"description": "-", "x-pii": "none", **each} for name, each in of.items()}
    return {"type": "array", "items": {"type": "object", "required": list(of), "properties": described}}


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
    entry = {**_rows_of(made), "id": list(made.key)}
    if made.parent:
        entry["parent"] = {"aggregate": made.parent.name, "column": list(made.link)}
    if made.parent and made.through:
        through = {"table": f"public.{made.through.name}", "column": list(made.through.link)}
        entry["parent"] |= {"column": list(made.through.other_link), "through": through}
    return entry


def _embedded(made: Type) -> dict[str, Any]:
    entry = {**_rows_of(made), "column": list(made.link)}
    return {**entry, "order": list(made.order)} if made.order else entry


def _rows_of(made: Type) -> dict[str, Any]:
    entry: dict[str, Any] = {"table": f"public.{made.name}"}
    entry["fields"] = {name: _field(each) for name, each in made.fields.items()}
    if made.embedded:
        entry["embedded"] = {each.place: _embedded(each) for each in made.embedded}
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
