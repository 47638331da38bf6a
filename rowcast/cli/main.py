"""The ``rowcast`` command: nouns, then verbs. Exit codes: 0 ok, 1 findings, 2 usage or environment."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from rowcast import __version__
from rowcast.cli.verbs import Verbs, show_examples
from rowcast.errors import RowcastError

# Each module registers its verbs; what a verb needs is imported when it runs, so that `--help` stays quick
# and a consumer-only installation is not asked for Faust.
_MODULES = ("init", "stack", "part", "sources", "schemas", "events", "refused", "worker")

# The extra that brings what the base goes without.
_EXTRAS = {
    "jsonschema": "schemas",
    "requests": "sources",
    "prometheus_client": "worker",
    "confluent_kafka": "worker",
    "jgo": "local",
    "psutil": "local",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs, as `--help` and the documentation tests see it."""
    parser = argparse.ArgumentParser(
        prog="rowcast",
        description="Committed rows in, trustworthy domain events out, applied exactly once.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show_examples(parser, "up", "sources apply inventory", "--project shop sources status --json")
    parser.add_argument("--version", action="version", version=f"rowcast {__version__}")
    parser.add_argument(
        "--project",
        type=Path,
        default=Path(os.environ.get("ROWCAST_PROJECT", ".")),
        metavar="FOLDER",
        help="folder with rowcast.toml, connectors/ and schemas/ (default: the current one; ROWCAST_PROJECT)",
    )
    verbs = Verbs(parser)
    for name in _MODULES:
        import_module(f"rowcast.cli.{name}").register(verbs)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    arguments = build_parser().parse_args(argv)
    arguments.project = arguments.project.resolve()
    try:
        return int(arguments.run(arguments))
    except RowcastError as error:
        print(f"rowcast: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"rowcast: {error.name} is not installed: pip install 'rowcast[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
