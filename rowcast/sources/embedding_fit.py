"""Whether embedded tables can be published inside an entity, and with which fields: contract, file and catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from rowcast.contracts.checking import pointer_of
from rowcast.contracts.contract import Contract
from rowcast.sources.catalogue import Catalogue, Table
from rowcast.sources.column_type import id_family, json_types
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.field import FieldDefinition
from rowcast.sources.property_fit import declared_types, misfits, nearest, resolved, row_condition_misfits
from rowcast.sources.reference_fit import LookedUp

_SORTABLE = frozenset({"string", "integer", "number", "boolean"})
_ID_TYPES = "integer, text, varchar, uuid, date or enum columns"


class Misfit(NamedTuple):
    """What is wrong: at the dotted field *at* of the source file, or, with a *pointer*, there in the contract."""

    at: str
    message: str
    accepted: str
    pointer: str = ""


class _Level(NamedTuple):
    """What embedded tables stand in: the dotted field *at*, the *table* above, the object that holds the property."""

    at: str
    table: Table
    contract: Contract
    pointer: str


def completed(embedded: EmbeddedDefinition, contract: Contract) -> EmbeddedDefinition:
    """*embedded* with the fields of all properties that *contract*, whose entity is the row above, has for it."""
    rows = _row_contract(embedded, contract)
    if rows is None:
        return embedded
    inner = {each.name for each in embedded.embedded}
    fields = {
        name: embedded.fields.get(name) or FieldDefinition(place=name) for name in rows.properties if name not in inner
    }
    return replace(embedded, fields=fields, embedded=tuple(completed(each, rows) for each in embedded.embedded))


def embedding_misfits(
    top: tuple[str, Table, Contract],
    embedded: tuple[EmbeddedDefinition, ...],
    known: tuple[Catalogue, Mapping[str, LookedUp]],
) -> Iterator[Misfit]:
    """
    What forbids the *embedded* tables of an aggregate.

    *top* is the aggregate's dotted field, its table and its contract; *known* the catalogue and the columns of the
    reference tables.
    """
    at, table, contract = top
    yield from _misfits(_Level(at, table, contract, ""), embedded, known)


def _misfits(
    level: _Level, embedded: tuple[EmbeddedDefinition, ...], known: tuple[Catalogue, Mapping[str, LookedUp]]
) -> Iterator[Misfit]:
    if embedded and level.table.row_key != level.table.id_columns:
        message = f"{level.table.name} has a replica identity without its primary key, which embedded rows name"
        yield Misfit(level.at, message, f"ALTER TABLE {level.table.name} REPLICA IDENTITY DEFAULT")
    for each in embedded:
        at = f"{level.at}.embedded.{each.name}"
        table = known[0].tables.get(each.table)
        if table is None:
            yield Misfit(f"{at}.table", f"{each.table} does not exist in database {known[0].database!r}", "")
            continue
        yield from link_misfits(each, at, (table, level.table))
        yield from _row_misfits(each, at, table)
        rows = _row_contract(each, level.contract)
        if rows is None:
            yield _property_misfit(each, at, level)
            continue
        pointer = level.pointer + pointer_of(("properties", each.name)) + ("" if each.one else "/items")
        yield from _field_misfits((each, completed(each, level.contract)), (at, pointer), (table, rows), known[1])
        yield from _misfits(_Level(at, table, rows, pointer), each.embedded, known)


def _property_misfit(embedded: EmbeddedDefinition, at: str, level: _Level) -> Misfit:
    schema = level.contract.entity["properties"].get(embedded.name)
    if schema is None:
        message = f"{level.contract.path}{'#' + level.pointer if level.pointer else ''} has no property"
        return Misfit(at, f"{message} {embedded.name!r}", ", ".join(level.contract.properties))
    if embedded.one:
        accepted = 'a property of "type": ["object", "null"] with "properties"'
        message = f"property {embedded.name!r} of {level.contract.path} is no single object that may be null"
    else:
        accepted = 'a property of "type": "array" whose "items" are of "type": "object" with "properties"'
        message = f"property {embedded.name!r} of {level.contract.path} is no list of objects"
    return Misfit(at, message, accepted)


def _row_contract(embedded: EmbeddedDefinition, contract: Contract) -> Contract | None:
    """The contract of one row of *embedded*, as far as its fields go; None where the property can hold none."""
    schema = resolved(contract, contract.entity["properties"].get(embedded.name))
    fits = declared_types(schema) == {"object", "null"}
    if not embedded.one:
        is_list = "array" in (declared_types(schema) or ())
        schema = resolved(contract, schema.get("items"))
        fits = is_list and declared_types(schema) == {"object"}
    properties: Any = schema.get("properties")
    if not fits or not isinstance(properties, dict):
        return None
    return replace(contract, entity={**schema, "$defs": contract.entity.get("$defs", {})})


def link_misfits(embedded: EmbeddedDefinition, at: str, tables: tuple[Table, Table]) -> Iterator[Misfit]:
    """What forbids that rows of *embedded* name rows of another table: *tables* are both."""
    table, above = tables
    for name in table.row_key:
        column = table.column(name)
        if column is not None and id_family(column) is None:
            message = f"key column {name!r} of type {column.type} has no one text form that could tell rows apart"
            yield Misfit(f"{at}.table", message, _ID_TYPES)
    if len(embedded.columns) != len(above.id_columns):
        message = f"the key of {above.name} has {len(above.id_columns)} columns, not {len(embedded.columns)}"
        yield Misfit(f"{at}.column", message, "one column for each of: " + ", ".join(above.id_columns))
        return
    for name, key_name in zip(embedded.columns, above.id_columns, strict=True):
        column, key = table.column(name), above.column(key_name)
        if column is None:
            yield Misfit(f"{at}.column", f"{table.name} has no column {name!r}", nearest(name, table))
        elif key is not None and (id_family(column) is None or id_family(column) != id_family(key)):
            message = f"{table.name}.{name} is {column.type}, {above.name}.{key_name} is {key.type}"
            yield Misfit(f"{at}.column", message, "a column of the same type, so that both give one key text")


def _row_misfits(embedded: EmbeddedDefinition, at: str, table: Table) -> Iterator[Misfit]:
    for name in embedded.order:
        column = table.column(name)
        types = json_types(column) if column else None
        if column is None:
            yield Misfit(f"{at}.order", f"{table.name} has no column {name!r}", nearest(name, table))
        elif column.generated or not types or not types <= _SORTABLE:
            message = f"rows cannot be ordered by column {name!r} of type {column.type}"
            yield Misfit(f"{at}.order", message, "a stored column of numbers, text, dates or times")
    for field, message, accepted in row_condition_misfits(embedded.where, embedded.soft_delete, table):
        yield Misfit(f"{at}.{field}", message, accepted)


def _field_misfits(
    both: tuple[EmbeddedDefinition, EmbeddedDefinition],
    place: tuple[str, str],
    named: tuple[Table, Contract],
    references: Mapping[str, LookedUp],
) -> Iterator[Misfit]:
    """*both*: as declared, and with all fields; *place*: dotted field and pointer of the row's schema."""
    (declared, whole), (at, pointer), (table, rows) = both, place, named
    for name in declared.fields:
        if name not in rows.properties:
            message = f"{rows.path}#{pointer} has no property {name!r}"
            yield Misfit(f"{at}.fields.{name}", message, ", ".join(rows.properties))
    for name, field in whole.fields.items():
        for message, accepted in misfits((rows, name, field), (table, references)):
            if name in declared.fields:
                yield Misfit(f"{at}.fields.{name}", message, accepted)
            else:
                yield Misfit(at, message, accepted, pointer + pointer_of(("properties", name)))
