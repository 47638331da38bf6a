"""Declared stated events: contracts of their data, the source file, the derived schema, and cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from test_mapping_cases import SOURCE, TABLES, order, run, write_contract

from rowcast.annotation import state_event, stated_event
from rowcast.cli.main import main
from rowcast.contracts.checking import check_folder
from rowcast.contracts.contract import load_contract
from rowcast.errors import ConfigurationError
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.source_file import load_source

DATA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:rowcast:schema:shop.order.paid:1.0:data",
    "title": "Paid",
    "description": "Somebody paid an order.",
    "type": "object",
    "required": ["amount"],
    "properties": {
        "amount": {"$ref": "#/$defs/money", "description": "How much.", "x-pii": "none"},
        "by": {"type": ["string", "null"], "description": "Who.", "x-pii": "name"},
    },
    "$defs": {"money": {"type": "string", "pattern": "^[0-9]+$"}},
}
EVENTS = "    events: {paid: {contract: v1.0}}\n  line:\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which orders have a stated event."""
    (tmp_path / "connectors" / "shop.cases").mkdir(parents=True)
    (tmp_path / "connectors" / "shop.yaml").write_text(SOURCE.replace("  line:\n", EVENTS))
    write_contract(tmp_path, "order", [], {"id": "integer", "status": "string", "place": ["string", "null"]})
    write_contract(tmp_path, "line", ["order"], {"id": "string", "amount": "integer"})
    write_data(tmp_path, DATA)
    return tmp_path


def write_data(project: Path, data: dict[str, Any], version: str = "1.0") -> Path:
    path = project / "schemas/shop/order.paid" / f"v{version}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**data, "$id": f"urn:rowcast:schema:shop.order.paid:{version}:data"}))
    for verdict, example in (("accepted", {"amount": "5"}), ("rejected", {"amount": 5})):
        folder = path.parent / "examples" / f"v{version}" / verdict
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "one.json").write_text(json.dumps(example))
    return path


def findings(project: Path) -> list[str]:
    return [f"{each.rule} {each.pointer}" for each in check_folder(project / "schemas") if "order.paid" in each.file]


def test_a_contract_of_data_is_checked_like_any_other(project: Path) -> None:
    """Without hierarchy and without derived file beside it; examples are data."""
    assert main(["schemas", "derive", "--schemas", str(project / "schemas")]) == 0
    assert findings(project) == []
    wrong = {**DATA, "x-ancestors": [], "required": ["nobody"]}
    write_data(project, wrong)
    assert findings(project) == ["REQUIRED /required", "ANCESTORS /x-ancestors"]
    write_data(project, DATA)
    (project / "schemas/shop/order.paid/examples/v1.0/rejected/one.json").write_text('{"amount": "5"}')
    assert findings(project) == ["EXAMPLE_ACCEPTED "]


def test_data_of_another_kind_are_another_event(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Versions of one major have to be compatible, and there is one major."""
    number = {"type": "integer", "description": "Who.", "x-pii": "name"}
    write_data(project, {**DATA, "properties": {**DATA["properties"], "by": number}}, "1.1")
    write_data(project, DATA, "2.0")
    schemas = str(project / "schemas")
    main(["schemas", "derive", "--schemas", schemas])

    assert findings(project) == ["EVENT_MAJOR "]
    capsys.readouterr()
    assert main(["schemas", "check", "--schemas", schemas]) == 1
    assert "order.paid/v1.1.json#/properties/by" in capsys.readouterr().out


def test_the_value_schema_is_that_of_the_entity_with_data(project: Path) -> None:
    """References of the data lead to their own definitions."""
    folder = project / "schemas/shop"
    entity, data = load_contract(folder / "order/v1.0.json"), load_contract(folder / "order.paid/v1.0.json")
    schema = entity.stated_schema(data)

    assert schema["$id"] == entity.stated_dataschema(data) == "urn:rowcast:schema:shop.order:1.0+paid:1.0"
    validator = Draft202012Validator(schema)
    value = {"after": {"id": 1, "status": "open", "place": None}, "before": {}, "ancestors": {}, "context": {}}
    assert validator.is_valid({**value, "data": {"amount": "5"}})
    assert [validator.is_valid({**value, **wrong}) for wrong in ({}, {"data": {"amount": "x"}}, {"data": None})] == [
        False
    ] * 3
    assert Draft202012Validator(entity.value_schema()).is_valid({**value, "data": {"amount": "5"}})
    own = {**value["after"], "x": 1}
    assert validator.is_valid({**value, "after": own, "data": {"amount": "5"}})


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("{created: {}}", "'created' is not accepted as a name"),
        ("{Paid: {}}", "'Paid' is not accepted as a name"),
        ("{paid: {contract: v2.0}}", "'v2.0' is not accepted"),
        ("{paid: {schema: v1.0}}", "unknown field"),
        ("{paid: v1.0}", "needs fields of its own"),
        ("paid", "needs fields of its own"),
    ],
)
def test_a_wrong_declaration_is_a_fault_with_its_line(project: Path, events: str, message: str) -> None:
    """What would be accepted is told."""
    path = project / "connectors/shop.yaml"
    path.write_text(path.read_text().replace("{paid: {contract: v1.0}}", events))
    with pytest.raises(ConfigurationError, match=message):
        load_source(path)


def test_a_missing_contract_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is asked."""
    path = project / "connectors/shop.yaml"
    path.write_text(path.read_text().replace("{paid: {contract: v1.0}}", "{paid: {}, sent: {}}"))
    write_case(project, {"events": []})

    code, _out = run(project, capsys)
    assert code == 2


def write_case(project: Path, *steps: dict[str, Any]) -> None:
    path = project / "connectors/shop.cases/orders.json"
    path.write_text(json.dumps({"tables": TABLES, "steps": steps}))


def test_cases_state_events(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the rows of their step; what is refused is part of the case."""
    paid = {"aggregate": "order", "id": "1", "event": "paid", "data": {"amount": "5"}}
    after = {"id": 1, "status": "open", "place": "Oslo"}
    write_case(
        project,
        {
            "write": {"public.status": [{"id": 1, "name": "open"}], "public.orders": [order(1, 1)]},
            "state": [paid, {**paid, "id": 9}, {**paid, "data": {}}],
            "events": [
                {"aggregate": "order", "id": "1", "kind": "created", "after": after},
                {
                    "aggregate": "order",
                    "id": "1",
                    "kind": "paid",
                    "after": after,
                    "data": {"amount": "5"},
                    "version": 2,
                },
            ],
            "refused": [
                {"aggregate": "order", "id": "9", "event": "paid", "reason": "there is no order 9"},
                {"aggregate": "order", "id": "1", "event": "paid", "reason": '/data: "amount" is a required property'},
            ],
        },
    )
    code, out = run(project, capsys)
    assert code == 0, out


def test_a_case_has_what_is_stated_in_every_live_major(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each valid by the schema of its own major; an event may be called as a major is."""
    newest = project / "schemas/shop/order/v2.0.json"
    newest.write_text((project / "schemas/shop/order/v1.0.json").read_text().replace("order:1.0", "order:2.0"))
    write_contract(project, "order", [], {"id": "integer", "town": ["string", "null"]})
    (project / "schemas/shop/order.paid").rename(project / "schemas/shop/order.v1")
    data = write_data(project, DATA)
    data.write_text(data.read_text().replace("order.paid", "order.v1"))
    data.rename(project / "schemas/shop/order.v1/v1.0.json")
    majors = "    contract: v2.0\n    former: {v1.0: in_town}\n    events: {v1: {contract: v1.0}}\n  line:\n"
    (project / "connectors/shop.yaml").write_text(SOURCE.replace("  line:\n", majors))
    module = "def in_town(order):\n    return {'id': order['id'], 'town': order['place']}\n"
    (project / "connectors/shop.py").write_text(module)
    paid = {"aggregate": "order", "id": "1", "event": "v1", "data": {"amount": "5"}}
    after, older = {"id": 1, "status": "open", "place": "Oslo"}, {"id": 1, "town": "Oslo"}
    told = {"aggregate": "order", "id": "1"}
    write_case(
        project,
        {
            "write": {"public.status": [{"id": 1, "name": "open"}], "public.orders": [order(1, 1)]},
            "state": [paid],
            "events": [
                {**told, "kind": "created", "version": 1, "after": after},
                {**told, "kind": "created", "version": 1, "major": 1, "after": older},
                {**told, "kind": "v1", "version": 2, "after": after, "data": {"amount": "5"}},
                {**told, "kind": "v1", "version": 2, "major": 1, "after": older, "data": {"amount": "5"}},
            ],
        },
    )
    code, out = run(project, capsys)
    assert code == 0, out
    (project / "connectors/shop.py").write_text(module.replace("order['place']", "1"))
    code, out = run(project, capsys)
    assert code == 1
    assert "in major 1: /after" in out


def test_the_definition_keeps_the_events(project: Path) -> None:
    """Workers need no project folder; a definition from before there were events has none."""
    from rowcast.sources.compilation import compile_definition
    from stream_app.case import _catalogue

    source = load_source(project / "connectors/shop.yaml")
    names = ("order", "line", "order.paid")
    contracts = {name: load_contract(project / f"schemas/shop/{name}/v1.0.json") for name in names}
    definition = compile_definition(source, contracts, _catalogue(TABLES))

    assert SourceDefinition.from_json(definition.to_json()) == definition
    document = json.loads(definition.to_json())
    for each in document["aggregates"]:
        del each["events"]
    assert [each.events for each in SourceDefinition.from_json(json.dumps(document)).aggregates] == [(), ()]


def test_the_helper_writes_what_the_worker_reads() -> None:
    """Ids become text, as they do elsewhere; what is no JSON is refused where it is written."""
    assert json.loads(stated_event("item", 5, "lost")) == {"aggregate": "item", "id": 5, "event": "lost", "data": {}}
    assert json.loads(stated_event("item", {"a": Path("x"), "b": 2}, "lost", {"n": 1}))["id"] == {"a": "x", "b": 2}
    for data in ({"at": object()}, {"n": float("nan")}):
        with pytest.raises(ConfigurationError, match="data of 'lost': is no JSON"):
            stated_event("item", 5, "lost", data)


def test_the_helper_needs_a_transaction() -> None:
    """Else each statement would be a transaction of its own, in which nothing has changed."""

    class Idle:
        autocommit = True

        class pgconn:  # noqa: N801 - what psycopg calls it
            transaction_status = 0

    with pytest.raises(ConfigurationError, match="state_event"):
        state_event(Idle(), "item", 5, "lost")  # type: ignore[arg-type]


def test_catalogue_asyncapi_and_generated_types_tell_of_them(project: Path) -> None:
    """A reader of the pages, of the document and of the module sees what may come, and what its data are."""
    schemas = project / "schemas"
    write_data(project, {**DATA, "properties": {**DATA["properties"], "at": DATA["properties"]["by"]}}, "1.1")
    arguments = ["--schemas", str(schemas)]
    assert main(["--project", str(project), "schemas", "catalogue", *arguments, "--out", str(project / "pages")]) == 0
    page = (project / "pages/shop.order.v1.html").read_text()
    assert "shop.order.paid.v1" in page
    assert "Somebody paid an order." in page
    assert sorted(path.name for path in (project / "pages").glob("*.html")) == [
        "index.html",
        "shop.line.v1.html",
        "shop.order.v1.html",
    ]

    assert main(["schemas", "asyncapi", *arguments, "--out", str(project / "api.json")]) == 0
    document = json.loads((project / "api.json").read_text())
    name = "shop.order.v1.stated.paid"
    assert document["components"]["messages"][name]["headers"]["properties"]["ce_type"]["const"] == "shop.order.paid.v1"
    amount = document["components"]["schemas"][name]["properties"]["data"]["properties"]["amount"]
    assert amount["allOf"] == [{"$ref": f"#/components/schemas/{name}.money"}]
    assert document["components"]["schemas"][f"{name}.money"]["pattern"] == "^[0-9]+$"

    assert main(["schemas", "codegen", *arguments, "--out", str(project / "types")]) == 0
    text = (project / "types/shop/order_v1.py").read_text()
    compile(text, "order_v1.py", "exec")
    assert "class OrderPaidData(TypedDict):" in text
    assert "at: NotRequired[str | None]" in text
    assert sorted(path.name for path in (project / "types/shop").iterdir()) == [
        "__init__.py",
        "line_v1.py",
        "order_v1.py",
    ]
