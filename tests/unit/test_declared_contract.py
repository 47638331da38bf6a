"""The contracts that a source file declares: refused with the findings of the check, before anything is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rowcast.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The demo's source and contracts, without stack; databases are not known."""
    shutil.copytree(REPOSITORY / "schemas", tmp_path / "schemas")
    (tmp_path / "connectors").mkdir()
    shutil.copy(REPOSITORY / "connectors/inventory.yaml", tmp_path / "connectors")
    return tmp_path


def other_id(entity: dict[str, Any]) -> None:
    entity["$id"] = "urn:rowcast:schema:inventory.thing:1.0:entity"


def misspelt_keyword(entity: dict[str, Any]) -> None:
    entity["properties"]["status"]["tpye"] = entity["properties"]["status"].pop("type")


def unknown_format(entity: dict[str, Any]) -> None:
    entity["properties"]["barcode"]["format"] = "barcode"


def incomplete_required(entity: dict[str, Any]) -> None:
    entity["required"].remove("status")


def unclassified(entity: dict[str, Any]) -> None:
    del entity["properties"]["barcode"]["x-pii"]


WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str, str]] = {
    "other id": (other_id, "/$id", "NAME_MISMATCH"),
    "misspelt keyword": (misspelt_keyword, "/properties/status/tpye", "UNSUPPORTED_KEYWORD"),
    "unknown format": (unknown_format, "/properties/barcode/format", "FORMAT_UNKNOWN"),
    "incomplete required": (incomplete_required, "/required", "REQUIRED"),
    "unclassified": (unclassified, "/properties/barcode", "PII_MISSING"),
}


@pytest.mark.guarantee("Contracts hold")
@pytest.mark.parametrize("verb", ["plan", "apply"])
@pytest.mark.parametrize("case", WRONG)
def test_a_contract_that_the_check_rejects_is_not_applied(
    project: Path, capsys: pytest.CaptureFixture[str], case: str, verb: str
) -> None:
    """Plan and apply exit with 2 and print the lines of `rowcast schemas check`."""
    spoil, pointer, rule = WRONG[case]
    path = project / "schemas/inventory/item/v1.0.json"
    entity = json.loads(path.read_text())
    spoil(entity)
    path.write_text(json.dumps(entity))
    assert main(["--project", str(project), "schemas", "check"]) == 1
    (found,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{path}#")]
    assert found.startswith(f"{path}#{pointer}: ")
    assert found.endswith(f"[{rule}]")
    assert main(["--project", str(project), "sources", verb]) == 2
    assert found in capsys.readouterr().err


def test_all_findings_of_all_contracts_come_in_one_go(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken file, a missing one and a wrong one are told together."""
    schemas = project / "schemas/inventory"
    (schemas / "instance/v1.0.json").write_text("{")
    shutil.rmtree(schemas / "holdings")
    path = schemas / "item/v1.0.json"
    path.write_text(path.read_text().replace("urn:rowcast:schema:inventory.item:1.0:entity", "item"))
    assert main(["--project", str(project), "sources", "plan"]) == 2
    told = capsys.readouterr().err
    assert "instance/v1.0.json: cannot be read: not JSON" in told
    assert "[CONTRACT_UNREADABLE]" in told
    assert "holdings" in told
    assert "[NAME_MISMATCH]" in told


def test_examples_and_derived_files_do_not_hold_up_a_plan(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is published counts: without them the plan goes on to the database, which is not known here."""
    for path in (project / "schemas/inventory").glob("*/*.event.json"):
        path.unlink()
    for folder in (project / "schemas/inventory").glob("*/examples"):
        shutil.rmtree(folder)
    assert main(["--project", str(project), "sources", "plan"]) == 2
    assert "database 'inventory' is not known" in capsys.readouterr().err
