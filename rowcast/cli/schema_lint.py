"""``rowcast schemas lint``: the profile of contracts, with places and remedies."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rowcast.cli.count import counted
from rowcast.cli.verbs import Verbs, add_json


def register(schemas: Verbs) -> None:
    """Add the verb `lint`."""
    lint = schemas.verb(
        "lint",
        _lint,
        "hold contracts against the profile: keywords, descriptions, examples, classification",
        "schemas/shop/order/v1.1.json --json",
        description="Exit code 0: nothing wrong; 1: findings; 2: no contract found.",
    )
    lint.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="contracts, or folders of them (default: schemas/)"
    )
    add_json(lint)


def _lint(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.contract import FOLDER
    from rowcast.contracts.lint import lint_paths
    from rowcast.contracts.report import as_json, placed_lines

    count, findings = lint_paths(arguments.paths or [arguments.project / FOLDER])
    if arguments.json:
        print(json.dumps({"contracts": count, "findings": as_json(findings)}, indent=2))
    else:
        print(
            "\n".join([*placed_lines(findings), f"{counted(count, 'contract')}, {counted(len(findings), 'finding')}"])
        )
    return 1 if findings else 0
