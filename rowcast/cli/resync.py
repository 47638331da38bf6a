"""`rowcast sources resync`: events as the database is, or once more what was published, with new versions."""

from __future__ import annotations

import argparse

from rowcast.cli.verbs import Verbs
from rowcast.cli.worker_code import become
from rowcast.errors import ConfigurationError

_WHERE = "rowcast sources resync"


def register_resync(verbs: Verbs) -> None:
    """Add the verb to the noun `sources`."""
    resync = verbs.verb(
        "resync",
        _resync,
        "read rows of the database once more, and send what differs from what was published (extra `sources`)",
        "inventory --aggregate item",
        "inventory --aggregate item --id 6f1c…",
        "inventory --aggregate item --where \"changed_at > '2026-03-01'\"",
        "inventory --tenant diku",
        "inventory --from state --aggregate item --id 6f1c…",
        description="Each aggregate that is found different gets one `snapshot` event with its next version, one that"
        " is gone `deleted`, all others none. With --from state the database is not asked: what was published last"
        " goes out again with the next version, for all that is named. Exit code 0: done; 1: some are refused, or no"
        " worker has answered; 2: there is no such source, type or id, or the database cannot be read.",
    )
    resync.add_argument("source", metavar="SOURCE", help="name of the source")
    resync.add_argument(
        "--from",
        dest="origin",
        choices=["database", "state"],
        default="database",
        help="where the state comes from (default: database)",
    )
    resync.add_argument("--aggregate", metavar="TYPE", help="only of this aggregate type (default: all)")
    resync.add_argument(
        "--tenant", metavar="TENANT", help="only of this tenant, where tables have tenants; needs no type"
    )
    resync.add_argument(
        "--id", dest="ids", action="append", default=[], metavar="ID", help="only this id text; may be repeated"
    )
    resync.add_argument(
        "--where", metavar="SQL", help="only aggregates whose rows, as r, fulfil this condition; finds no deleted ones"
    )
    resync.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait for the worker (default: 60)"
    )


def _resync(arguments: argparse.Namespace) -> int:
    from rowcast.control.command import wait_outcome
    from rowcast.control.database import connect, migrate
    from rowcast.control.refusals import list_refusals
    from rowcast.control.resending import ask_resend
    from rowcast.settings import load_settings

    one = "--id" if arguments.ids else "--where" if arguments.where is not None else ""
    if one and arguments.aggregate is None:
        raise ConfigurationError(f"{one} needs --aggregate", where=_WHERE, fix="name the type too")
    if arguments.where is not None and (arguments.ids or arguments.origin == "state"):
        fix = "a condition stands alone, and is asked of the database"
        raise ConfigurationError("--where does not go with --id or --from state", where=_WHERE, fix=fix)
    if arguments.tenant is not None and (arguments.ids or arguments.origin == "state"):
        fix = "ids have the tenant in front; of a whole tenant the database is asked"
        raise ConfigurationError("--tenant does not go with --id or --from state", where=_WHERE, fix=fix)
    if arguments.origin == "database":
        given = {
            "aggregate": arguments.aggregate,
            "tenant": arguments.tenant,
            "where": arguments.where,
            "timeout": arguments.timeout,
        }
        options = [f"--{name}={value}" for name, value in given.items() if value is not None]
        become(
            "stream_app.resync", arguments, [*options, *(f"--id={each}" for each in arguments.ids), arguments.source]
        )
    url = load_settings(arguments.project).control().url
    with connect(url, application="rowcast sources resync", autocommit=True) as connection:
        migrate(connection)
        number = ask_resend(connection, arguments.source, arguments.aggregate, arguments.ids)
        outcome = wait_outcome(connection, number, arguments.timeout)
        refused = [
            each
            for each in list_refusals(connection, arguments.source)
            if arguments.aggregate in {None, each.aggregate} and (not arguments.ids or each.id_text in arguments.ids)
        ]
    print(f"{arguments.source}: {outcome or 'not yet sent; the request stands'}")
    if outcome and refused:
        print(f"{len(refused)} refused; see `rowcast refused list {arguments.source}`")
    return 0 if outcome and not refused and not outcome.startswith("not ") else 1
