"""``rowcast schemas check``: what a change to the contracts would break, before it is merged."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from rowcast.cli.count import counted
from rowcast.cli.schema_consumers import add_folder
from rowcast.cli.verbs import Verbs, add_json


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


def _check(arguments: argparse.Namespace) -> int:
    from rowcast.contracts import consumer_part
    from rowcast.contracts.checking import valid_contracts
    from rowcast.contracts.contract import FOLDER, contract_paths
    from rowcast.contracts.evolution import check_evolution
    from rowcast.contracts.ignores import without_ignored
    from rowcast.contracts.published import published
    from rowcast.contracts.readership import Readership
    from rowcast.contracts.report import FORMATS, as_json

    schemas: Path = arguments.schemas or arguments.project / FOLDER
    before = None
    if arguments.against:
        before = published(arguments.against, schemas, merge_base=not arguments.no_merge_base)
    contracts, own = valid_contracts(schemas)
    readership = Readership(arguments.consumers or schemas.parent / consumer_part.FOLDER, schemas, contracts)
    evolved = check_evolution(schemas, contracts, before, readership)
    findings = [*own, *without_ignored(evolved, schemas, datetime.now(UTC).date()), *readership.findings]
    count = len(list(contract_paths(schemas, stated=True)))
    if arguments.json or arguments.format == "json":
        print(json.dumps({"contracts": count, "findings": as_json(findings)}, indent=2))
        return 1 if findings else 0
    lines = list(FORMATS[arguments.format](findings))
    if arguments.format != "junit":
        lines.append(f"{counted(count, 'contract')}, {counted(len(findings), 'finding')}")
    print("\n".join(lines))
    return 1 if findings else 0
