"""
Whether a contract's property can hold what its column gives.

Refused is what could never be accepted: each event would be refused by its schema, at night.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from rowcast.contracts.contract import Contract
from rowcast.sources.catalogue import Column, Table
from rowcast.sources.column_type import element_types, json_types


def misfits(contract: Contract, name: str, column_name: str, table: Table) -> Iterator[tuple[str, str]]:
    """Why property *name* cannot be published from column *column_name*: the message, and what would be accepted."""
    column = table.column(column_name)
    if column is None:
        message = f"property {name!r} of {contract.path} has no column {column_name!r} in {table.name}"
        yield message, f"fields: {{{name}: <column>}} in the source file, with one of {nearest(column_name, table)}"
    elif column.generated:
        message = f"column {column_name!r} of {table.name} is generated; PostgreSQL does not publish its values"
        yield message, "a stored column"
    elif json_types(column) is None:
        message = f"column {column_name!r} of {table.name} has type {column.type}, which has no form in events"
        yield message, "a type of docs/reference/types.md"
    else:
        yield from _type_misfits(contract, name, column, table)


def nearest(wanted: str, table: Table) -> str:
    """The columns of *table*, those first whose names are nearest to *wanted*."""
    names = [column.name for column in table.columns]
    return ", ".join(sorted(names, key=lambda name: -SequenceMatcher(None, wanted, name).ratio()))


def _type_misfits(contract: Contract, name: str, column: Column, table: Table) -> Iterator[tuple[str, str]]:
    what = f"property {name!r} of {contract.path}"
    schema = _resolved(contract, contract.entity["properties"][name])
    declared, possible = _types(schema), json_types(column)
    if declared is None or possible is None:
        return
    if not possible <= declared:
        message = (
            f"{what} is {_words(declared)}, but column {column.name!r} of type {column.type} gives {_words(possible)}"
        )
        yield message, "a property of that type"
    elif column.nullable and "null" not in declared:
        message = f"column {column.name!r} of {table.name} may be NULL, {what} may not"
        yield message, 'a property that allows "null", or NOT NULL on the column'
    items, elements = _types(_resolved(contract, schema.get("items"))), element_types(column)
    if "array" in declared and items is not None and elements is not None and not elements <= items:
        message = (
            f"the items of {what} are {_words(items)}, but those of column {column.name!r} of type {column.type} are"
            f" {_words(elements)}"
        )
        yield message, "items of that type"


def _resolved(contract: Contract, schema: Any) -> Mapping[str, Any]:
    """The schema that *schema* stands for, its references followed; empty when there is none."""
    definitions = contract.entity.get("$defs", {})
    for _step in range(len(definitions) + 1):  # references that lead in a circle end, too
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = definitions.get(str(schema["$ref"]).removeprefix("#/$defs/"))
    return schema if isinstance(schema, dict) else {}


def _types(schema: Mapping[str, Any]) -> set[str] | None:
    """The JSON types that a schema accepts; None when it names none."""
    declared = schema.get("type")
    if declared is None:
        return None
    types = {str(each) for each in declared} if isinstance(declared, list) else {str(declared)}
    return types | {"integer"} if "number" in types else types


def _words(types: set[str] | frozenset[str]) -> str:
    return " or ".join(sorted(types))
