"""Derivation of value schemas and the check of contracts: each rule is seen to fire."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rowcast.cli.main import main
from rowcast.contracts.checking import check_folder
from rowcast.contracts.contract import contract_of, find_contract, load_contract
from rowcast.contracts.lint import lint
from rowcast.contracts.profile import KEYWORDS
from rowcast.contracts.remedies import REMEDIES
from rowcast.errors import ConfigurationError

ENTITY: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:rowcast:schema:shop.line:1.0:entity",
    "title": "Line",
    "description": "A line of an order.",
    "x-ancestors": ["order"],
    "type": "object",
    "required": ["id", "amount", "tags"],
    "properties": {
        "id": {"type": "string", "format": "uuid", "description": "Id.", "x-pii": "none"},
        "amount": {"type": ["integer", "null"], "description": "How many.", "x-pii": "none"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "description": "Tags."},
    },
    "$defs": {
        "tag": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "description": "Name.", "x-pii": "none"}},
        }
    },
}
AFTER = {"id": "0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1", "amount": None, "tags": [{"name": "a"}]}
EVENT = {"after": AFTER, "before": None, "ancestors": {"order": ["7"]}, "context": {}}


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """A folder with one contract that has no fault."""
    write(tmp_path / "shop/line/v1.0.json", ENTITY)
    write(tmp_path / "shop/line/examples/v1.0/accepted/created.json", EVENT)
    write(tmp_path / "shop/line/examples/v1.0/rejected/no_ancestors.json", {**EVENT, "ancestors": {}})
    derive(tmp_path)
    return tmp_path


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def derive(schemas: Path) -> None:
    assert main(["schemas", "derive", "--schemas", str(schemas)]) == 0


def test_a_contract_without_fault_has_no_finding(schemas: Path) -> None:
    """The check of a correct folder is silent."""
    assert check_folder(schemas) == []


ACCEPTED = {
    "created": {},
    "deleted": {"after": None, "before": AFTER},
    "changed": {"before": {"amount": 3}},
    "moved": {"before": {"ancestors": {"order": ["6"]}}},
    "parent unknown": {"ancestors": {"order": None}},
    "no parent": {"ancestors": {"order": []}},
    "context": {"context": {"actor": "me", "reason": "why", "error": "not JSON"}},
    "newer minor": {"after": {**AFTER, "colour": "red"}},
}
REJECTED = {
    "field missing": {"after": {"id": AFTER["id"], "amount": 1}},
    "not a uuid": {"after": {**AFTER, "id": "7"}},
    "definition violated": {"after": {**AFTER, "tags": [{}]}},
    "former definition violated": {"before": {"tags": [{"name": 1}]}},
    "former value of another type": {"before": {"amount": "3"}},
    "former ancestors of another shape": {"before": {"ancestors": {"order": "6"}}},
    "ancestor type missing": {"ancestors": {}},
    "ancestors missing": {"ancestors": None},
    "context of another type": {"context": {"actor": 7}},
    "no context": {"context": None},
    "entity as text": {"after": "x"},
}


@pytest.mark.parametrize("case", [*ACCEPTED, *REJECTED])
def test_the_derived_schema_accepts_events_and_nothing_else(schemas: Path, case: str) -> None:
    """One rule gives the schema of created, changed, moved and deleted events; local references survive it."""
    schema = load_contract(schemas / "shop/line/v1.0.json").value_schema()
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert validator.is_valid({**EVENT, **ACCEPTED.get(case, {}), **REJECTED.get(case, {})}) is (case in ACCEPTED)


def test_the_derived_schema_is_named_as_events_name_it(schemas: Path) -> None:
    """Its ``$id`` is ``ce_dataschema``; deriving twice gives the same bytes."""
    contract = load_contract(schemas / "shop/line/v1.0.json")
    assert contract.value_schema()["$id"] == contract.dataschema == "urn:rowcast:schema:shop.line:1.0"
    assert contract.event_path.read_text() == contract.derived_text()


def change(entity: dict[str, Any], pointer: str, value: object) -> None:
    *path, last = pointer.split("/")
    for part in path:
        entity = entity[part]
    if value is None:
        del entity[last]
    else:
        entity[last] = value


ENTITY_FAULTS: dict[str, tuple[str, object, str, str]] = {
    "other dialect": ("$schema", "http://json-schema.org/draft-07/schema#", "DIALECT", "/$schema"),
    "other id": ("$id", "urn:rowcast:schema:shop.line:1.1:entity", "NAME_MISMATCH", "/$id"),
    "no title": ("title", None, "DESCRIPTION_MISSING", ""),
    "closed": ("additionalProperties", False, "UNSUPPORTED_KEYWORD", "/additionalProperties"),
    "condition": ("if", {}, "UNSUPPORTED_KEYWORD", "/if"),
    "field not required": ("required", ["id", "amount"], "REQUIRED", "/required"),
    "unknown field required": ("required", ["id", "amount", "tags", "x"], "REQUIRED", "/required"),
    "no hierarchy": ("x-ancestors", None, "ANCESTORS", "/x-ancestors"),
    "own ancestor": ("x-ancestors", ["line"], "ANCESTORS", "/x-ancestors"),
    "type twice": ("x-ancestors", ["order", "order"], "ANCESTORS", "/x-ancestors"),
    "no description": ("properties/id/description", None, "DESCRIPTION_MISSING", "/properties/id"),
    "not classified": ("properties/id/x-pii", None, "PII_MISSING", "/properties/id"),
    "not classified below": ("$defs/tag/properties/name/x-pii", None, "PII_MISSING", "/$defs/tag/properties/name"),
    "remote reference": (
        "properties/tags/items",
        {"$ref": "https://example.org/tag"},
        "REFERENCE",
        "/properties/tags/items/$ref",
    ),
    "reference to nothing": (
        "properties/tags/items",
        {"$ref": "#/$defs/x"},
        "REFERENCE",
        "/properties/tags/items/$ref",
    ),
    "format that nobody checks": ("properties/id/format", "uid", "FORMAT_UNKNOWN", "/properties/id/format"),
    "type that does not exist": ("properties/id/type", "text", "TYPE_UNKNOWN", "/properties/id/type"),
    "pattern that is none": ("properties/id/pattern", "[", "SCHEMA_INVALID", "/properties/id/pattern"),
    "minimum as text": ("properties/amount/minimum", "1", "SCHEMA_INVALID", "/properties/amount/minimum"),
    "closed below": ("$defs/tag/additionalProperties", False, "CLOSED_READER", "/$defs/tag/additionalProperties"),
    "property that is no schema": ("properties/id/properties", {"a": True}, "UNSUPPORTED_KEYWORD", "/properties/id/pr"),
}


@pytest.mark.parametrize("case", ENTITY_FAULTS)
def test_a_fault_in_a_contract_is_found_with_its_pointer(schemas: Path, case: str) -> None:
    """Each rule of the profile names its rule and the place in the file."""
    pointer, value, rule, place = ENTITY_FAULTS[case]
    entity = json.loads(json.dumps(ENTITY))
    change(entity, pointer, value)
    write(schemas / "shop/line/v1.0.json", entity)
    found = [(each.rule, each.pointer) for each in check_folder(schemas) if each.file.endswith("v1.0.json")]
    assert any(each[0] == rule and each[1].startswith(place) for each in found), found


ANYTHING: list[Any] = [{}, [{}], [], 1, True, "x", [["a"]]]


def rules_with(keyword: str, place: str, value: object) -> set[str]:
    """The rules that the contract breaks with *value* in a keyword."""
    entity = json.loads(json.dumps(ENTITY))
    change(entity, place + keyword, value)
    try:
        return {finding.rule for finding in lint(contract_of(Path("shop/line/v1.0.json"), entity))}
    except ConfigurationError:
        return {"CONTRACT_UNREADABLE"}


@pytest.mark.parametrize("keyword", sorted({*KEYWORDS, "$defs", "x-pii", "x-ancestors"}))
def test_whatever_stands_in_a_keyword_is_looked_at(keyword: str) -> None:
    """A keyword may hold anything at all: there are findings or none, never a fault of the check."""
    places = ("", "properties/id/", "$defs/tag/")

    assert {rule for place in places for value in ANYTHING for rule in rules_with(keyword, place, value)} <= set(
        REMEDIES
    )


UNREADABLE = {
    "a number that is none": json.dumps(ENTITY).replace('"Id."', "NaN").encode(),
    "a number without end": json.dumps(ENTITY).replace('"Id."', "1e999").encode(),
    "no UTF-8": json.dumps(ENTITY).encode("utf-16"),
    "levels without end": b'{"type": "object", "properties": {"a": ' + b'{"items": ' * 5000 + b"{}" + b"}" * 5002,
    "too many levels": json.dumps({**ENTITY, "x-deep": json.loads("[" * 120 + "]" * 120)}).encode(),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_contract_is_found(schemas: Path, case: str) -> None:
    """Bytes that are no strict JSON, or nested too deeply to be worked with, are a finding."""
    (schemas / "shop/line/v1.0.json").write_bytes(UNREADABLE[case])

    assert [each.rule for each in check_folder(schemas)] == ["CONTRACT_UNREADABLE"]


def test_the_name_ancestors_is_reserved(schemas: Path) -> None:
    """A property of that name would collide with the former ancestors in ``before``."""
    entity = json.loads(json.dumps(ENTITY))
    entity["properties"]["ancestors"] = entity["properties"]["id"]
    entity["required"].append("ancestors")
    write(schemas / "shop/line/v1.0.json", entity)
    assert "NAME_RESERVED" in [each.rule for each in check_folder(schemas)]


def _forget_to_derive(schemas: Path) -> None:
    (schemas / "shop/line/v1.0.event.json").unlink()


def _edit_derived(schemas: Path) -> None:
    path = schemas / "shop/line/v1.0.event.json"
    path.write_text(path.read_text() + "\n")


def _refused_example(schemas: Path) -> None:
    write(schemas / "shop/line/examples/v1.0/accepted/other.json", {**EVENT, "after": {**AFTER, "amount": "x"}})


def _accepted_example(schemas: Path) -> None:
    write(schemas / "shop/line/examples/v1.0/rejected/fine.json", EVENT)


def _no_rejected_example(schemas: Path) -> None:
    shutil.rmtree(schemas / "shop/line/examples/v1.0/rejected")


def _broken_example(schemas: Path) -> None:
    (schemas / "shop/line/examples/v1.0/accepted/broken.json").write_text("{")


def _stray(schemas: Path) -> None:
    write(schemas / "shop/line/v1.json", ENTITY)


def _example_of_no_version(schemas: Path) -> None:
    write(schemas / "shop/line/examples/v1.1/accepted/created.json", EVENT)


def _name_twice(schemas: Path) -> None:
    path = schemas / "shop/line/v1.0.json"
    path.write_text(path.read_text().replace('"title"', '"title": "x", "title"', 1))


FOLDER_FAULTS: dict[str, Callable[[Path], None]] = {
    "DERIVED_MISSING": _forget_to_derive,
    "DERIVED_STALE": _edit_derived,
    "EXAMPLE_REFUSED": _refused_example,
    "EXAMPLE_ACCEPTED": _accepted_example,
    "EXAMPLE_MISSING": _no_rejected_example,
    "EXAMPLE_UNREADABLE": _broken_example,
    "FILE_UNKNOWN": _stray,
    "CONTRACT_UNREADABLE": _name_twice,
}


@pytest.mark.parametrize("rule", FOLDER_FAULTS)
def test_a_fault_in_the_folder_is_found(schemas: Path, rule: str) -> None:
    """Derived files, examples and stray files are part of the check."""
    FOLDER_FAULTS[rule](schemas)
    assert [each.rule for each in check_folder(schemas)] == [rule]


def test_examples_of_a_version_that_does_not_exist_are_found(schemas: Path) -> None:
    """Examples that nothing reads prove nothing."""
    _example_of_no_version(schemas)
    assert [each.rule for each in check_folder(schemas)] == ["FILE_UNKNOWN"]


def test_exit_codes_and_json(schemas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0: nothing wrong, 1: findings, 2: nothing to check."""
    command = ["schemas", "check", "--json", "--schemas"]
    capsys.readouterr()
    assert main([*command, str(schemas)]) == 0
    assert json.loads(capsys.readouterr().out) == {"contracts": 1, "findings": [], "notes": []}
    _accepted_example(schemas)
    assert main([*command, str(schemas)]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["rule"], finding["pointer"]) == ("EXAMPLE_ACCEPTED", "")
    assert main([*command, str(tmp_path / "nothing")]) == 2


def test_the_newest_minor_of_the_newest_major_is_taken(schemas: Path) -> None:
    """A source file without a version follows the newest contract, by number and not by text."""
    for version in ("v1.2", "v1.10", "v2.0"):
        write(schemas / f"shop/line/{version}.json", ENTITY)
    assert find_contract(schemas, "shop", "line", None).version == "v2.0"
    (schemas / "shop/line/v2.0.json").unlink()
    assert find_contract(schemas, "shop", "line", None).version == "v1.10"
    assert find_contract(schemas, "shop", "line", (1, 0)).version == "v1.0"
    with pytest.raises(ConfigurationError, match="no such contract"):
        find_contract(schemas, "shop", "line", (3, 0))
