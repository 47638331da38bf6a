"""The source file: what is accepted, and that every fault is reported with line, field and accepted values."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.errors import ConfigurationError
from rowcast.sources.definition import ReferenceDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.field import FieldDefinition
from rowcast.sources.place import Place, parse_place
from rowcast.sources.source_file import FormerEntry, ParentEntry, SourceFile, load_source, load_sources

HEAD = "source: shop\ndatabase: shop\n"
ONE = "aggregates:\n  order: {table: public.orders, id: id}\n"


def write(folder: Path, text: str, name: str = "shop") -> Path:
    path = folder / "connectors" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> SourceFile:
    return load_source(write(folder, text))


def test_defaults_of_a_short_file(tmp_path: Path) -> None:
    """Everything but source, database and aggregates has a default."""
    source = load(tmp_path, HEAD + ONE)
    assert (source.domain, source.uri) == ("shop", "urn:rowcast:source:shop")
    assert (source.partitions, source.replication_factor, source.refused_share_max) == (6, 1, 0.5)
    assert source.events_window_ms == source.change_log_window_ms == 7 * 24 * 3_600_000
    (order,) = source.aggregates
    assert (order.id, order.parent, order.contract, dict(order.fields)) == (("id",), None, None, {})


def test_older_majors_stand_newest_first(tmp_path: Path) -> None:
    """Each with its version and its downcaster, whatever their order in the file."""
    source = load(
        tmp_path, HEAD + "aggregates:\n  o: {table: a.b, id: id, contract: v3.1, former: {v1.2: f, v2.0: g}}\n"
    )

    assert source.aggregates[0].former == (FormerEntry((2, 0), "g"), FormerEntry((1, 2), "f"))


def test_every_field_is_read(tmp_path: Path) -> None:
    """A file that declares everything arrives as declared, with the line of each field."""
    source = load(
        tmp_path,
        """source: shop
database: shop_main
domain: sales
uri: https://shop.example/orders
windows: {events: 48h, change_log: 100h}
topics: {partitions: 12, replication_factor: 3}
refusals: {stop_above: 0.25}
aggregates:
  line:
    table: sales.order_lines
    id: [order_id, "no"]
    parent: {aggregate: order, column: order_id}
    contract: v2.13
    fields: {amount: qty}
  order: {table: sales.orders, id: id}
""",
    )
    assert (source.database, source.domain, source.uri) == ("shop_main", "sales", "https://shop.example/orders")
    assert (source.events_window_ms, source.change_log_window_ms) == (48 * 3_600_000, 100 * 3_600_000)
    assert (source.partitions, source.replication_factor, source.refused_share_max) == (12, 3, 0.25)
    line = source.aggregates[0]
    assert line.id == ("order_id", "no")
    assert line.parent == ParentEntry("order", ("order_id",))
    assert (line.contract, dict(line.fields)) == ((2, 13), {"amount": FieldDefinition(place="qty")})
    assert source.lines["aggregates.line.fields.amount"] == 14


def test_a_document_and_places_inside_it(tmp_path: Path) -> None:
    """A text that begins with / is a JSON Pointer into the row; any other is a column."""
    entry = "{table: a.b, document: doc, id: [/doc/id, no~/x], fields: {x: /a~1b/c~0d/0}}"
    (order,) = load(tmp_path, HEAD + f"aggregates:\n  order: {entry}\n").aggregates
    assert (order.document, order.id) == ("doc", ("/doc/id", "no~/x"))
    assert order.fields["x"].place == "/a~1b/c~0d/0"
    assert parse_place(order.fields["x"].place) == Place("a/b", ("c~d", "0"))
    assert parse_place(order.id[1]) == Place("no~/x")
    assert parse_place("/doc") == Place("doc", ())


def test_fields_conditions_and_references(tmp_path: Path) -> None:
    """Every form of a field, of a condition and of a reference arrives as declared."""
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "shop.py").write_text("def label(a): return a\n")
    source = load(
        tmp_path,
        HEAD
        + """references:
  status: {table: public.status, key: id, value: /about/name}
aggregates:
  order:
    table: public.orders
    id: id
    where: {state: [open, 1, null], /doc/test: {not: true}, kind: {not: [a, b]}, price: 1.5}
    soft_delete: deleted_at
    fields:
      a: {column: x, reference: status, cast: text, default: "none"}
      b: {constant: -3}
      c: {function: label, inputs: {a: /doc/b}}
      d: {constant: null}
""",
    )
    (order,) = source.aggregates
    assert source.references == (
        ReferenceDefinition(name="status", table="public.status", key="id", value="/about/name"),
    )
    assert source.tables == ("public.orders", "public.status")
    assert source.functions == "def label(a): return a\n"
    assert order.soft_delete == "deleted_at"
    assert [(each.place, each.values, each.negated) for each in order.where] == [
        ("state", ("open", 1, None), False),
        ("/doc/test", (True,), True),
        ("kind", ("a", "b"), True),
        ("price", (1.5,), False),
    ]
    assert dict(order.fields) == {
        "a": FieldDefinition(place="x", reference="status", cast="text", default="none"),
        "b": FieldDefinition(constant=-3),
        "c": FieldDefinition(function="label", inputs={"a": "/doc/b"}),
        "d": FieldDefinition(),
    }
    assert [each.is_plain for each in order.fields.values()] == [False] * 4


def test_short_windows_need_to_be_allowed(tmp_path: Path) -> None:
    """Windows below the promised 48 hours are for tests, and say so."""
    source = load(tmp_path, HEAD + "allow_short_windows: true\nwindows: {events: 90s}\n" + ONE)
    assert source.events_window_ms == 90_000


WRONG = {
    "unknown field": (HEAD + "partitions: 3\n" + ONE, 3, "partitions", "windows, allow_short_windows, topics"),
    "unknown field below": (HEAD + "topics: {partition: 3}\n" + ONE, 3, "topics.partition", "partitions, replication"),
    "declared twice": (HEAD + "domain: a\ndomain: b\n" + ONE, 4, "domain", "twice"),
    "missing database": ("source: shop\n" + ONE, 1, "database", "is missing"),
    "name of another file": (HEAD.replace("source: shop", "source: store") + ONE, 1, "source", "accepted: shop"),
    "name with capitals": (HEAD + "domain: Shop\n" + ONE, 3, "domain", "lower-case"),
    "name too long": (HEAD + f"domain: {'a' * 49}\n" + ONE, 3, "domain", "at most 48"),
    "uri without scheme": (HEAD + "uri: shop/orders\n" + ONE, 3, "uri", "absolute URI"),
    "uri with a space": (HEAD + "uri: 'https://shop/ x'\n" + ONE, 3, "uri", "absolute URI"),
    "window too short": (HEAD + "windows: {events: 47h}\n" + ONE, 3, "windows.events", "48h or more"),
    "window without unit": (HEAD + "windows:\n  change_log: 7\n" + ONE, 4, "windows.change_log", "such as 90s"),
    "window too long": (HEAD + "windows: {events: 9999d}\n" + ONE, 3, "windows.events", "at most 3650d"),
    "no partitions": (HEAD + "topics: {partitions: 0}\n" + ONE, 3, "topics.partitions", "from 1 to 1000"),
    "partitions as text": (HEAD + "topics: {partitions: '3'}\n" + ONE, 3, "topics.partitions", "from 1 to 1000"),
    "half a partition": (HEAD + "topics: {partitions: 1.5}\n" + ONE, 3, "topics.partitions", "whole number"),
    "share above one": (HEAD + "refusals: {stop_above: 1.5}\n" + ONE, 3, "refusals.stop_above", "from 0 to 1"),
    "share of nothing": (HEAD + "refusals: {stop_above: 0}\n" + ONE, 3, "refusals.stop_above", "above 0"),
    "truth as text": (HEAD + "allow_short_windows: 'true'\n" + ONE, 3, "allow_short_windows", "true, false"),
    "section as text": (HEAD + "topics: many\n" + ONE, 3, "topics", "partitions, replication_factor"),
    "no aggregates": (HEAD + "aggregates: {}\n", 3, "aggregates", "no aggregate"),
    "aggregate as list": (HEAD + "aggregates: [order]\n", 3, "aggregates", "fields of its own"),
    "name of an aggregate": (
        HEAD + "aggregates:\n  Order: {table: a.b, id: id}\n", 4, "aggregates.Order", "lower-case",
    ),
    "no table": (HEAD + "aggregates:\n  order:\n    id: id\n", 4, "aggregates.order.table", "is missing"),
    "table without schema": (
        HEAD + "aggregates:\n  order: {table: orders, id: id}\n", 4, "aggregates.order.table", "schema.table",
    ),
    "no id": (HEAD + "aggregates:\n  order:\n    table: a.b\n", 4, "aggregates.order.id", "is missing"),
    "empty id": (HEAD + "aggregates:\n  order: {table: a.b, id: []}\n", 4, "aggregates.order.id", "list of columns"),
    "id twice": (HEAD + "aggregates:\n  order: {table: a.b, id: [x, x]}\n", 4, "aggregates.order.id", "twice"),
    "contract as number": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, contract: 1.0}\n", 4, "aggregates.order.contract", "v1.0",
    ),
    "contract of major 0": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, contract: v0.1}\n", 4, "aggregates.order.contract", "v1.0",
    ),
    "two on a table": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id}\n  bill: {table: a.b, id: id}\n",
        5, "aggregates.bill.table", "belongs to aggregate 'order'",
    ),
    "unknown parent": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, parent: {aggregate: shop, column: x}}\n",
        4, "aggregates.order.parent.aggregate", "there is no aggregate 'shop'",
    ),
    "parent without column": (
        HEAD + ONE + "  line: {table: a.b, id: id, parent: {aggregate: order}}\n",
        5, "aggregates.line.parent.column", "is missing",
    ),
    "parent with too many columns": (
        HEAD + ONE + "  line: {table: a.b, id: id, parent: {aggregate: order, column: [x, y]}}\n",
        5, "aggregates.line.parent.column", "1 columns, not 2",
    ),
    "own parent": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, parent: {aggregate: order, column: x}}\n",
        4, "aggregates.order.parent.aggregate", "its own ancestor",
    ),
    "cycle": (
        HEAD + "aggregates:\n  a: {table: a.a, id: id, parent: {aggregate: b, column: x}}\n"
        "  b: {table: a.b, id: id, parent: {aggregate: a, column: x}}\n",
        5, "aggregates.b.parent.aggregate", "its own ancestor",
    ),
    "name that YAML reads as truth": (
        HEAD + "aggregates:\n  order:\n    table: a.b\n    id: id\n    fields: {no: x}\n",
        7, "aggregates.order.fields", "'no' is read as false here; write \"no\"",
    ),
    "id that YAML reads as truth": (
        HEAD + "aggregates:\n  order:\n    table: a.b\n    id: no\n",
        6, "aggregates.order.id", "'no' is read as false here; write \"no\" (accepted: a column",
    ),
    "id in a list that YAML reads as truth": (
        HEAD + "aggregates:\n  order:\n    table: a.b\n    id:\n      - customer_id\n      - On\n",
        8, "aggregates.order.id", "'On' is read as true here; write \"On\"",
    ),
    "id that YAML reads as a number": (
        HEAD + "aggregates:\n  order: {table: a.b, id: [customer_id, 1.0e+3]}\n",
        4, "aggregates.order.id", "'1.0e+3' is read as a number here; write \"1.0e+3\"",
    ),
    "id that YAML reads as a date": (
        HEAD + "aggregates:\n  order: {table: a.b, id: 2024-01-01}\n",
        4, "aggregates.order.id", "'2024-01-01' is read as a date here; write \"2024-01-01\"",
    ),
    "id that YAML reads as nothing": (
        HEAD + "aggregates:\n  order: {table: a.b, id: [null]}\n",
        4, "aggregates.order.id", "'null' is read as nothing here; write \"null\"",
    ),
    "a list in the list of ids": (
        HEAD + "aggregates:\n  order: {table: a.b, id: [[x]]}\n", 4, "aggregates.order.id", "a list is not accepted",
    ),
    "column that YAML reads as a number": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {amount: 1_0}}\n",
        4, "aggregates.order.fields.amount", "'1_0' is read as a number here; write \"1_0\"",
    ),
    "parent column that YAML reads as truth": (
        HEAD + ONE + "  line: {table: a.b, id: id, parent: {aggregate: order, column: off}}\n",
        5, "aggregates.line.parent.column", "'off' is read as false here; write \"off\"",
    ),
    "source that YAML reads as truth": (
        HEAD.replace("database: shop", "database: on") + ONE, 2, "database", "'on' is read as true here; write \"on\"",
    ),
    "aggregate that YAML reads as truth": (
        HEAD + "aggregates:\n  yes: {table: a.b, id: id}\n",
        4, "aggregates", "'yes' is read as true here; write \"yes\"",
    ),
    "name that YAML reads as a number": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {1: x}}\n",
        4, "aggregates.order.fields", "'1' is read as a number here; write \"1\"",
    ),
    "pointer without column": (
        HEAD + "aggregates:\n  order: {table: a.b, id: /}\n", 4, "aggregates.order.id", "names no column",
    ),
    "pointer that is none": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: /doc/a~b}}\n",
        4, "aggregates.order.fields.x", "'~' in a JSON Pointer is written ~0",
    ),
    "document as pointer": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, document: [doc]}\n",
        4, "aggregates.order.document", "json or jsonb column",
    ),
    "field of two kinds": (
        HEAD + "aggregates:\n  order:\n    table: a.b\n    id: id\n    fields: {x: {column: y, constant: 1}}\n",
        7, "aggregates.order.fields.x", "says column and constant where its value comes from",
    ),
    "field of no kind": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: {cast: text}}}\n",
        4, "aggregates.order.fields.x", "says not where its value comes from",
    ),
    "option of another kind": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: {constant: 1, cast: text}}}\n",
        4, "aggregates.order.fields.x.cast", "does not go with 'constant'",
    ),
    "unknown cast": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: {column: y, cast: float}}}\n",
        4, "aggregates.order.fields.x.cast", "text, integer, number",
    ),
    "constant as a list": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: {constant: [1]}}}\n",
        4, "aggregates.order.fields.x.constant", "a text, a number, true, false or null",
    ),
    "constant that YAML reads as a date": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: {constant: 2024-01-01}}}\n",
        4, "aggregates.order.fields.x.constant", "'2024-01-01' is read as a date here",
    ),
    "unknown reference": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, fields: {x: {column: y, reference: z}}}\n",
        4, "aggregates.order.fields.x.reference", "there is no reference 'z'",
    ),
    "reference to an aggregate's table": (
        HEAD + ONE + "references:\n  z: {table: public.orders, key: id, value: name}\n",
        6, "references.z.table", "public.orders belongs to aggregate 'order'",
    ),
    "reference without key": (
        HEAD + ONE + "references:\n  z: {table: a.z, value: name}\n", 6, "references.z.key", "is missing",
    ),
    "filter without place": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, where: active}\n",
        4, "aggregates.order.where", "names no values",
    ),
    "filter by another word": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, where: {state: {above: 1}}}\n",
        4, "aggregates.order.where.state.above", "unknown field",
    ),
    "filter by no value": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, where: {state: []}}\n",
        4, "aggregates.order.where.state", "an empty list is not accepted",
    ),
    "older major without the newest": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, former: {v1.0: f}}\n",
        4, "aggregates.order.contract", "has to be named where older majors are published too",
    ),
    "older major that is not older": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, contract: v2.0, former: {v2.1: f}}\n",
        4, "aggregates.order.former.v2.1", "is not older than v2.0",
    ),
    "older major twice": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, contract: v2.0, former: {v1.0: f, v1.1: g}}\n",
        4, "aggregates.order.former.v1.1", "major 1 is named twice",
    ),
    "older major that is no version": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, contract: v2.0, former: {one: f}}\n",
        4, "aggregates.order.former.one", "'one' is no version",
    ),
    "older major without function": (
        HEAD + "aggregates:\n  order: {table: a.b, id: id, contract: v2.0, former: {v1.0: {}}}\n",
        4, "aggregates.order.former.v1.0", "is not accepted",
    ),
    "nothing after the colon": (HEAD + "uri:\n" + ONE, 3, "uri", "nothing is not accepted"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_fault_names_line_field_and_what_would_be_accepted(tmp_path: Path, case: str) -> None:
    """Each kind of mistake is refused at its line, by its dotted name."""
    text, line, field, words = WRONG[case]
    path = write(tmp_path, text)
    with pytest.raises(DocumentError) as refused:
        load_source(path)
    found = [(fault.line, fault.field) for fault in refused.value.faults]
    assert (line, field) in found
    assert any(
        f"{path}:{line}: {field}" in text and words.replace("a.b", "") in text
        for text in str(refused.value).splitlines()
    )


def test_all_faults_come_in_one_go(tmp_path: Path) -> None:
    """Nobody has to mend a file fault by fault."""
    with pytest.raises(DocumentError) as refused:
        load(tmp_path, "source: shop\nnonsense: 1\nuri: x\naggregates:\n  order: {id: id}\n")
    assert [fault.field for fault in refused.value.faults] == ["database", "nonsense", "uri", "aggregates.order.table"]


@pytest.mark.parametrize(
    ("text", "line"),
    [("source: [shop\n", 2), ("a: b: c\n", 1), ("source: shop\n\tdatabase: x\n", 2), ("", 1), ("- source\n", 1)],
)
def test_what_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str, line: int) -> None:
    """Broken YAML, an empty file and a list are refused with a line, not with a traceback."""
    with pytest.raises(DocumentError) as refused:
        load(tmp_path, text)
    assert refused.value.faults[0].line == line


def test_two_sources_cannot_publish_one_aggregate(tmp_path: Path) -> None:
    """A domain topic has one writing source."""
    write(tmp_path, HEAD + ONE)
    write(tmp_path, HEAD.replace("source: shop", "source: store\ndomain: shop") + ONE, "store")
    with pytest.raises(ConfigurationError, match=r"store\.yaml:5: .*published by source 'shop' already"):
        load_sources(tmp_path)


def test_an_unknown_source_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """Asking for a source that has no file names those that have."""
    write(tmp_path, HEAD + ONE)
    with pytest.raises(ConfigurationError, match="known sources: shop"):
        load_sources(tmp_path, ["stock"])
    with pytest.raises(ConfigurationError, match="no source file"):
        load_sources(tmp_path / "empty")
