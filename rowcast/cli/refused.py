"""`rowcast refused list|show|retry|dismiss`: what could not become an event, and why."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from rowcast.cli.verbs import Verbs, add_json
from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg


def register(verbs: Verbs) -> None:
    """Add the noun `refused` and its verbs."""
    noun = verbs.noun("refused", "what could not be published, and why", "list inventory")

    listing = noun.verb(
        "list",
        _list,
        "all refused aggregates and stated events, each oldest first",
        "inventory --json",
        description="Exit code 0: none is refused; 1: some are; 2: there is no such source.",
    )
    listing.add_argument("source", nargs="?", help="only of this source")
    add_json(listing)

    show = noun.verb(
        "show",
        _show,
        "one refused aggregate with its raw row, or stated event with its message (may hold personal data)",
        "inventory item 6f1c…",
        "inventory 33247304.2",
        description="Exit code 0: it is refused; 1: it is not; 2: there is no such source, type or id.",
    )
    show.add_argument("source")
    show.add_argument("aggregate", help="aggregate type; or the place of a stated event, as `refused list` has it")
    show.add_argument("id", nargs="?", help="id text, as the record key has it")
    add_json(show)

    retry = noun.verb(
        "retry",
        _retry,
        "map the current state again and publish it when it is valid now",
        "inventory item 6f1c…",
        "inventory --all",
        description="Exit code 0: all accepted; 1: still refused, not refused at all, or no worker has answered;"
        " 2: there is no such source, type or id.",
    )
    _name_aggregate(retry, optional=True)
    retry.add_argument("--all", action="store_true", help="every refused aggregate of the source, or of the type")
    retry.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to wait for the owner")

    dismiss = noun.verb(
        "dismiss",
        _dismiss,
        "forget refused stated events; they never become events",
        "inventory 33247304.2",
        "inventory --all",
        description="Exit code 0: dismissed; 1: there is none; 2: there is no such source.",
    )
    dismiss.add_argument("source")
    dismiss.add_argument("place", nargs="?", help="its place, as `refused list` has it")
    dismiss.add_argument("--all", action="store_true", help="all of the source")


def _name_aggregate(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument("source")
    parser.add_argument("aggregate", nargs="?" if optional else None, help="aggregate type")
    parser.add_argument("id", nargs="?" if optional else None, help="id text, as the record key has it")


def _list(arguments: argparse.Namespace) -> int:
    from rowcast.control.names import need_source
    from rowcast.control.refusals import list_refusals, list_statements
    from rowcast.event_text import printable

    with _connected(arguments) as connection:
        if arguments.source is not None:
            need_source(connection, arguments.source)
        refused = list_refusals(connection, arguments.source)
        statements = list_statements(connection, arguments.source)
    if arguments.json:
        listed = [each.to_dict(with_record=False) for each in refused]
        listed += [each.to_dict(with_record=False) for each in statements]
        print(json.dumps(listed, indent=2))
    else:
        for each in refused:
            print(f"{each.since}  {each.source} {each.aggregate} {each.id_text}  {each.reason}")
        for said in statements:
            name = " ".join(printable(each or "?") for each in (said.aggregate, said.id_text, said.event))
            print(f"{said.since}  {said.source} stated event {said.place}: {name}  {printable(said.reason)}")
        print(f"{len(refused) + len(statements)} refused")
    return 1 if refused or statements else 0


def _show(arguments: argparse.Namespace) -> int:
    from rowcast.control.names import need_aggregate, need_source
    from rowcast.control.refusals import RefusedAggregate, RefusedStatement, find_refusal, list_statements

    refused: RefusedAggregate | RefusedStatement | None
    with _connected(arguments) as connection:
        if arguments.id is None:
            need_source(connection, arguments.source)
            statements = list_statements(connection, arguments.source)
            refused = next((each for each in statements if each.place == arguments.aggregate), None)
        else:
            need_aggregate(connection, arguments.source, arguments.aggregate, arguments.id)
            refused = find_refusal(connection, arguments.source, arguments.aggregate, arguments.id)
    if refused is None:
        print(f"{arguments.source} {arguments.aggregate} {arguments.id or ''}".rstrip() + " is not refused")
        return 1
    fields = refused.to_dict(with_record=True)
    if arguments.json:
        print(json.dumps(fields, indent=2))
    else:
        for name, value in fields.items():
            print(f"{name:10} {json.dumps(value) if isinstance(value, (dict, list)) else value}")
    return 0


def _dismiss(arguments: argparse.Namespace) -> int:
    from rowcast.control.names import need_source
    from rowcast.control.refusals import dismiss_statements

    if arguments.all == (arguments.place is not None):
        raise ConfigurationError("name one place, or --all", where="rowcast refused dismiss", fix="see --help")
    with _connected(arguments) as connection:
        need_source(connection, arguments.source)
        count = dismiss_statements(connection, arguments.source, arguments.place)
    print(f"{count} dismissed")
    return 0 if count else 1


def _retry(arguments: argparse.Namespace) -> int:
    from rowcast.control.command import wait_outcome
    from rowcast.control.refusals import ask_retry, find_refusal

    if arguments.all == (arguments.id is not None):
        raise ConfigurationError("name one aggregate, or --all", where="rowcast refused retry", fix="see --help")
    code = 0
    with _connected(arguments) as connection:
        for aggregate, id_text in _targets(arguments, connection):
            if find_refusal(connection, arguments.source, aggregate, id_text) is None:
                print(f"{aggregate} {id_text}: is not refused")
                code = 1
                continue
            number = ask_retry(connection, arguments.source, aggregate, id_text)
            outcome = wait_outcome(connection, number, arguments.timeout)
            print(f"{aggregate} {id_text}: {outcome or 'no worker has answered; the request stands'}")
            code = max(code, 0 if outcome == "accepted" else 1)
    return code


def _targets(arguments: argparse.Namespace, connection: psycopg.Connection) -> list[tuple[str, str]]:
    from rowcast.control.names import need_aggregate, need_source, need_type
    from rowcast.control.refusals import list_refusals

    if not arguments.all:
        need_aggregate(connection, arguments.source, arguments.aggregate, arguments.id)
        return [(arguments.aggregate, arguments.id)]
    if arguments.aggregate is None:
        need_source(connection, arguments.source)
    else:
        need_type(connection, arguments.source, arguments.aggregate)
    refused = list_refusals(connection, arguments.source)
    if not refused:
        print("0 refused")
    return [(each.aggregate, each.id_text) for each in refused if arguments.aggregate in {None, each.aggregate}]


def _connected(arguments: argparse.Namespace) -> Any:
    from rowcast.control.database import connect, migrate
    from rowcast.settings import load_settings

    connection = connect(load_settings(arguments.project).control().url, application="rowcast cli", autocommit=True)
    migrate(connection)
    return connection
