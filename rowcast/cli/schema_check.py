"""``rowcast schemas check``: what a change to the contracts would break, before it is merged."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.cli.count import counted
from rowcast.cli.schema_consumers import add_folder
from rowcast.cli.verbs import Verbs, add_json

if TYPE_CHECKING:
    from rowcast.contracts.contract import Contract
    from rowcast.contracts.readership import Readership
    from rowcast.contracts.sunset import Sunset


def register(schemas: Verbs) -> argparse.ArgumentParser:
    """Add the verb `check`, and return its parser."""
    check = schemas.verb(
        "check",
        _check,
        "validate every contract, its derived schema and its examples, and compare its versions",
        "--schemas schemas --json",
        "--against origin/main --format github",
        description="Each version of a major is compared with each other one. With --against, published versions may "
        "not change either. What consumers have committed is held against the newest contracts. Exit code 0: nothing "
        "wrong; 1: findings; 2: no contract found, or nothing to compare with.",
    )
    check.add_argument("--against", metavar="REF|DIR", help="what was published: a git ref, or a folder")
    check.add_argument(
        "--no-merge-base",
        action="store_true",
        help="compare with the tip of the ref, not with where this branch left it",
    )
    check.add_argument("--format", choices=["text", "json", "github", "junit"], default="text", help="how to print it")
    add_folder(check)
    add_json(check)
    return check


def _sunsets(schemas: Path, contracts: list[Contract], readership: Readership, today: date) -> list[Sunset]:
    if not any(contract.deprecation for contract in contracts):
        return []
    from rowcast.contracts.sunset import sunsets
    from rowcast.sources.producers import producers

    consumers: dict[str, list[str]] = {}
    for part in readership.parts:
        consumers.setdefault(part.event, []).append(part.app)
    return sunsets(contracts, producers(schemas.resolve().parent, schemas), consumers, today)


def _check(arguments: argparse.Namespace) -> int:
    from rowcast.contracts import consumer_part
    from rowcast.contracts.checking import valid_contracts
    from rowcast.contracts.contract import FOLDER, contract_paths
    from rowcast.contracts.evolution import check_evolution
    from rowcast.contracts.ignores import without_ignored
    from rowcast.contracts.published import published
    from rowcast.contracts.readership import Readership
    from rowcast.contracts.report import FORMATS, as_json, note_line

    schemas: Path = arguments.schemas or arguments.project / FOLDER
    before = None
    if arguments.against:
        before = published(arguments.against, schemas, merge_base=not arguments.no_merge_base)
    contracts, own = valid_contracts(schemas)
    readership = Readership(arguments.consumers or schemas.parent / consumer_part.FOLDER, schemas, contracts)
    today = datetime.now(UTC).date()
    ending = _sunsets(schemas, contracts, readership, today)
    evolved = check_evolution(schemas, contracts, before, readership)
    evolved += [each.finding for each in ending if each.finding]
    findings = [*own, *without_ignored(evolved, schemas, today), *readership.findings]
    notes = [each for each in ending if not each.finding]
    count = len(list(contract_paths(schemas, stated=True)))
    if arguments.json or arguments.format == "json":
        document = {"contracts": count, "findings": as_json(findings), "notes": [asdict(each) for each in notes]}
        print(json.dumps(document, indent=2))
        return 1 if findings else 0
    lines = list(FORMATS[arguments.format](findings))
    if arguments.format != "junit":
        lines += [note_line(each.file, str(each), github=arguments.format == "github") for each in notes]
        lines.append(f"{counted(count, 'contract')}, {counted(len(findings), 'finding')}")
    print("\n".join(lines))
    return 1 if findings else 0
