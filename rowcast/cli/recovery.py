"""`rowcast sources resume|resnapshot|rebuild|recover`: what brings a source back."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rowcast.cli.verbs import Verbs, add_json
from rowcast.cli.worker_code import become


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
        "take a new snapshot of a source that was stopped, or has halted types, because changes are in no event",
        "inventory --yes",
        description="Drops connector, offsets and slot, leaves what is left of the change log behind, applies the"
        " source anew. For the codes of docs/reference/stops.md that name this command.",
    )
    resnapshot.add_argument("source", metavar="SOURCE", help="name of the source")
    resnapshot.add_argument("--yes", action="store_true", help="do it; without it only says what would happen")
    resnapshot.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait for a worker"
    )
    _register_rebuild(verbs)
    _register_recover(verbs)


def _register_rebuild(verbs: Verbs) -> None:
    rebuild = verbs.verb(
        "rebuild",
        _rebuild,
        "make what the control database knows of a source anew, after it was lost or went back to an older copy",
        "inventory --dry-run",
        "inventory --yes",
        description="Takes versions and last states over from the domain topics, drops connector, offsets and slot,"
        " and applies the source anew, which takes a snapshot: versions go on, and what is as it was published gets no"
        " event. Workers may run. Any call may be repeated. Exit code 0: done, or --dry-run; 1: it was only said what"
        " would happen; 2: refused, or something is not reachable.",
    )
    _add_asked(rebuild)


def _register_recover(verbs: Verbs) -> None:
    recover = verbs.verb(
        "recover",
        _recover,
        "do what brings a source back that is stopped, or has halted types, with a code, step by step",
        "inventory --code SLOT_LOST --dry-run",
        "inventory --code DATABASE_PROMOTED --yes",
        description="Takes the steps that docs/reference/stops.md names for the code: apply, resume, resnapshot,"
        " resync, rebuild. Those that are done are noted in the control database, so a call that died is gone on with"
        " by the next one. Exit code 0: all are done, or --dry-run; 1: it was only said what would happen; 2: it"
        " is neither stopped nor has types halted with the code, no command recovers from it, or something is not"
        " reachable.",
    )
    recover.add_argument(
        "--code", required=True, metavar="CODE", help="what the source is stopped with, or types of it halted"
    )
    recover.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait for a worker (default: 60)"
    )
    _add_asked(recover)


def _add_asked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="name of the source")
    parser.add_argument("--yes", action="store_true", help="do it; without it only says what would happen")
    parser.add_argument("--dry-run", action="store_true", help="only say what would happen, whatever else is asked")
    parser.add_argument(
        "--same-hash-key",
        action="store_true",
        help="the hash key of the settings is the one with which the source was applied; only where it hashes personal"
        " data, and the control database that knew it is lost",
    )
    add_json(parser)


def _resume(arguments: argparse.Namespace) -> int:
    from rowcast.control.database import connect, migrate
    from rowcast.control.halts import read_halts
    from rowcast.control.stops import resume
    from rowcast.settings import load_settings

    url = load_settings(arguments.project).control().url
    with connect(url, application="rowcast sources resume", autocommit=True) as connection:
        migrate(connection)
        code = resume(connection, arguments.source)
        halts = read_halts(connection, arguments.source)
    for halt in halts:
        print(f"{halt.told()}; a resume does not bring it back: {halt.remedy(arguments.source)}")
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


def _rebuild(arguments: argparse.Namespace) -> int:
    _become("rebuild", arguments, [])


def _recover(arguments: argparse.Namespace) -> int:
    _become("recover", arguments, [f"--code={arguments.code}", f"--timeout={arguments.timeout}"])


def _become(verb: str, arguments: argparse.Namespace, options: list[str]) -> NoReturn:
    flags = ("yes", "dry_run", "same_hash_key", "json")
    options += [f"--{flag.replace('_', '-')}" for flag in flags if getattr(arguments, flag)]
    become("stream_app.recovery_verbs", arguments, [verb, *options, arguments.source])
