"""The AsyncAPI document: the same events as the contracts allow, and valid by the official parser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schema_generator import Schemas
from test_codegen import CONTRACTS, TRIED, contract_with

from rowcast.cli.main import main
from rowcast.contracts.asyncapi import asyncapi_document
from rowcast.contracts.contract import Contract
from rowcast.contracts.factory import EventFactory
from rowcast.event import EventKind

REPOSITORY = Path(__file__).resolve().parents[2]
PARSER = REPOSITORY / "tests/asyncapi"


def document_of(*contracts: Contract) -> dict[str, Any]:
    return asyncapi_document(contracts, {}, title="Events", version="1")


def payload_validator(contract: Contract) -> Any:
    """The validator of a message's value, by the document alone."""
    document = document_of(contract)
    ((topic, _channel),) = document["channels"].items()
    schema = {"$ref": f"#/components/schemas/{topic}", "components": document["components"]}
    # Formats that draft-07 does not know.
    younger = {
        name: jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True).is_valid
        for name in ("duration", "uuid")
    }
    return jsonschema_rs.Draft7Validator(schema, validate_formats=True, formats=younger)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.aggregate)
def test_the_document_accepts_and_rejects_the_examples(contract: Contract) -> None:
    """Its draft-07 schemas say the same as the derived ones."""
    validator = payload_validator(contract)
    verdicts = {
        verdict: {validator.is_valid(json.loads(path.read_text())) for path in contract.examples(verdict)}
        for verdict in ("accepted", "rejected")
    }

    assert verdicts == {"accepted": {True}, "rejected": {False}}


@pytest.mark.parametrize("seed", range(20))
def test_random_contracts_keep_their_meaning(seed: int) -> None:
    """What is made from the contract, and what is spoiled of it, gets the same verdict from both schemas."""
    schema = Schemas(seed).document()
    contract = contract_with(schema["properties"], schema.get("$defs", {}), "thing")
    ours = jsonschema_rs.Draft202012Validator(contract.value_schema(), validate_formats=True)
    theirs = payload_validator(contract)
    made = [EventFactory(contract, number).value(EventKind.UPDATED) for number in range(4)]
    spoiled = [
        {**value, "after": {**value["after"], name: other}}
        for value in made
        for name in contract.properties
        for other in ("?", 10**6, None, [], {})
    ]

    assert [theirs.is_valid(value) for value in made + spoiled] == [ours.is_valid(value) for value in made + spoiled]


def test_what_stands_beside_a_reference_counts() -> None:
    """A reference of draft-07 would hide it."""
    narrowed = {"$ref": "#/$defs/n", "maximum": 3}
    contract = contract_with({"n": narrowed}, {"n": {"type": "integer"}}, "thing")
    value = {"before": None, "ancestors": {"class": None, "house": None}, "context": {}}
    verdicts = [payload_validator(contract).is_valid({**value, "after": {"n": number}}) for number in (3, 4, "x")]

    assert verdicts == [True, False, False]


def test_the_command_prints_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the consumers of the repository; the same each time."""
    command = ["--project", str(REPOSITORY), "schemas", "asyncapi", "--title", "Library"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "a.json")]) == 0
    document = json.loads(printed)

    assert (tmp_path / "a.json").read_text() == printed
    assert document["info"]["title"] == "Library"
    assert document["channels"]["inventory.item.v1"]["x-consumers"] == ["orders"]
    assert set(document["channels"]) == {f"inventory.{name}.v1" for name in ("instance", "holdings", "item")}


def no_address(document: dict[str, Any]) -> dict[str, Any]:
    """*document* with a reference that leads nowhere."""
    spoiled: dict[str, Any] = json.loads(json.dumps(document))
    for message in spoiled["components"]["messages"].values():
        message["payload"]["$ref"] += ".gone"
    return spoiled


@pytest.mark.slow
def test_the_official_parser_accepts_it(tmp_path: Path) -> None:
    """The document of this repository and one with hostile names; a broken one it refuses."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("Node 18 or newer and npm are needed; on Debian: apt-get install nodejs npm")
    folder = tmp_path / "parser"
    shutil.copytree(PARSER, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=folder, check=True, capture_output=True, timeout=240)
    documents = {
        "good": document_of(*CONTRACTS),
        "odd": document_of(*TRIED),
        "bad": no_address(document_of(*CONTRACTS)),
    }
    told = {}
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
        command = ["node", "validate.js", f"{name}.json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        told[name] = (done.returncode, bool(done.stdout + done.stderr))

    assert told == {"good": (0, False), "odd": (0, False), "bad": (1, True)}
