"""
Whether a contract's property can hold what its column gives.

Refused is what could never be accepted: each event would be refused by its schema, at night.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from rowcast.contracts.contract import Contract
from rowcast.contracts.personal_data import Handling
from rowcast.sources.catalogue import Column, Table
from rowcast.sources.column_type import element_types, id_family, is_lost_outside, json_types
from rowcast.sources.field import ConditionDefinition, FieldDefinition
from rowcast.sources.place import parse_place

_CAST_TYPES = {
    "text": frozenset({"string"}),
    "integer": frozenset({"integer"}),
    "number": frozenset({"number", "integer"}),
    "boolean": frozenset({"boolean"}),
    "json": frozenset[str](),
    "utc": frozenset({"string"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """The JSON *types* that a field's values can have, NULL apart (empty: any), and what gives them."""

    types: frozenset[str]
    nullable: bool
    giver: str
    column: Column | None = None


def misfits(
    named: tuple[Contract, str, FieldDefinition], known: tuple[Table, Mapping[str, tuple[Column, Column | None]]]
) -> Iterator[tuple[str, str]]:
    """
    Why a named property of a contract cannot be published from a field: the message, and what would be accepted.

    *known* is the table, and the key and value columns of the reference tables by name.
    """
    contract, name, field = named
    table, references = known
    if field.pii is Handling.DROP:
        yield from _absences(field, table)
        return
    found = [each for place in field.places for each in _place_misfits(contract, name, place, table)]
    if not found and field.reference is not None:
        found = list(_key_misfits(field, table, references))
    if not found and (field.reference is None or field.reference in references):
        found = list(_form_misfits(contract, name, _form(field, table, references), table))
    yield from found


def _absences(field: FieldDefinition, table: Table) -> Iterator[tuple[str, str]]:
    """The columns of a dropped field that do not exist: nothing would be dropped."""
    for place in field.places:
        column = parse_place(place).column
        if table.column(column) is None:
            yield f"{table.name} has no column {column!r}, so nothing is dropped", nearest(column, table)


def _key_misfits(
    field: FieldDefinition, table: Table, references: Mapping[str, tuple[Column, Column | None]]
) -> Iterator[tuple[str, str]]:
    column_name, path = parse_place(field.place or "")
    column = table.column(column_name)
    reference = field.reference or ""
    if path is None and column is not None and reference in references:
        key = references[reference][0]
        if id_family(column) != id_family(key):
            message = f"{table.name}.{column.name} is {column.type}, the key of {reference!r} is {key.type}"
            yield message, "a column of the same type"


def _place_misfits(contract: Contract, name: str, text: str, table: Table) -> Iterator[tuple[str, str]]:
    column_name, path = parse_place(text)
    column = table.column(column_name)
    if path is not None:
        yield from document_misfits(column_name, table)
    elif column is None:
        message = f"property {name!r} of {contract.path} has no column {column_name!r} in {table.name}"
        yield message, f"fields: {{{name}: <column>}} in the source file, with one of {nearest(column_name, table)}"
    elif column.generated:
        message = f"column {column_name!r} of {table.name} is generated; PostgreSQL does not publish its values"
        yield message, "a stored column"
    elif json_types(column) is None:
        message = f"column {column_name!r} of {table.name} has type {column.type}, which has no form in events"
        yield message, "a type of docs/reference/types.md"
    else:
        yield from losses(column, table)


def losses(column: Column, table: Table) -> Iterator[tuple[str, str]]:
    """Why values of *column* could be lost: the message, and what helps."""
    if is_lost_outside(column) and (table.leaf_identities or {table.replica_identity}) != {"f"}:
        message = (
            f"column {column.name!r} of {table.name} has type {column.type}: a large value that an UPDATE does not"
            " touch is not in the WAL (TOAST), and the connector fails on it"
        )
        yield message, f"ALTER TABLE {table.name} REPLICA IDENTITY FULL"


def _form(field: FieldDefinition, table: Table, references: Mapping[str, tuple[Column, Column | None]]) -> _Form:
    if field.function is not None:
        return _Form(types=frozenset(), nullable=False, giver=f"function {field.function!r}")
    if field.place is None:
        types = frozenset() if field.constant is None else frozenset({_type_of(field.constant)})
        return _Form(types=types, nullable=field.constant is None, giver="the constant")
    column_name, path = parse_place(field.place)
    column = table.column(column_name)
    assert column is not None, "the place was found"
    whole = path is None
    if field.reference is not None:
        value = references[field.reference][1]
        # Whether the key may be NULL counts as much as whether the value may.
        may_be_null = (whole and column.nullable) or value is None or value.nullable
        whole, column = value is not None, replace(value or column, nullable=may_be_null)
    types = (json_types(column) or frozenset()) if whole else frozenset[str]()
    giver = f"column {column.name!r} of type {column.type}" if whole else field.place
    if field.cast is not None:
        types, giver = _CAST_TYPES[field.cast], f"cast {field.cast!r}"
    if field.default is not None and types:
        types |= {_type_of(field.default)}
    nullable = whole and column.nullable and field.default is None
    plain = whole and field.cast is None
    if field.pii in {Handling.MASK, Handling.HASH}:
        # Of a list each item is concealed; what a document holds is not known.
        types = frozenset({"array"} if types == {"array"} else {"string"}) if types else types
        giver, plain = f"{field.pii} of {giver}", False
    return _Form(types=types, nullable=nullable, giver=giver, column=column if plain else None)


def _type_of(constant: str | float | bool) -> str:
    if isinstance(constant, bool):
        return "boolean"
    return "string" if isinstance(constant, str) else "integer" if isinstance(constant, int) else "number"


def document_misfits(column_name: str, table: Table) -> Iterator[tuple[str, str]]:
    """Why no document can be read from column *column_name*. What a document holds has no type beforehand."""
    column = table.column(column_name)
    if column is None:
        yield f"{table.name} has no column {column_name!r}", nearest(column_name, table)
    elif column.generated:
        yield f"column {column_name!r} of {table.name} is generated; PostgreSQL does not publish it", "a stored column"
    elif column.type not in {"json", "jsonb"}:
        yield f"column {column_name!r} of type {column.type} holds no JSON document", "a json or jsonb column"


def row_condition_misfits(
    where: Iterable[ConditionDefinition], soft_delete: str, table: Table
) -> Iterator[tuple[str, str, str]]:
    """Why it could never be told which rows count: the field, the message, and what would be accepted."""
    for condition in where:
        yield from ((f"where.{condition.place}", *each) for each in _condition_misfits(condition, table))
    if soft_delete:
        whatever = ConditionDefinition(place=soft_delete, values=())
        yield from (("soft_delete", *each) for each in _condition_misfits(whatever, table))


def _condition_misfits(condition: ConditionDefinition, table: Table) -> Iterator[tuple[str, str]]:
    """Why *condition* could never be fulfilled, or cannot be told."""
    column_name, path = parse_place(condition.place)
    column = table.column(column_name)
    if path is not None:
        yield from document_misfits(column_name, table)
    elif column is None:
        yield f"{table.name} has no column {column_name!r}", nearest(column_name, table)
    elif column.generated:
        yield f"column {column_name!r} of {table.name} is generated; PostgreSQL does not publish it", "a stored column"
    else:
        types = json_types(column)
        for value in condition.values:
            if types and value is not None and _type_of(value) not in types:
                message = f"column {column_name!r} of type {column.type} gives {_words(types)}, never {value!r}"
                yield message, f"a {_words(types)} as docs/reference/types.md has it"


def nearest(wanted: str, table: Table) -> str:
    """The columns of *table*, those first whose names are nearest to *wanted*."""
    names = [column.name for column in table.columns]
    return ", ".join(sorted(names, key=lambda name: -SequenceMatcher(None, wanted, name).ratio()))


def _form_misfits(contract: Contract, name: str, form: _Form, table: Table) -> Iterator[tuple[str, str]]:
    what = f"property {name!r} of {contract.path}"
    schema = resolved(contract, contract.entity["properties"][name])
    declared, column = declared_types(schema), form.column
    if declared is None:
        return
    if not form.types <= declared:
        yield f"{what} is {_words(declared)}, but {form.giver} gives {_words(form.types)}", "a property of that type"
    elif form.nullable and "null" not in declared:
        where = f"column {column.name!r} of {table.name}" if column else form.giver
        yield f"{where} may be NULL, {what} may not", 'a property that allows "null", or NOT NULL on the column'
    items, elements = declared_types(resolved(contract, schema.get("items"))), element_types(column) if column else None
    if column and "array" in declared and items is not None and elements is not None and not elements <= items:
        message = (
            f"the items of {what} are {_words(items)}, but those of column {column.name!r} of type {column.type} are"
            f" {_words(elements)}"
        )
        yield message, "items of that type"


def resolved(contract: Contract, schema: Any) -> Mapping[str, Any]:
    """The schema that *schema* stands for, its references followed; empty when there is none."""
    definitions = contract.entity.get("$defs", {})
    for _step in range(len(definitions) + 1):  # references that lead in a circle end, too
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = definitions.get(str(schema["$ref"]).removeprefix("#/$defs/"))
    return schema if isinstance(schema, dict) else {}


def declared_types(schema: Mapping[str, Any]) -> set[str] | None:
    """The JSON types that a schema accepts; None when it names none."""
    declared = schema.get("type")
    if declared is None:
        return None
    types = {str(each) for each in declared} if isinstance(declared, list) else {str(declared)}
    return types | {"integer"} if "number" in types else types


def _words(types: set[str] | frozenset[str]) -> str:
    return " or ".join(sorted(types))
