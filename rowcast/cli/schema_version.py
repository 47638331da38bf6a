"""``rowcast schemas new-version``: write the next version of a contract, numbered by what has changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from rowcast.cli.verbs import Verbs


def register(schemas: Verbs) -> argparse.ArgumentParser:
    """Add the verb `new-version`, and return its parser."""
    version = schemas.verb(
        "new-version",
        _new_version,
        "write the next version of a contract, numbered by what has changed",
        "shop/order --against origin/main",
        "shop/order --major",
        description="If the newest version was edited after it was published, the edited text becomes the next minor "
        "version, or the next major one if it breaks readers or writers, and the published text is restored. Else the "
        "newest version is copied, to be edited. Examples are copied and the schemas of event values derived.",
    )
    version.add_argument("contract", metavar="DOMAIN/AGGREGATE", help="such as shop/order")
    version.add_argument("--against", metavar="REF|DIR", help="what was published (default: the current commit)")
    version.add_argument("--major", action="store_true", help="a new major version, whatever has changed")
    return version


def _new_version(arguments: argparse.Namespace) -> int:
    from rowcast.contracts.contract import FOLDER
    from rowcast.contracts.new_version import write_new_version
    from rowcast.contracts.published import published

    schemas: Path = arguments.schemas or arguments.project / FOLDER
    before = published(arguments.against or "HEAD", schemas, merge_base=arguments.against is not None)
    written = write_new_version(schemas, arguments.contract, before, major=arguments.major)
    for line in written:
        print(line)
    return 0
