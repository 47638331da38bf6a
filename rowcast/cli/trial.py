"""`rowcast sources preview|test`: what a source file does with rows, before anything is applied."""

from __future__ import annotations

import argparse

from rowcast.cli.verbs import Verbs, add_json
from rowcast.cli.worker_code import become


def register_trial(verbs: Verbs) -> None:
    """Add the verbs to the noun `sources`."""
    preview = verbs.verb(
        "preview",
        _preview,
        "the events that rows of the database give under the current file; publishes nothing (extra `sources`)",
        "inventory --table public.item --id 42",
        "inventory --last 3 --json",
        "inventory --table public.item --id 42 --save connectors/inventory.cases/lent.json",
        description="Exit code 0: every row that counts gives an event; 1: some are refused; 2: the file is wrong, or"
        " the database is not reachable.",
    )
    preview.add_argument("source", metavar="SOURCE", help="name of the source")
    preview.add_argument("--table", metavar="TABLE", help="rows of this table only (default: of every aggregate's)")
    preview.add_argument("--id", metavar="ID", help="the one aggregate with this id, as the record key has it")
    preview.add_argument("--last", type=int, default=10, metavar="N", help="so many rows of each table (default: 10)")
    preview.add_argument("--save", metavar="FILE", help="write rows and events as a case for `sources test`")
    add_json(preview)
    test = verbs.verb(
        "test",
        _test,
        "run the committed cases of the mapping: rows in, events out; needs no database (extra `sources`)",
        "inventory",
        description="Cases are connectors/<source>.cases/*.json. Exit code 0: all pass; 1: some fail; 2: there is none,"
        " or a file is wrong.",
    )
    test.add_argument("sources", nargs="*", metavar="SOURCE", help="names of sources (default: all)")
    add_json(test)


def _preview(arguments: argparse.Namespace) -> int:
    given = {name: getattr(arguments, name) for name in ("table", "id", "last", "save")}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    become("stream_app.preview", arguments, [*_json(arguments), *options, arguments.source])


def _test(arguments: argparse.Namespace) -> int:
    become("stream_app.case", arguments, [*_json(arguments), *arguments.sources])


def _json(arguments: argparse.Namespace) -> list[str]:
    return ["--json"] if arguments.json else []
