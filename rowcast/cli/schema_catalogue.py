"""``rowcast schemas catalogue``: pages about all events."""

from __future__ import annotations

import argparse
from pathlib import Path

from rowcast.cli.count import counted
from rowcast.cli.verbs import Verbs


def register(schemas: Verbs) -> argparse.ArgumentParser:
    """Add the verb `catalogue`, and return its parser."""
    catalogue = schemas.verb(
        "catalogue",
        _catalogue,
        "write static pages about all events: fields, personal data, examples, versions, who produces and consumes",
        "--out site",
        description="Open DIR/index.html in a browser, or serve the folder. Producers come from connectors/, consumers "
        "from consumers/. Exit code 2: a contract or a source file is not in order.",
    )
    catalogue.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the pages")
    return catalogue


def _catalogue(arguments: argparse.Namespace) -> int:
    from rowcast.contracts import consumer_part
    from rowcast.contracts.catalogue import catalogue_entries, write_catalogue
    from rowcast.contracts.checking import check_rules
    from rowcast.contracts.contract import FOLDER, contract_paths, load_contract
    from rowcast.contracts.readership import Readership
    from rowcast.errors import ConfigurationError
    from rowcast.sources.producers import producers

    schemas: Path = arguments.schemas or arguments.project / FOLDER
    contracts = [load_contract(path) for path, _match in contract_paths(schemas)]
    findings = [str(finding) for contract in contracts for finding in check_rules(contract)]
    if findings or not contracts:
        raise ConfigurationError(
            "\n".join(findings) or "no contract", where=str(schemas), fix="`rowcast schemas check`"
        )
    parts = Readership(arguments.consumers or schemas.parent / consumer_part.FOLDER, schemas, contracts).parts
    entries = catalogue_entries(contracts, producers(arguments.project, schemas), parts)
    pages = write_catalogue(arguments.out, entries)
    print(f"{arguments.out / 'index.html'}: {counted(len(entries), 'event')}, {counted(len(pages), 'page')}")
    return 0
