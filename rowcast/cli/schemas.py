"""``rowcast schemas``: check, compare and number contracts, and derive the schemas of whole event values."""

from __future__ import annotations

import argparse
from pathlib import Path

from rowcast.cli import (
    schema_asyncapi,
    schema_catalogue,
    schema_check,
    schema_codegen,
    schema_consumers,
    schema_diff,
    schema_lint,
    schema_version,
)
from rowcast.cli.verbs import Verbs


def register(verbs: Verbs) -> None:
    """Add the noun `schemas` and its verbs."""
    schemas = verbs.noun("schemas", "check and compare contracts, and derive the schemas of event values", "check")
    check = schema_check.register(schemas)
    codegen = schema_codegen.register(schemas)
    consumers = schema_consumers.register(schemas)
    asyncapi = schema_asyncapi.register(schemas)
    catalogue = schema_catalogue.register(schemas)
    for parser in (asyncapi, catalogue, consumers):
        schema_consumers.add_folder(parser)
    schema_diff.register(schemas)
    schema_lint.register(schemas)
    version = schema_version.register(schemas)
    derive = schemas.verb("derive", _derive, "write v<major>.<minor>.event.json beside every contract", "")
    for parser in (asyncapi, catalogue, check, codegen, consumers, version, derive):
        parser.add_argument(
            "--schemas", type=Path, metavar="DIR", help="folder of contracts (default: schemas/ of the project)"
        )


def _derive(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.contract import FOLDER, contract_paths, load_contract

    for path, _match in contract_paths(arguments.schemas or arguments.project / FOLDER):
        contract = load_contract(path)
        print(f"{'written  ' if contract.write_derived() else 'unchanged'} {contract.event_path}")
    return 0
