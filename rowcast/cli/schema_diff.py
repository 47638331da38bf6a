"""``rowcast schemas diff``: whether two schemas are compatible, and what shows that they are not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.cli.verbs import Verbs, add_json
from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    from rowcast.contracts.compatibility.verdict import Comparison, Finding

_WORDS = {True: "yes", False: "no", None: "undecided"}


def register(schemas: Verbs) -> None:
    """Add the verb `diff`."""
    diff = schemas.verb(
        "diff",
        _diff,
        "compare two schemas: who still reads what the other writes",
        "schemas/shop/order/v1.0.json schemas/shop/order/v1.1.json --explain",
        description="Compare two JSON Schema files. Backward: readers of NEW accept every document that a writer of "
        "OLD emits; forward: readers of OLD accept every document that a writer of NEW emits. Exit code 0: both hold; "
        "1: one does not, or could not be decided; 2: a file is no JSON Schema, so that nothing is decided.",
    )
    diff.add_argument("old", type=Path, metavar="OLD", help="a JSON Schema file")
    diff.add_argument("new", type=Path, metavar="NEW", help="a JSON Schema file")
    diff.add_argument("--explain", action="store_true", help="show old and new values and how to mend each finding")
    add_json(diff)


def _diff(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.compatibility.schema_file import read_schema
    from rowcast.contracts.compatibility.verdict import compare

    try:
        comparison = compare(read_schema(arguments.old), read_schema(arguments.new))
    except ConfigurationError:
        if arguments.json:  # whoever reads the verdict finds one, of anything
            print(json.dumps({"backward": None, "forward": None, "findings": []}, indent=2))
        raise
    if arguments.json:
        print(json.dumps(comparison.as_json(), indent=2))
    else:
        _print(comparison, explain=arguments.explain)
    return 0 if comparison.backward and comparison.forward else 1


def _print(comparison: Comparison, *, explain: bool) -> None:
    for finding in comparison.findings:
        print(f"{finding.message} [{finding.rule}]")
        if finding.direction != "policy" and finding.rule != "UNDECIDED":
            print(f"  for example {_short(finding.witness)}")
        if explain:
            _explain(finding)
    print(f"backward: {_WORDS[comparison.backward]} (new readers, old documents)")
    print(f"forward:  {_WORDS[comparison.forward]} (old readers, new documents)")


def _explain(finding: Finding) -> None:
    print(f"  old: {_short(finding.old)}")
    print(f"  new: {_short(finding.new)}")
    print(f"  fix: {finding.fix}")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + " …"
