"""`rowcast sources resume|resnapshot`: what brings a stopped source back."""

from __future__ import annotations

import argparse

from rowcast.cli.verbs import Verbs


def register_recovery(verbs: Verbs) -> None:
    """Add the verbs to the noun `sources`."""
    resume = verbs.verb(
        "resume",
        _resume,
        "let a stopped source run again, after its cause was mended",
        "inventory",
        description="Exit code 0: it runs again; 1: it was not stopped; 2: there is no such source, or the control"
        " database is not reachable.",
    )
    resume.add_argument("source", metavar="SOURCE", help="name of the source")
    resnapshot = verbs.verb(
        "resnapshot",
        _resnapshot,
        "take a new snapshot of a source that was stopped because changes are in no event",
        "inventory --yes",
        description="Drops connector, offsets and slot, leaves what is left of the change log behind, applies the"
        " source anew. For the codes of docs/reference/stops.md that name this command.",
    )
    resnapshot.add_argument("source", metavar="SOURCE", help="name of the source")
    resnapshot.add_argument("--yes", action="store_true", help="do it; without it only says what would happen")
    resnapshot.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait for a worker"
    )


def _resume(arguments: argparse.Namespace) -> int:
    from rowcast.control.database import connect, migrate
    from rowcast.control.stops import resume
    from rowcast.settings import load_settings

    url = load_settings(arguments.project).control().url
    with connect(url, application="rowcast sources resume", autocommit=True) as connection:
        migrate(connection)
        code = resume(connection, arguments.source)
    print(f"{arguments.source} was not stopped" if code is None else f"{arguments.source} runs again (was {code})")
    return 1 if code is None else 0


def _resnapshot(arguments: argparse.Namespace) -> int:
    from rowcast.settings import load_settings
    from rowcast.sources.resnapshot import resnapshot
    from rowcast.sources.source_file import load_sources

    (source,) = load_sources(arguments.project, [arguments.source])
    if not arguments.yes:
        print(f"would drop connector, offsets and slot of {source.source} and snapshot it anew; repeat with --yes")
        return 1
    resnapshot(source, load_settings(arguments.project), print, arguments.timeout)
    return 0
