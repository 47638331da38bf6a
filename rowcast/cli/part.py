"""``rowcast part run | check | databases``: the parts of a stack in containers, as docker-compose.yml starts them."""

from __future__ import annotations

import argparse
import sys

from rowcast.cli.verbs import Verbs
from rowcast.errors import ConfigurationError

_PARTS = ("postgres", "kafka", "connect")


def register(verbs: Verbs) -> None:
    """Add the noun `part`."""
    noun = verbs.noun("part", "one part of the stack, in a container of its own", "run kafka")
    run = noun.verb(
        "run",
        _run,
        "be PostgreSQL, Kafka or Kafka Connect, with the settings of `rowcast up`",
        "postgres",
        "kafka --published kafka=127.0.0.1:19092",
        description="For containers: make data and configuration in /var/lib/rowcast, then become the server. The"
        " container of PostgreSQL tells the others where everything is, by .rowcast/ of the project, which they share.",
    )
    run.add_argument("part", choices=_PARTS)
    run.add_argument(
        "--published",
        action="append",
        default=[],
        metavar="PART=HOST:PORT",
        help="where clients outside of the containers reach a part; may be given several times",
    )
    check = noun.verb(
        "check",
        _check,
        "ask the part of this container whether it serves clients",
        "kafka",
        description="For health checks. Exit code 0: it does; 1: it does not.",
    )
    check.add_argument("part", choices=(*_PARTS, "worker"))
    databases = noun.verb(
        "databases",
        _databases,
        "create the control database and those that connectors/*.yaml name, in the stack's PostgreSQL",
        "--database orders",
        description="What is there already, or declared in rowcast.toml, is left alone.",
    )
    databases.add_argument(
        "--database", action="append", default=[], metavar="NAME", help="this one too; may be given several times"
    )


def _run(arguments: argparse.Namespace) -> int:
    from rowcast.local.container import run_part

    run_part(arguments.part, arguments.project, _published(arguments.published))


def _check(arguments: argparse.Namespace) -> int:
    from rowcast.local.answering import answers

    if answers(arguments.part):
        return 0
    print(f"{arguments.part} does not answer", file=sys.stderr)
    return 1


def _databases(arguments: argparse.Namespace) -> int:
    from rowcast.local.container import make_databases

    for name in make_databases(arguments.project, set(arguments.database)):
        print(f"database {name} created")
    return 0


def _published(texts: list[str]) -> dict[str, str]:
    addresses = {}
    for text in texts:
        part, _, address = text.partition("=")
        host, _, port = address.rpartition(":")
        if part not in _PARTS or not host or not port.isdigit():
            raise ConfigurationError(f"{text!r} is no part with an address", where="--published", fix="kafka=HOST:PORT")
        addresses[part] = address
    return addresses
