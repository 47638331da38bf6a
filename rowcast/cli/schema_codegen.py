"""``rowcast schemas codegen``: typed events for consumers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rowcast.cli.count import counted
from rowcast.cli.verbs import Verbs, add_json


def register(schemas: Verbs) -> argparse.ArgumentParser:
    """Add the verb `codegen`, and return its parser."""
    codegen = schemas.verb(
        "codegen",
        _codegen,
        "write Python types of the events: a TypedDict of each entity and of each whole value",
        "--out shop_events",
        "--out shop_events --check",
        description="Writes DIR/<domain>/<aggregate>_v<major>.py from the newest version of each major. Exit code 0: "
        "all is as generated; 1: with --check, a file is not; 2: a contract is not in order.",
    )
    codegen.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the Python package")
    codegen.add_argument("--check", action="store_true", help="write nothing; name the files that are not up to date")
    add_json(codegen)
    return codegen


def _codegen(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.codegen import drift, generated_files, newest_contracts, write
    from rowcast.contracts.contract import FOLDER

    files = generated_files(newest_contracts(arguments.schemas or arguments.project / FOLDER))
    changes = drift(arguments.out, files)
    if not arguments.check:
        write(arguments.out, files, changes)
    if arguments.json:
        listed = [{"file": str(arguments.out / name), "state": what} for name, what in changes.items()]
        print(json.dumps({"files": len(files), "changes": listed}, indent=2))
    else:
        words = {"stale": "stale    " if arguments.check else "removed  "}
        for name, what in changes.items():
            print(f"{words.get(what, f'{what:9}' if arguments.check else 'written  ')} {arguments.out / name}")
        print(f"{counted(len(files), 'file')}, {counted(len(changes), 'change')}")
    return 1 if arguments.check and changes else 0
