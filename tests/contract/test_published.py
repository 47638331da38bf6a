"""The contracts that this repository publishes: what CI has to keep true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest

from rowcast.contracts.checking import check_folder, value_validator
from rowcast.contracts.contract import contract_paths, load_contract
from rowcast.sources.source_file import load_sources

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMAS = REPOSITORY / "schemas"
CONTRACTS = [load_contract(path) for path, _match in contract_paths(SCHEMAS)]


def _examples() -> Iterator[object]:
    for contract in CONTRACTS:
        for verdict in ("accepted", "rejected"):
            for path in contract.examples(verdict):
                yield pytest.param(contract, path, id=str(path.relative_to(SCHEMAS)))


@pytest.mark.guarantee("Contracts hold")
def test_the_published_contracts_have_no_finding() -> None:
    """Every contract, derived schema and example of the repository is in order."""
    assert check_folder(SCHEMAS) == []
    assert {f"{each.domain}.{each.aggregate}" for each in CONTRACTS} >= {
        "inventory.instance",
        "inventory.holdings",
        "inventory.item",
    }


@pytest.mark.guarantee("Contracts hold")
@pytest.mark.parametrize(("contract", "path"), list(_examples()))
def test_the_workers_validator_agrees_with_the_reference(contract: object, path: Path) -> None:
    """jsonschema-rs, which the worker runs, and jsonschema, the reference, give every example the same verdict."""
    assert isinstance(contract, type(CONTRACTS[0]))
    value = json.loads(path.read_text())
    fast = jsonschema_rs.validator_for(contract.value_schema(), validate_formats=True)
    expected = path.parent.name == "accepted"
    assert fast.is_valid(value) is value_validator(contract).is_valid(value) is expected


@pytest.mark.guarantee("Contracts hold")
def test_private_columns_of_the_demo_are_in_no_contract() -> None:
    """Notes for staff and borrowers are not published."""
    properties = {name for contract in CONTRACTS for name in contract.properties}
    assert not properties & {"circulation_notes", "last_borrower"}


def test_the_demo_source_publishes_the_demo_contracts() -> None:
    """The demo's source file is valid, and its hierarchy is the one that the contracts declare."""
    (source,) = load_sources(REPOSITORY, ["inventory"])
    parents = {each.name: each.parent.aggregate if each.parent else None for each in source.aggregates}
    assert parents == {"instance": None, "holdings": "instance", "item": "holdings"}
    assert {each.aggregate: each.ancestors for each in CONTRACTS if each.domain == "inventory"} == {
        "instance": (),
        "holdings": ("instance",),
        "item": ("holdings", "instance"),
    }
