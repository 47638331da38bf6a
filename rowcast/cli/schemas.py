"""``rowcast schemas``: check the contracts of a folder, and derive the schemas of whole event values."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rowcast.cli import schema_diff
from rowcast.cli.count import counted
from rowcast.cli.verbs import Verbs, add_json


def register(verbs: Verbs) -> None:
    """Add the noun `schemas` and its verbs."""
    schemas = verbs.noun("schemas", "check contracts and derive the schemas of event values", "check")
    check = schemas.verb(
        "check",
        _check,
        "validate every contract, its derived schema and its examples",
        "--schemas schemas --json",
        description="Exit code 0: nothing wrong; 1: findings; 2: no contract found.",
    )
    add_json(check)
    schema_diff.register(schemas)
    derive = schemas.verb("derive", _derive, "write v<major>.<minor>.event.json beside every contract", "")
    for parser in (check, derive):
        parser.add_argument(
            "--schemas", type=Path, metavar="DIR", help="folder of contracts (default: schemas/ of the project)"
        )


def _folder(arguments: argparse.Namespace) -> Path:
    from rowcast.contracts.contract import FOLDER

    folder: Path = arguments.schemas or arguments.project / FOLDER
    return folder


def _check(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.checking import check_folder
    from rowcast.contracts.contract import contract_paths

    folder = _folder(arguments)
    findings = check_folder(folder)
    contracts = len(list(contract_paths(folder)))
    if arguments.json:
        print(json.dumps({"contracts": contracts, "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        for finding in findings:
            print(finding)
        print(f"{counted(contracts, 'contract')}, {counted(len(findings), 'finding')}")
    return 1 if findings else 0


def _derive(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.contract import contract_paths, load_contract

    for path, _match in contract_paths(_folder(arguments)):
        contract = load_contract(path)
        text = contract.derived_text().encode()
        if contract.event_path.exists() and contract.event_path.read_bytes() == text:
            print(f"unchanged {contract.event_path}")
        else:
            contract.event_path.write_bytes(text)
            print(f"written   {contract.event_path}")
    return 0
