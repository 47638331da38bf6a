"""Embedded tables in source file, contract and catalogue: what is compiled, and what is refused on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rowcast.contracts.contract import Contract
from rowcast.sources.catalogue import Catalogue, Column, Table
from rowcast.sources.compilation import compile_definition
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.source_file import load_source

TEXT = """source: shop
database: shop
references:
  unit: {table: public.unit, key: id, value: name}
aggregates:
  order:
    table: public.orders
    id: id
    embedded:
      lines:
        table: public.line
        column: order_id
        order: [position]
        fields: {amount: qty, unit: {column: unit_id, reference: unit}}
        embedded:
          marks: {table: public.mark, column: line_id}
      address: {table: public.address, column: order_id, one: true}
"""
NUMBER, STRING = {"type": "integer"}, {"type": "string"}


def rows(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


ENTITY = rows(
    id=NUMBER,
    lines={"$ref": "#/$defs/lines"},
    address={**rows(city=STRING), "type": ["object", "null"]},
) | {
    "$defs": {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "line": rows(id=NUMBER, amount=NUMBER, unit=STRING, marks={"type": "array", "items": rows(id=NUMBER)}),
    }
}


def contract(entity: Any = ENTITY) -> Contract:
    path = Path("schemas/shop/order/v1.0.json")
    return Contract(path=path, domain="shop", aggregate="order", major=1, minor=0, entity=entity)


def table(table_name: str, /, **columns: str) -> Table:
    return Table(
        name=f"public.{table_name}",
        kind="r",
        persistence="p",
        replica_identity="d",
        columns=tuple(
            Column(name=each, type=kind, nullable=False, enum=False, generated=False) for each, kind in columns.items()
        ),
        key=("id",),
        partition_of=None,
        inherits=None,
        leaf_identities=frozenset(),
    )


TABLES = (
    table("orders", id="bigint", secret="text"),
    table("line", id="bigint", order_id="integer", position="integer", qty="integer", unit_id="integer", secret="text"),
    table("mark", id="bigint", line_id="bigint", tags="jsonb"),
    table("address", id="bigint", order_id="bigint", city="text"),
    table("unit", id="integer", name="text"),
)


def catalogue(*tables: Table) -> Catalogue:
    return Catalogue(
        database="shop",
        version=180_000,
        wal_level="logical",
        slots_max=10,
        in_recovery=False,
        may_replicate=True,
        tables={each.name: each for each in (*TABLES, *tables)},
    )


def compile_text(folder: Path, text: str = TEXT, *tables: Table, entity: Any = ENTITY) -> SourceDefinition:
    path = folder / "shop.yaml"
    path.write_text(text)
    return compile_definition(load_source(path), {"order": contract(entity)}, catalogue(*tables))


def faults(folder: Path, text: str, *tables: Table, entity: Any = ENTITY) -> str:
    with pytest.raises(DocumentError) as refused:
        compile_text(folder, text, *tables, entity=entity)
    return str(refused.value)


def test_embedded_tables_are_captured_with_what_is_needed_and_survive_their_json(tmp_path: Path) -> None:
    """Keys, links, order and fields of each level; nothing else of the tables."""
    definition = compile_text(tmp_path)
    assert {each.name: [column.name for column in each.columns] for each in definition.tables} == {
        "public.orders": ["id"],
        "public.line": ["id", "order_id", "position", "qty", "unit_id"],
        "public.mark": ["id", "line_id"],
        "public.address": ["id", "order_id", "city"],
        "public.unit": ["id", "name"],
    }
    order = definition.aggregates[0]
    assert list(order.fields) == ["id"]
    assert [(path, list(each.fields)) for path, each in order.embeddings()] == [
        (("lines",), ["id", "amount", "unit"]),
        (("lines", "marks"), ["id"]),
        (("address",), ["city"]),
    ]
    assert SourceDefinition.from_json(definition.to_json()) == definition


def nested(levels: int) -> str:
    """A source file with that many levels of embedded tables."""
    text = "source: shop\ndatabase: shop\naggregates:\n  order:\n    table: a.b\n    id: id\n"
    for level in range(levels):
        indent = " " * (4 + 4 * level)
        text += f"{indent}embedded:\n{indent}  x:\n{indent}    table: a.t{level}\n{indent}    column: id\n"
    return text


WRONG = {
    "another number of columns": (
        TEXT.replace("column: line_id", "column: [line_id, id]"),
        "aggregates.order.embedded.lines.embedded.marks.column: the key of public.line has 1 columns, not 2",
    ),
    "another type": (
        TEXT.replace("column: line_id", "column: tags"),
        "public.mark.tags is jsonb, public.line.id is bigint",
    ),
    "no such column": (TEXT.replace("column: line_id", "column: lines"), "public.mark has no column 'lines'"),
    "no such table": (TEXT.replace("public.mark", "public.marks"), "public.marks does not exist in database 'shop'"),
    "no order": (
        TEXT.replace("column: line_id", "column: line_id, order: tags"),
        "embedded.marks.order: rows cannot be ordered by column 'tags' of type jsonb",
    ),
    "one and order": (TEXT.replace("one: true", "one: true, order: city"), "orders a single row"),
    "a list for one": (TEXT.replace(", one: true", ""), "'address' of schemas/shop/order/v1.0.json is no list"),
    "one for a list": (
        TEXT.replace("column: line_id", "column: line_id, one: true"),
        "property 'marks' of schemas/shop/order/v1.0.json is no single object that may be null",
    ),
    "no such property": (TEXT.replace("marks:", "stamps:"), "#/properties/lines/items has no property 'stamps'"),
    "no such field": (
        TEXT.replace("amount: qty", "amounts: qty"),
        "#/properties/lines/items has no property 'amounts'",
    ),
    "nothing for a property": (
        TEXT.replace("amount: qty, ", ""),
        "v1.0.json#/properties/lines/items/properties/amount",
    ),
    "field and embedded": (
        TEXT.replace("    embedded:\n      lines", "    fields: {lines: id}\n    embedded:\n      lines"),
        "aggregates.order.embedded.lines: is a field, too",
    ),
    "the table of another": (
        TEXT.replace("public.mark", "public.address"),
        "aggregates.order.embedded.address.table: public.address belongs to aggregate 'order', embedded.lines.embedded",
    ),
    "the table of a reference": (
        TEXT.replace("public.mark", "public.unit"),
        "public.unit belongs to aggregate 'order'",
    ),
    "no such reference": (TEXT.replace("reference: unit", "reference: units"), "there is no reference 'units'"),
    "no such function": (
        TEXT.replace("amount: qty", "amount: {function: f, inputs: {}}"),
        "aggregates.order.embedded.lines.fields.amount: ",
    ),
    "too deep": (nested(6), "is nested too deeply (accepted: at most 5 levels)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told_with_field_and_fix(tmp_path: Path, case: str) -> None:
    """Each kind of mistake is refused by its dotted name, or by its place in the contract."""
    text, words = WRONG[case]
    assert text != TEXT
    assert words in faults(tmp_path, text)


def test_a_table_above_is_told_apart_by_its_primary_key(tmp_path: Path) -> None:
    """Embedded rows name the primary key; where the log tells rows apart by something else, they cannot be found."""
    above = replace(TABLES[1], replica_identity="i", identity=("position",))
    assert "ALTER TABLE public.line REPLICA IDENTITY DEFAULT" in faults(tmp_path, TEXT, above)


def test_rows_without_a_text_form_of_their_key_cannot_be_embedded(tmp_path: Path) -> None:
    """As aggregates cannot."""
    odd = table("mark", id="jsonb", line_id="bigint")
    assert "key column 'id' of type jsonb has no one text form" in faults(tmp_path, TEXT, odd)


def test_a_nullable_column_needs_a_property_that_may_be_null(tmp_path: Path) -> None:
    """As in the root table; told at the property of the row's schema."""
    columns = tuple(replace(each, nullable=each.name == "qty") for each in TABLES[1].columns)
    assert "may be NULL" in faults(tmp_path, TEXT, replace(TABLES[1], columns=columns))
