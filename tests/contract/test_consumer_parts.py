"""Consumers' committed parts: what they may say, and whom a change of a contract breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_schema_changes import ENTITY, Command, changed, project, schemas, write, write_version

from rowcast.cli.main import main
from rowcast.contracts.checking import valid_contracts
from rowcast.contracts.consumer_part import load_part, part_files
from rowcast.contracts.contract import contract_of
from rowcast.contracts.readership import Readership, _at_a_glance, _reads

__all__ = ["project", "schemas"]

REPOSITORY = Path(__file__).resolve().parents[2]
PLACED_OR_PAID = {"status": {"enum": ["placed", "paid"]}}
ANY_STATUS = {"status": {"type": "string"}}
NOTE = {"type": ["string", "null"], "description": "Note.", "examples": ["a"], "x-pii": "none"}


def write_part(project: Path, app: str, properties: dict[str, Any], **more: object) -> Path:
    """The part of *app* of the order's events."""
    part = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "Made for a test.",
        "type": "object",
        "properties": properties,
        **more,
    }
    path = project / f"consumers/{app}/shop.order.v1.json"
    write(path, part)
    return path


def test_a_change_names_whom_it_breaks_and_whom_it_does_not_touch(project: Path, schemas: Command) -> None:
    """Who uses the changed field in the way that breaks is named; who uses it otherwise, or not at all, is not."""
    write_part(project, "billing", PLACED_OR_PAID)
    write_part(project, "search", {"id": {"type": "string"}})
    write_part(project, "mail", ANY_STATUS)
    write_version(project, "1.1", changed("properties/status/enum", ["placed", "paid", "refunded"]))
    found = {each["rule"]: each for each in schemas.findings("check", "--against", "main")}

    assert set(found) == {"ENUM_VALUE_ADDED", "CONSUMER_BROKEN"}
    assert found["ENUM_VALUE_ADDED"]["consumers"] == {"breaks": ["billing"], "untouched": ["mail", "search"]}
    assert found["CONSUMER_BROKEN"]["pointer"] == "/properties/status/enum"
    assert found["CONSUMER_BROKEN"]["witness"]["after"]["status"] == "refunded"


def test_each_of_several_changes_has_its_own_consumers(project: Path, schemas: Command) -> None:
    """A witness may break more than its own finding; who is named hangs on the place alone."""
    write_part(project, "billing", PLACED_OR_PAID)
    write_part(project, "search", {"id": {"type": "string"}})
    entity = changed("properties/status/enum", ["placed", "paid", "refunded"])
    write_version(project, "1.1", changed("properties/id/type", ["string", "null"], entity))
    named = {each["rule"]: each.get("consumers") for each in schemas.findings("check")}

    assert named["ENUM_VALUE_ADDED"] == {"breaks": ["billing"], "untouched": ["search"]}
    assert named["NULLABLE_ADDED"] == {"breaks": ["search"], "untouched": ["billing"]}


def test_a_change_that_only_new_readers_feel_breaks_no_consumer(project: Path, schemas: Command) -> None:
    """A value that is no longer sent is a finding, and nobody's loss."""
    write_part(project, "billing", PLACED_OR_PAID)
    write_version(project, "1.1", changed("properties/status/enum", ["paid"]))
    (finding,) = schemas.findings("check")

    assert (finding["rule"], finding["direction"]) == ("ENUM_VALUE_REMOVED", "backward")
    assert finding["consumers"] == {"breaks": [], "untouched": ["billing"]}


def test_an_edit_in_place_and_a_deletion_name_consumers(project: Path, schemas: Command) -> None:
    """Also where versions are not compared with each other."""
    write_part(project, "billing", PLACED_OR_PAID)
    write_part(project, "search", {"id": {"type": "string"}})
    path = write_version(project, "1.0", changed("properties/status/enum", ["placed", "paid", "refunded"]))
    edited = {each["rule"]: each.get("consumers") for each in schemas.findings("check", "--against", "main")}
    write_version(project, "2.0", ENTITY)
    for each in path.parent.glob("v1.0*"):
        each.unlink()
    gone = {each["rule"]: each.get("consumers") for each in schemas.findings("check", "--against", "main")}

    assert edited["VERSION_EDITED"] == {"breaks": ["billing"], "untouched": ["search"]}
    assert gone["VERSION_DELETED"] == {"breaks": ["billing", "search"], "untouched": []}
    assert gone["CONSUMER_EVENT_UNKNOWN"] is None


def test_every_format_names_consumers(project: Path, schemas: Command) -> None:
    """Text, GitHub and JUnit say the same as JSON."""
    write_part(project, "billing", PLACED_OR_PAID)
    write_part(project, "search", {"id": {"type": "string"}})
    write_version(project, "1.1", changed("properties/status/enum", ["placed", "paid", "refunded"]))
    text, github = (schemas("check", "--format", name)[1] for name in ("text", "github"))
    suite = ElementTree.fromstring(schemas("check", "--format", "junit")[1])  # noqa: S314 - written by ourselves
    (told,) = [each.text or "" for each in suite.iter("failure") if "breaks" in (each.text or "")]

    assert text.splitlines()[3:5] == ["  breaks consumers: billing", "  does not touch: search"]
    assert "%0Abreaks consumers: billing%0Adoes not touch: search" in github
    assert told.splitlines()[1:] == ["breaks consumers: billing", "does not touch: search"]


@pytest.mark.parametrize(
    "schema", [ANY_STATUS, PLACED_OR_PAID, {"status": {}}, {}, {"id": {"type": ["string", "null"]}}]
)
def test_a_part_that_asks_for_less_is_in_order(schema: dict[str, Any], project: Path, schemas: Command) -> None:
    """It may repeat the contract, or leave out what the consumer does not rely on."""
    write_part(project, "billing", schema, required=list(schema))

    assert schemas("check") == (0, "1 contract, 0 findings\n")


DEEP = {"type": "array", "items": {"type": "object", "properties": {"skew": {"type": "string"}}}}
FAULTS: dict[str, tuple[dict[str, Any], dict[str, object], str, str]] = {
    "a value too few": ({"status": {"enum": ["paid"]}}, {}, "CONSUMER_BROKEN", "/properties/status/enum"),
    "another type": ({"id": {"type": "integer"}}, {}, "CONSUMER_BROKEN", "/properties/id/type"),
    "an optional field": ({"note": {}}, {"required": ["note"]}, "CONSUMER_BROKEN", "/required"),
    "a type above that is none": ({}, {"x-ancestors": ["house"]}, "CONSUMER_BROKEN", "/properties/ancestors/required"),
    "a misspelt field": ({"sttus": {}}, {}, "CONSUMER_FIELD_UNKNOWN", "/properties/sttus"),
    "a misspelt field below": (
        {"lines": DEEP},
        {},
        "CONSUMER_FIELD_UNKNOWN",
        "/properties/lines/items/properties/skew",
    ),
    "a closed reader": ({}, {"additionalProperties": False}, "UNSUPPORTED_KEYWORD", "/additionalProperties"),
    "no description": ({}, {"description": ""}, "DESCRIPTION_MISSING", ""),
    "an unknown keyword": ({"id": {"if": {}}}, {}, "UNSUPPORTED_KEYWORD", "/properties/id/if"),
    "an unknown format": ({"id": {"format": "uid"}}, {}, "FORMAT_UNKNOWN", "/properties/id/format"),
    "another dialect": ({}, {"$schema": "http://json-schema.org/draft-07/schema#"}, "DIALECT", "/$schema"),
    "no schema": ({"id": {"minLength": "1"}}, {}, "SCHEMA_INVALID", "/properties/id/minLength"),
    "a required name that is none": ({}, {"required": ["id"]}, "REQUIRED", "/required"),
    "no object": ({}, {"type": "array"}, "CONSUMER_UNREADABLE", ""),
    "no types above": ({}, {"x-ancestors": 7}, "CONSUMER_UNREADABLE", ""),
}
LINES = {
    "type": "array",
    "description": "Lines.",
    "items": {"$ref": "#/$defs/line"},
}
LINE = {"type": "object", "properties": {"sku": {"type": "string", "description": "Article.", "x-pii": "none"}}}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_a_part_is_found(case: str, project: Path, schemas: Command) -> None:
    """It names the part's file, the place and the rule; the contract itself is in order."""
    entity = {**changed("properties/note", NOTE), "$defs": {"line": LINE}}
    write_version(project, "1.1", changed("properties/lines", LINES, entity))
    properties, more, rule, pointer = FAULTS[case]
    path = write_part(project, "billing", properties, **more)
    (finding,) = schemas.findings("check")

    assert (finding["file"], finding["rule"], finding["pointer"]) == (str(path), rule, pointer)
    assert finding["fix"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("billing/shop.order.v2.json", "CONSUMER_EVENT_UNKNOWN"),
        ("billing/shop.odrer.v1.json", "CONSUMER_EVENT_UNKNOWN"),
        ("billing/shop.order.json", "CONSUMER_NAME"),
        ("billing/old/shop.order.v1.json", "CONSUMER_NAME"),
        ("Billing App/shop.order.v1.json", "CONSUMER_NAME"),
        ("shop.order.v1.json", "CONSUMER_NAME"),
    ],
)
def test_a_part_of_no_event_is_found(name: str, rule: str, project: Path, schemas: Command) -> None:
    """A name that says nothing, or names what does not exist, would leave the consumer unguarded."""
    path = write_part(project, "billing", {})
    target = project / "consumers" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)

    assert [(each["file"], each["rule"]) for each in schemas.findings("check")] == [(str(target), rule)]


def test_consumers_are_listed(project: Path, schemas: Command) -> None:
    """With what they use, and whether they read the newest contract; one event may be asked for."""
    write_part(project, "billing", {"status": {"enum": ["paid"]}})
    path = write_part(project, "search", {"id": {}}, required=["id"])
    code, text = schemas("consumers", "--json")
    listed = {each["app"]: each for each in json.loads(text)["consumers"]}

    assert code == 1
    assert listed["billing"]["reads"] is False
    assert listed["search"] == {
        "app": "search",
        "event": "shop.order.v1",
        "file": str(path),
        "fields": ["id"],
        "ancestors": [],
        "contract": "v1.0",
        "reads": True,
    }
    assert "search  shop.order.v1  reads v1.0: id\n2 consumers" in schemas("consumers", "shop.order.v1")[1]
    assert schemas("consumers", "shop.order.v9")[0] == 2


def test_what_is_read_at_a_glance_is_read(tmp_path: Path) -> None:
    """The short cut for parts that repeat the contract never says more than the comparison itself."""
    _contracts, _findings = valid_contracts(REPOSITORY / "schemas")
    item = next(each for each in _contracts if each.aggregate == "item")
    same = {"id": item.entity["properties"]["id"], "status": {"type": "string"}}
    cases: list[tuple[dict[str, Any], dict[str, object]]] = [
        (same, {"required": ["id"]}),
        (same, {"x-ancestors": ["instance"]}),
        (same, {"x-ancestors": ["house"]}),
        ({"status": {"type": "integer"}}, {}),
        ({"more": {"type": "integer"}}, {"required": ["more"]}),
        (same, {"maxProperties": 1}),
        ({}, {"$defs": {"a": {"type": "string"}}}),
    ]
    glances = []
    for properties, more in cases:
        path = write_part(tmp_path, "app", properties, **more).rename(tmp_path / "consumers/app/inventory.item.v1.json")
        ((_path, name),) = part_files(tmp_path / "consumers")
        assert name
        part = load_part(path, name)
        glances.append(_at_a_glance(part, item))
        assert not glances[-1] or _reads(part, contract_of(item.path, dict(item.entity)))[0] is True

    assert glances == [True, True, False, False, False, False, False]


def test_the_part_of_the_page_is_in_order(project: Path, schemas: Command) -> None:
    """Copied word for word, it reads the contract of the page on contracts."""
    pages = [(REPOSITORY / f"docs/reference/{name}.md").read_text() for name in ("contracts", "consumer-parts")]
    contract, part = (page.partition("```json\n")[2].partition("```")[0] for page in pages)
    write(project / "consumers/orders/inventory.holdings.v1.json", json.loads(part))
    entity = changed(
        "properties/instance_id",
        {"type": "string", "format": "uuid", "description": "I.", "x-pii": "none"},
        json.loads(contract),
    )
    entity["required"].append("instance_id")
    write(project / "schemas/inventory/holdings/v1.0.json", entity)

    assert not [each for each in schemas.findings("check") if each["rule"].startswith("CONSUMER")]
    assert json.loads(schemas("consumers", "inventory.holdings.v1", "--json")[1])["consumers"][0]["reads"] is True


def test_the_demo_consumer_reads_the_demo_events() -> None:
    """The orders service has committed what it uses, and is guarded by the lint of this repository."""
    contracts, _findings = valid_contracts(REPOSITORY / "schemas")
    readership = Readership(REPOSITORY / "consumers", REPOSITORY / "schemas", contracts)

    assert readership.findings == []
    assert {part.event for part in readership.parts} == {
        f"inventory.{name}.v1" for name in ("item", "holdings", "instance")
    }
    assert main(["--project", str(REPOSITORY), "schemas", "consumers"]) == 0
