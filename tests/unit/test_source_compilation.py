"""From source file, contracts and catalogue to the definition, and what is refused on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rowcast.contracts.contract import Contract
from rowcast.deprecation import Deprecation
from rowcast.errors import ConfigurationError
from rowcast.settings import DatabaseSettings
from rowcast.sources.admission import refuse_unfit
from rowcast.sources.catalogue import Catalogue, Column, Table
from rowcast.sources.compilation import compile_definition
from rowcast.sources.connector import changed_settings, connector_configuration
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.source_file import SourceFile, load_source
from rowcast.sources.topic_plan import Topic, few_in_sync, wanted_topics

TEXT = """source: shop
database: shop
aggregates:
  line:
    table: public.line
    id: id
    parent: {aggregate: order, column: order_id}
    fields: {amount: qty}
  order:
    table: public.orders
    id: id
"""


def column(name: str, kind: str = "text", **changes: bool) -> Column:
    return Column(**{"name": name, "type": kind, "nullable": False, "enum": False, "generated": False, **changes})


def table(name: str, *columns: Column, **changes: Any) -> Table:
    plain: dict[str, Any] = {
        "kind": "r",
        "persistence": "p",
        "replica_identity": "d",
        "key": ("id",),
        "partition_of": None,
        "inherits": None,
        "leaf_identities": frozenset(),
    }
    return Table(name=name, columns=columns, **{**plain, **changes})


def contract(aggregate: str, above: list[str], /, **properties: Any) -> Contract:
    entity = {
        "type": "object",
        "x-ancestors": above,
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    path = Path("schemas/shop") / aggregate / "v1.0.json"
    return Contract(path=path, domain="shop", aggregate=aggregate, major=1, minor=0, entity=entity)


CONTRACTS = {
    "order": contract("order", [], id="integer", state="string"),
    "line": contract("line", ["order"], id="string", amount=["integer", "null"]),
}
ORDERS = table("public.orders", column("id", "bigint"), column("state", "shop.state", enum=True), column("secret"))
LINE = table(
    "public.line",
    column("id", "uuid"),
    column("order_id", "integer", nullable=True),
    column("qty", "integer", nullable=True),
    column("secret"),
)


def catalogue(*tables: Table, **changes: Any) -> Catalogue:
    plain: dict[str, Any] = {
        "database": "shop",
        "version": 180_000,
        "wal_level": "logical",
        "slots_max": 10,
        "in_recovery": False,
        "may_replicate": True,
    }
    return Catalogue(**{**plain, **changes}, tables={each.name: each for each in tables or (ORDERS, LINE)})


@pytest.fixture
def source(tmp_path: Path) -> SourceFile:
    """A source with a child and its parent."""
    path = tmp_path / "shop.yaml"
    path.write_text(TEXT)
    return load_source(path)


def places(definition: SourceDefinition) -> dict[str, str | None]:
    return {name: field.place for name, field in definition.aggregates[1].fields.items()}


def test_definition_stands_parents_first_and_survives_its_json(source: SourceFile) -> None:
    """The definition is in the order of the hierarchy, and reads back equal."""
    definition = compile_definition(source, CONTRACTS, catalogue())
    assert [each.name for each in definition.aggregates] == ["order", "line"]
    assert places(definition) == {"id": "id", "amount": "qty"}
    assert SourceDefinition.from_json(definition.to_json()) == definition


def test_only_needed_columns_are_captured(source: SourceFile) -> None:
    """A column that no contract, key or parent link names reaches neither definition nor connector."""
    definition = compile_definition(source, CONTRACTS, catalogue())
    assert {each.name: [column.name for column in each.columns] for each in definition.tables} == {
        "public.orders": ["id", "state"],
        "public.line": ["id", "order_id", "qty"],
    }
    url = "postgresql://reader@db.example/shop"
    settings = connector_configuration(definition, DatabaseSettings("shop", url), server_version=180_000)
    assert "secret" not in str(settings)
    assert r"public\.line\.qty" in settings["column.include.list"].split(",")


MAJORS = """    table: public.line
    contract: v2.0
    former: {v1.0: older}
"""
OLDER = {
    **CONTRACTS,
    "line": replace(CONTRACTS["line"], major=2),
    "line/v1": replace(CONTRACTS["line"], deprecation=Deprecation(sunset="2027-06-30")),
}


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        ("def older(line): return line", None),
        ("", "no function 'older'"),
        ("def older(line, other): pass", "cannot be called"),
        ("async def older(line): pass", "does not return its value"),
    ],
)
def test_older_majors_go_out_beside_the_newest(tmp_path: Path, module: str, fault: str | None) -> None:
    """By a function of the module; each has a topic with all partitions, and the column it needs is captured once."""
    (tmp_path / "shop.py").write_text(module)
    (tmp_path / "shop.yaml").write_text(TEXT.replace("    table: public.line\n", MAJORS))
    source = load_source(tmp_path / "shop.yaml")
    if fault is not None:
        with pytest.raises(DocumentError, match=rf"aggregates\.line\.former\.v1\.0.*{fault}"):
            compile_definition(source, OLDER, catalogue())
        return

    definition = compile_definition(source, OLDER, catalogue())

    assert definition.topics == ("shop.order.v1", "shop.line.v2", "shop.line.v1")
    assert [each.partitions for each in wanted_topics(definition)[1:4]] == [6, 6, 6]
    assert definition.deprecations == {"shop.line.v1": Deprecation(sunset="2027-06-30")}
    assert definition.functions == module
    assert SourceDefinition.from_json(definition.to_json()) == definition


def test_all_majors_have_one_hierarchy(tmp_path: Path) -> None:
    """Their versions are made from the same rows."""
    (tmp_path / "shop.py").write_text("def older(line): return line")
    (tmp_path / "shop.yaml").write_text(TEXT.replace("    table: public.line\n", MAJORS))
    contracts = {**OLDER, "line/v1": contract("line", [], id="string")}

    with pytest.raises(DocumentError, match="declares other x-ancestors"):
        compile_definition(load_source(tmp_path / "shop.yaml"), contracts, catalogue())


DOCUMENT = """    table: public.line
    document: doc
    id: /doc/id
    parent: {aggregate: order, column: /doc/order/id}
    fields: {amount: qty}
"""
DOCUMENT_LINE = replace(LINE, columns=(*LINE.columns, column("doc", "jsonb", nullable=True)))


def write_document(tmp_path: Path, old: str = "", new: str = "") -> SourceFile:
    """The source with lines that are documents, in which *new* stands for *old*."""
    path = tmp_path / "shop.yaml"
    head, _, rest = TEXT.partition("    table: public.line\n")
    path.write_text(head + (DOCUMENT.replace(old, new) if old else DOCUMENT) + rest[rest.index("  order:") :])
    return load_source(path)


def test_the_properties_of_a_document_are_read_from_it(tmp_path: Path) -> None:
    """The document column is captured with the key and what else is named; what it holds needs no fitting type."""
    definition = compile_definition(write_document(tmp_path), CONTRACTS, catalogue(ORDERS, DOCUMENT_LINE))
    line, table = definition.aggregates[1], definition.tables[1]
    assert places(definition) == {"id": "/doc/id", "amount": "qty"}
    assert line.parent is not None
    assert (line.id, line.parent.columns) == (("/doc/id",), ("/doc/order/id",))
    assert [each.name for each in table.columns] == ["id", "qty", "doc"]
    assert SourceDefinition.from_json(definition.to_json()) == definition


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        ("document: doc", "document: secret", "document", "'secret' of type text holds no JSON document"),
        ("document: doc", "document: dok", "document", "has no column 'dok' (accepted: doc, "),
        ("id: /doc/id", "id: /secret/id", "id", "holds no JSON document"),
        ("id: /doc/id", "id: /dok/id", "id", "has no column 'dok'"),
        ("id: /doc/id", "id: /doc", "id", "all of column 'doc' is no id"),
        ("id: /doc/id", "id: doc", "id", "is not the primary key of public.line (accepted: id; or a place"),
        ("id: /doc/id", "id: [/doc/id, doc]", "id", "type jsonb has no one text form"),
        ("/doc/order/id", "/qty/id", "parent.column", "holds no JSON document"),
        ("amount: qty", "amount: /qty/x", "fields.amount", "holds no JSON document"),
    ],
)
def test_a_place_that_is_in_no_document_is_refused(tmp_path: Path, old: str, new: str, field: str, words: str) -> None:
    """Column missing, or not json or jsonb: told at the field, with what would be accepted."""
    with pytest.raises(DocumentError) as refused:
        compile_definition(write_document(tmp_path, old, new), CONTRACTS, catalogue(ORDERS, DOCUMENT_LINE))
    assert f"aggregates.line.{field}" in [fault.field for fault in refused.value.faults]
    assert words in str(refused.value)


STATUS = table("public.status", column("id", "smallint"), column("name"), column("about", "jsonb"))
MAPPED = TEXT.replace("fields: {amount: qty}", "fields: {amount: FIELD}") + (
    "references:\n  status: {table: public.status, key: id, value: name}\n"
)


def mapped(tmp_path: Path, field: str, *changes: tuple[str, str]) -> SourceFile:
    """The source with a declared field, and functions beside it."""
    path, text = tmp_path / "shop.yaml", MAPPED.replace("FIELD", field)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    path.with_suffix(".py").write_text("def label(a, b=1): return a\nasync def late(a): return a\n")
    return load_source(path)


NUMBERS = ["integer", "null"]


def typed(*types: str) -> dict[str, Contract]:
    return {**CONTRACTS, "line": contract("line", ["order"], id="string", amount=list(types))}


@pytest.mark.parametrize(
    ("field", "types"),
    [
        ("{constant: 1}", ["integer"]),
        ("{constant: null}", ["string", "null"]),
        ("{column: qty, default: 0}", ["integer"]),
        ("{column: qty, cast: text, default: none}", ["string"]),
        ("{column: qty, reference: status, default: none}", ["string"]),
        ("{column: qty, reference: status, cast: number}", ["number", "null"]),
        ("{function: label, inputs: {a: qty}}", ["boolean"]),
        ("/doc/x", ["object"]),
    ],
)
def test_declared_fields_that_fit(tmp_path: Path, field: str, types: list[str]) -> None:
    """Constants, casts, defaults, look-ups and functions: what they give is accepted; all of it survives its JSON."""
    tables = catalogue(ORDERS, DOCUMENT_LINE, STATUS)
    definition = compile_definition(mapped(tmp_path, field), typed(*types), tables)
    assert SourceDefinition.from_json(definition.to_json()) == definition
    assert [each.name for each in definition.tables[2].columns] == ["id", "name"]
    assert bool(definition.functions) is ("function" in field)


@pytest.mark.parametrize(
    ("field", "types", "changes", "where", "words"),
    [
        ("{constant: x}", ["integer"], (), "line.fields.amount", "but the constant gives string"),
        ("{constant: null}", ["integer"], (), "line.fields.amount", "the constant may be NULL"),
        ("{column: qty, default: x}", ["integer"], (), "line.fields.amount", "gives integer or string"),
        ("{column: qty, cast: text}", ["integer"], (), "line.fields.amount", "cast 'text' gives string"),
        ("{column: qty, cast: text}", ["string"], (), "line.fields.amount", "cast 'text' may be NULL"),
        ("{column: qty, reference: status}", ["integer"], (), "line.fields.amount", "'name' of type text gives string"),
        ("{column: qty, reference: status}", ["string"], (), "line.fields.amount", "may be NULL"),
        ("{column: secret, reference: status}", ["string"], (), "line.fields.amount", "secret is text, the key of"),
        ("{function: nobody}", ["string"], (), "line.fields.amount", "no function 'nobody' (accepted: label, late)"),
        ("{function: label}", ["string"], (), "line.fields.amount", "missing a required argument: 'a'"),
        ("{function: late, inputs: {a: qty}}", ["string"], (), "line.fields.amount", "does not return its value"),
        ("{function: label, inputs: {a: nix}}", ["string"], (), "line.fields.amount", "no column 'nix'"),
        ("qty", NUMBERS, (("key: id", "key: name"),), "status.key", "not the primary key"),
        ("qty", NUMBERS, (("value: name", "value: /name/x"),), "status.value", "holds no JSON document"),
        ("qty", NUMBERS, (("value: name", "value: nam"),), "status.value", "no column 'nam'"),
        (
            "qty",
            ["integer", "null"],
            (("fields:", "where: {qty: a}\n    fields:"),),
            "where.qty",
            "gives integer, never",
        ),
        (
            "qty",
            ["integer", "null"],
            (("fields:", "where: {/qty/x: a}\n    fields:"),),
            "where./qty/x",
            "no JSON document",
        ),
        (
            "qty",
            ["integer", "null"],
            (("fields:", "soft_delete: gone\n    fields:"),),
            "soft_delete",
            "no column 'gone'",
        ),
    ],
)
def test_declared_fields_that_could_never_be_published_are_refused(
    tmp_path: Path, field: str, types: list[str], changes: Any, where: str, words: str
) -> None:
    """Each mistake of a mapping is told at its field before anything is touched."""
    with pytest.raises(DocumentError) as refused:
        compile_definition(mapped(tmp_path, field, *changes), typed(*types), catalogue(ORDERS, DOCUMENT_LINE, STATUS))
    assert any(fault.field.endswith(where) for fault in refused.value.faults), refused.value
    assert words in str(refused.value)


def test_a_module_of_functions_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    """The error names the module; a module that no field needs is not even read."""
    source = mapped(tmp_path, "{function: label, inputs: {a: qty}}")
    source.path.with_suffix(".py").write_text("def label(a) return a")
    with pytest.raises(ConfigurationError, match=r"connectors/shop\.py: cannot be run: SyntaxError"):
        compile_definition(load_source(source.path), typed("string"), catalogue(ORDERS, DOCUMENT_LINE, STATUS))
    source.path.write_text(MAPPED.replace("FIELD", "{constant: 1}"))
    assert (
        compile_definition(
            load_source(source.path), typed("integer"), catalogue(ORDERS, DOCUMENT_LINE, STATUS)
        ).functions
        == ""
    )


def test_a_reference_table_is_admitted_like_any_other(tmp_path: Path) -> None:
    """Without primary key, or missing, it is refused at its own field."""
    source = mapped(tmp_path, "qty")
    with pytest.raises(DocumentError, match=r"references\.status\.table: public\.status: does not exist"):
        refuse_unfit(source, catalogue(ORDERS, LINE))
    with pytest.raises(DocumentError, match=r"references\.status\.table: public\.status: has no primary key"):
        refuse_unfit(source, catalogue(ORDERS, LINE, replace(STATUS, key=())))


def test_a_definition_of_the_first_format_is_still_read(source: SourceFile) -> None:
    """What was applied before there were declared fields: columns as texts, and nothing else."""
    definition = compile_definition(source, CONTRACTS, catalogue())
    document = json.loads(definition.to_json())
    document["format"] = 1
    for gone in ("functions", "references"):
        del document[gone]
    for aggregate in document["aggregates"]:
        del aggregate["where"], aggregate["soft_delete"]
        aggregate["fields"] = {name: field["place"] for name, field in aggregate["fields"].items()}
    assert SourceDefinition.from_json(json.dumps(document)) == definition


WRONG_TABLES: dict[str, tuple[Table, str, str]] = {
    "no column": (replace(LINE, columns=LINE.columns[:2]), "aggregates.line.fields.amount", "has no column 'qty'"),
    "no parent column": (
        replace(LINE, columns=(LINE.columns[0], LINE.columns[2])),
        "aggregates.line.parent.column",
        "no column 'order_id'",
    ),
    "parent of another type": (
        replace(LINE, columns=(LINE.columns[0], column("order_id", "text"), LINE.columns[2])),
        "aggregates.line.parent.column",
        "public.orders.id is bigint",
    ),
    "other key": (replace(LINE, key=("order_id", "id")), "aggregates.line.id", "(accepted: order_id, id;"),
    "key without one text": (
        replace(LINE, columns=(column("id", "numeric"), *LINE.columns[1:])),
        "aggregates.line.id",
        "no one text form",
    ),
    "other type": (
        replace(LINE, columns=(*LINE.columns[:2], column("qty", "numeric(10,2)"))),
        "aggregates.line.fields.amount",
        "is integer or null, but column 'qty' of type numeric(10,2) gives string",
    ),
    "type without form": (
        replace(LINE, columns=(*LINE.columns[:2], column("qty", "public.shape"))),
        "aggregates.line.fields.amount",
        "has no form in events",
    ),
    "generated": (
        replace(LINE, columns=(*LINE.columns[:2], column("qty", "integer", generated=True))),
        "aggregates.line.fields.amount",
        "is generated",
    ),
    "nullable": (
        replace(LINE, columns=(column("id", "uuid", nullable=True), *LINE.columns[1:])),
        "aggregates.line",
        "schemas/shop/line/v1.0.json#/properties/id: column 'id' of public.line may be NULL",
    ),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_a_table_that_does_not_fit_its_contract_is_refused(source: SourceFile, case: str) -> None:
    """What could only give refused events is refused before anything is touched."""
    wrong, field, words = WRONG_TABLES[case]
    with pytest.raises(DocumentError) as refused:
        compile_definition(source, CONTRACTS, catalogue(ORDERS, wrong))
    faults = [fault for fault in refused.value.faults if fault.field == field]
    assert faults, refused.value
    assert words in str(refused.value)
    assert faults[0].line >= 4


def items(kind: object) -> dict[str, Any]:
    """The contracts, with a line whose tags are a list of *kind*, by reference."""
    made = contract("line", ["order"], id="string", amount=["integer", "null"], tags=["array", "null"])
    made.entity["properties"]["tags"]["items"] = {"$ref": "#/$defs/tag"}
    return {**CONTRACTS, "line": replace(made, entity={**made.entity, "$defs": {"tag": {"type": kind}}})}


@pytest.mark.parametrize(
    ("kind", "column_type"),
    [("integer", "text[]"), ("number", "numeric(10,2)[]"), ("string", "bigint[]"), (["array", "null"], "uuid[]")],
)
def test_items_that_no_element_can_be_are_refused(source: SourceFile, kind: object, column_type: str) -> None:
    """A list's items count as its own type does."""
    columns = (*LINE.columns, column("tags", column_type, nullable=True))
    tagged = replace(LINE, columns=columns, replica_identity="f")
    with pytest.raises(DocumentError, match=r"v1\.0\.json#/properties/tags: the items of property 'tags'"):
        compile_definition(source, items(kind), catalogue(ORDERS, tagged))


@pytest.mark.parametrize(
    ("kind", "column_type"),
    [
        ("string", "text[]"),
        (["string", "null"], "numeric[]"),
        ("number", "integer[]"),
        ("string", "shop.state[]"),
        ("object", "jsonb[]"),
    ],
)
def test_items_that_fit_are_accepted(source: SourceFile, kind: object, column_type: str) -> None:
    """The form of the elements decides; of a document's nothing is known beforehand."""
    columns = (*LINE.columns, column("tags", column_type, nullable=True, enum=column_type == "shop.state[]"))
    tagged = replace(LINE, columns=columns, replica_identity="f")
    assert compile_definition(source, items(kind), catalogue(ORDERS, tagged)).aggregates[1].fields["tags"].is_plain


def untyped() -> dict[str, Any]:
    """The contracts, with a line whose tags may be anything."""
    made = contract("line", ["order"], id="string", amount=["integer", "null"], tags="string")
    made.entity["properties"]["tags"] = {}
    return {**CONTRACTS, "line": made}


UNFIT = [
    *("bit varying(8)", "tsquery", "line", "shop.pair", "shop.span", "interval[]", "money[]", "bit(3)[]", "point[]"),
    *("domain date[]", "domain shop.state[]", "shop.pair[]", "int4multirange[]", "public.citext[]"),
]


@pytest.mark.parametrize("column_type", UNFIT)
def test_a_type_without_a_form_is_refused(source: SourceFile, column_type: str) -> None:
    """Also arrays of what the connector cannot carry as an element."""
    tagged = replace(LINE, columns=(*LINE.columns, column("tags", column_type)), replica_identity="f")
    with pytest.raises(DocumentError, match=r"column 'tags' of public\.line has type .*, which has no form in events"):
        compile_definition(source, untyped(), catalogue(ORDERS, tagged))


@pytest.mark.parametrize("column_type", ["numeric[]", "smallint[]", "domain text[]", "date[]", "bit(65)"])
@pytest.mark.parametrize(("identity", "below"), [("d", ""), ("d", "df"), ("i", "")])
def test_what_is_lost_outside_its_row_needs_replica_identity_full(
    source: SourceFile, column_type: str, identity: str, below: str
) -> None:
    """The connector fails on a large value that an UPDATE does not touch; of partitions each has to have it."""
    columns = (*LINE.columns, column("tags", column_type))
    tagged = replace(LINE, columns=columns, replica_identity=identity, leaf_identities=frozenset(below))
    with pytest.raises(DocumentError) as refusal:
        compile_definition(source, untyped(), catalogue(ORDERS, tagged))
    assert "column 'tags' of public.line" in str(refusal.value)
    assert "ALTER TABLE public.line REPLICA IDENTITY FULL" in str(refusal.value)
    full = replace(tagged, replica_identity="f", leaf_identities=frozenset("f" if below else ""))
    assert compile_definition(source, untyped(), catalogue(ORDERS, full)).tables


@pytest.mark.parametrize(("kind", "column_type"), [("integer", "text"), ("integer", "real"), ("boolean", "integer")])
def test_a_type_that_no_value_can_have_is_refused(source: SourceFile, kind: str, column_type: str) -> None:
    """A format narrows a text and is fine; another type can never hold it."""
    columns = (*LINE.columns, column("at", column_type))
    typed = contract("line", ["order"], id="string", amount=["integer", "null"], at=kind)
    with pytest.raises(DocumentError, match=r"v1\.0\.json#/properties/at: .* gives "):
        compile_definition(source, {**CONTRACTS, "line": typed}, catalogue(ORDERS, replace(LINE, columns=columns)))
    dated = contract("line", ["order"], id="string", amount=["integer", "null"], at="string")
    dated.entity["properties"]["at"]["format"] = "date-time"
    text = (*LINE.columns, column("at"))
    assert compile_definition(source, {**CONTRACTS, "line": dated}, catalogue(ORDERS, replace(LINE, columns=text)))


def test_a_missing_column_is_told_at_the_property_with_the_nearest_columns_first(tmp_path: Path) -> None:
    """Where the file names no field, the contract does; the table's columns are listed, the likeliest first."""
    path = tmp_path / "shop.yaml"
    path.write_text(TEXT.replace("    fields: {amount: qty}\n", ""))
    columns = (LINE.columns[0], LINE.columns[1], column("state"), column("amt", "integer", nullable=True))
    with pytest.raises(DocumentError) as refused:
        compile_definition(load_source(path), CONTRACTS, catalogue(ORDERS, replace(LINE, columns=columns)))
    assert str(refused.value).startswith("schemas/shop/line/v1.0.json#/properties/amount: property 'amount'")
    assert "fields: {amount: <column>} in the source file, with one of amt, " in str(refused.value)
    assert "fields.amount" not in str(refused.value)


WRONG_CONTRACTS: dict[str, tuple[Contract, str, str]] = {
    "other hierarchy": (contract("line", ["shop", "order"], id="string"), "aggregates.line.parent", "x-ancestors"),
    "no such property": (contract("line", ["order"], id="string"), "aggregates.line.fields.amount", "no property"),
    "reserved name": (
        contract("line", ["order"], id="string", amount="integer", ancestors="string"),
        "aggregates.line.contract",
        "'ancestors'",
    ),
}


@pytest.mark.parametrize("case", WRONG_CONTRACTS)
def test_a_contract_that_does_not_fit_the_file_is_refused(source: SourceFile, case: str) -> None:
    """Hierarchy and renamed fields have to be the same in file and contract."""
    wrong, field, words = WRONG_CONTRACTS[case]
    with pytest.raises(DocumentError) as refused:
        compile_definition(source, {**CONTRACTS, "line": wrong}, catalogue())
    assert field in [fault.field for fault in refused.value.faults]
    assert words in str(refused.value)


UNFIT: dict[str, tuple[Catalogue, str]] = {
    "old server": (catalogue(version=130_014), "PostgreSQL 14 or newer"),
    "no logical WAL": (catalogue(wal_level="replica"), "wal_level = logical"),
    "standby": (catalogue(in_recovery=True), "the primary server"),
    "no slots": (catalogue(slots_max=0), "max_replication_slots"),
    "login without replication": (catalogue(may_replicate=False), "REPLICATION"),
    "missing table": (catalogue(ORDERS), "public.line: does not exist"),
    "no key": (catalogue(ORDERS, replace(LINE, key=())), "ADD PRIMARY KEY"),
    "identity nothing": (catalogue(ORDERS, replace(LINE, replica_identity="n")), "REPLICA IDENTITY DEFAULT"),
    "partition with identity nothing": (
        catalogue(ORDERS, replace(LINE, kind="p", leaf_identities=frozenset("dn"))),
        "REPLICA IDENTITY DEFAULT",
    ),
    "full with a generated column": (
        catalogue(
            ORDERS, replace(LINE, replica_identity="f", columns=(*LINE.columns, column("total", generated=True)))
        ),
        "generated column 'total'",
    ),
    "unlogged": (catalogue(ORDERS, replace(LINE, persistence="u")), "SET LOGGED"),
    "temporary": (catalogue(ORDERS, replace(LINE, persistence="t")), "is temporary"),
    "view": (catalogue(ORDERS, replace(LINE, kind="v")), "is a view"),
    "foreign": (catalogue(ORDERS, replace(LINE, kind="f")), "is a foreign table"),
    "partition": (catalogue(ORDERS, replace(LINE, partition_of="public.lines")), "public.lines"),
    "inheritance": (catalogue(ORDERS, replace(LINE, inherits="public.base")), "inherits from public.base"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_would_hurt_or_be_blind_is_refused(source: SourceFile, case: str) -> None:
    """A server or table that cannot be captured, or whose publication would make the application fail."""
    unfit, words = UNFIT[case]
    with pytest.raises(DocumentError, match=r"shop\.yaml:\d+: ") as refused:
        refuse_unfit(source, unfit)
    assert words in str(refused.value)


def test_fit_tables_are_admitted(source: SourceFile) -> None:
    """A key with identity FULL is fine; so is a generated column below PostgreSQL 18."""
    full = replace(LINE, replica_identity="f", columns=(*LINE.columns, column("total", generated=True)))
    refuse_unfit(source, catalogue(ORDERS, full, version=170_004))
    refuse_unfit(source, catalogue(ORDERS, replace(LINE, replica_identity="f")))


def test_a_password_never_stands_in_the_configuration(source: SourceFile) -> None:
    """Only a reference goes to Connect; a bare password is refused with the fix."""
    definition = compile_definition(source, CONTRACTS, catalogue())
    bare = DatabaseSettings("shop", "postgresql://reader:geheim@db.example/shop")
    with pytest.raises(Exception, match="connect_password") as refused:
        connector_configuration(definition, bare, server_version=180_000)
    assert "geheim" not in str(refused.value)
    referred = replace(bare, connect_password="${file:/etc/secrets:shop}")
    settings = connector_configuration(definition, referred, server_version=180_000)
    assert settings["database.password"] == "${file:/etc/secrets:shop}"
    assert "geheim" not in str(settings)


@pytest.mark.parametrize(
    "url", ["dbname=shop user=a", "host=/run/postgresql dbname=shop user=a", "host=a,b dbname=shop user=a", "host=a"]
)
def test_a_url_that_a_connector_cannot_use_is_refused(source: SourceFile, url: str) -> None:
    """Sockets, several hosts and missing parts are refused with the name of the database."""
    definition = compile_definition(source, CONTRACTS, catalogue())
    with pytest.raises(Exception, match="database 'shop'"):
        connector_configuration(definition, DatabaseSettings("shop", url), server_version=180_000)


def test_settings_that_differ_are_named() -> None:
    """Changed, missing and foreign settings all count; the name that Connect adds does not."""
    assert changed_settings({"a": "1", "b": "2"}, {"name": "x", "a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert changed_settings({"a": "1"}, {}) == ["a"]
    assert changed_settings({"a": "1"}, {"a": "1", "name": "x"}) == []


def test_topics_follow_windows_and_replication(source: SourceFile) -> None:
    """Windows become retention and compaction lag; two of three replicas have to acknowledge."""
    definition = compile_definition(
        replace(source, replication_factor=3, events_window_ms=90_000), CONTRACTS, catalogue()
    )
    log, order, line, progress = wanted_topics(definition)
    assert [each.name for each in (log, order, line, progress)] == [
        "shop.changes",
        "shop.order.v1",
        "shop.line.v1",
        "rowcast.progress",
    ]
    assert (log.partitions, order.partitions, progress.partitions) == (1, 6, 1)
    assert log.settings["retention.ms"] == str(definition.change_log_window_ms)
    assert order.settings["min.compaction.lag.ms"] == "90000"
    assert order.settings["message.timestamp.type"] == "LogAppendTime"
    assert {each.settings["min.insync.replicas"] for each in (log, order, line, progress)} == {"2"}


@pytest.mark.parametrize(
    ("changes", "message", "fix"),
    [
        ({"slots": ("a", "b"), "slots_max": 2}, "all 2 replication slots of the server are taken: a, b", "= 12"),
        ({"senders_max": 3, "senders_used": 3}, "all 3 WAL senders of the server are at work", "= 13"),
        ({"connections_max": 2}, "the login's CONNECTION LIMIT is 2", "CONNECTION LIMIT 5"),
    ],
)
def test_a_server_without_room_for_a_source_is_refused(
    source: SourceFile, changes: dict[str, Any], message: str, fix: str
) -> None:
    """Slots, WAL senders and connections are counted before anything is touched; a source that has its slot is fine."""
    with pytest.raises(DocumentError) as refused:
        refuse_unfit(source, catalogue(**changes))
    assert message in str(refused.value)
    assert fix in str(refused.value)
    if "connections_max" not in changes:
        slots = ("rowcast_shop", *changes.get("slots", ()))[: changes.get("slots_max", 9)]
        refuse_unfit(source, catalogue(**{**changes, "slots": slots}))


def test_a_topic_that_takes_no_records_now_is_noted() -> None:
    """Fewer replicas in sync than a write needs: brokers are down, and apply can go on all the same."""
    found = Topic("shop.changes", 1, 3, {"min.insync.replicas": "2"}, in_sync=1)
    note = few_in_sync("shop", found)
    assert note is not None
    assert "1 replicas in sync and needs 2" in str(note)
    assert few_in_sync("shop", replace(found, in_sync=2)) is None
