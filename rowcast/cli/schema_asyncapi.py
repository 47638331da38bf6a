"""``rowcast schemas asyncapi``: the events as an AsyncAPI document."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rowcast.cli.verbs import Verbs


def register(schemas: Verbs) -> argparse.ArgumentParser:
    """Add the verb `asyncapi`, and return its parser."""
    asyncapi = schemas.verb(
        "asyncapi",
        _asyncapi,
        "print the AsyncAPI 3 document of all events",
        "--out asyncapi.json",
        '--title "Events of the shop" --api-version 2026.1',
        description="One channel for each topic, from the newest contract of each major: headers, value, examples and "
        "known consumers. JSON, which is YAML too. Exit code 2: a contract is not in order.",
    )
    asyncapi.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: print it)")
    asyncapi.add_argument("--title", default="Domain events", metavar="TEXT", help="title of the document")
    asyncapi.add_argument("--api-version", default="1.0.0", metavar="TEXT", help="version of the document")
    return asyncapi


def _asyncapi(arguments: argparse.Namespace) -> int:
    from rowcast.contracts import consumer_part
    from rowcast.contracts.asyncapi import asyncapi_document
    from rowcast.contracts.codegen import newest_contracts
    from rowcast.contracts.contract import FOLDER

    schemas: Path = arguments.schemas or arguments.project / FOLDER
    consumers = consumer_part.apps_by_event(arguments.consumers or schemas.parent / consumer_part.FOLDER)
    contracts = newest_contracts(schemas)
    document = asyncapi_document(contracts, consumers, title=arguments.title, version=arguments.api_version)
    text = json.dumps(document, indent=2)
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    return 0
