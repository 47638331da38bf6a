"""``rowcast schemas consumers``: who uses what of which event."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowcast.cli.count import counted
from rowcast.cli.verbs import Verbs, add_json

if TYPE_CHECKING:
    from rowcast.contracts.consumer_part import ConsumerPart
    from rowcast.contracts.readership import Readership

_WORDS = {True: "reads", False: "rejects events of", None: "perhaps does not read"}


def register(schemas: Verbs) -> argparse.ArgumentParser:
    """Add the verb `consumers`, and return its parser."""
    consumers = schemas.verb(
        "consumers",
        _consumers,
        "list the consumers, what each uses of which event, and whether it reads the newest contract",
        "",
        "inventory.item.v1 --json",
        description="From the committed parts, consumers/<app>/<domain>.<aggregate>.v<major>.json. "
        "Exit code 0: all read what they are sent; 1: findings, which `rowcast schemas check` explains.",
    )
    consumers.add_argument("event", nargs="?", metavar="EVENT", help="only consumers of <domain>.<aggregate>.v<major>")
    add_json(consumers)
    return consumers


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Let the verb be told where the parts of consumers stand."""
    parser.add_argument(
        "--consumers", type=Path, metavar="DIR", help="folder of consumers' parts (default: consumers/ beside schemas/)"
    )


def _consumers(arguments: argparse.Namespace) -> int:
    from rowcast.contracts import consumer_part
    from rowcast.contracts.checking import valid_contracts
    from rowcast.contracts.contract import FOLDER
    from rowcast.contracts.readership import Readership
    from rowcast.errors import ConfigurationError

    schemas: Path = arguments.schemas or arguments.project / FOLDER
    folder: Path = arguments.consumers or schemas.parent / consumer_part.FOLDER
    contracts, _findings = valid_contracts(schemas)
    readership = Readership(folder, schemas, contracts)
    if arguments.event and arguments.event not in {
        f"{each.domain}.{each.aggregate}.v{each.major}" for each in contracts
    }:
        raise ConfigurationError(f"there is no event {arguments.event}", where=str(schemas), fix="name a topic")
    parts = [part for part in readership.parts if arguments.event in (None, part.event)]
    listed = [_entry(part, readership) for part in parts]
    if arguments.json:
        print(json.dumps({"consumers": listed}, indent=2))
    else:
        print("\n".join([*map(_line, listed), counted(len(listed), "consumer")]))
    return 1 if readership.findings else 0


def _entry(part: ConsumerPart, readership: Readership) -> dict[str, Any]:
    contract = readership.newest(part)
    used = {"fields": list(part.fields), "ancestors": list(part.ancestors)}
    reads: dict[str, Any] = {"contract": None, "reads": False}
    if contract is not None:
        reads = {"contract": contract.version, "reads": readership.reads(part, contract)[0]}
    return {"app": part.app, "event": part.event, "file": str(part.path), **used, **reads}


def _line(entry: dict[str, Any]) -> str:
    used = ", ".join([*entry["fields"], *(f"ancestors.{name}" for name in entry["ancestors"])]) or "no field"
    verdict = f"{_WORDS[entry['reads']]} {entry['contract'] or 'what no contract describes'}"
    return f"{entry['app']}  {entry['event']}  {verdict}: {used}"
