"""`rowcast sources resync`: what was published goes out once more, with new versions."""

from __future__ import annotations

import argparse

from rowcast.cli.verbs import Verbs
from rowcast.errors import ConfigurationError


def register_resync(verbs: Verbs) -> None:
    """Add the verb to the noun `sources`."""
    resync = verbs.verb(
        "resync",
        _resync,
        "send the current state of aggregates again, each as a `snapshot` event with its next version",
        "inventory --from state",
        "inventory --from state --aggregate item --id 6f1c…",
        description="From row state: the source database is not touched, and not asked. The source's other changes wait"
        " until all is sent. Exit code 0: sent; 1: some are refused, or no worker has answered; 2: there is no such"
        " source, type or id.",
    )
    resync.add_argument("source", metavar="SOURCE", help="name of the source")
    resync.add_argument("--from", dest="origin", choices=["state"], required=True, help="where the state comes from")
    resync.add_argument("--aggregate", metavar="TYPE", help="only of this aggregate type (default: all)")
    resync.add_argument(
        "--id", dest="ids", action="append", default=[], metavar="ID", help="only this id text; may be repeated"
    )
    resync.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait until it is sent"
    )


def _resync(arguments: argparse.Namespace) -> int:
    from rowcast.control.command import wait_outcome
    from rowcast.control.database import connect, migrate
    from rowcast.control.refusals import list_refusals
    from rowcast.control.resending import ask_resend
    from rowcast.settings import load_settings

    if arguments.ids and arguments.aggregate is None:
        raise ConfigurationError("--id needs --aggregate", where="rowcast sources resync", fix="name the type too")
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
    return 0 if outcome and not refused else 1
