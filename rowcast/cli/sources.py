"""``rowcast sources``: plan, apply and watch what the files in connectors/ declare."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rowcast.cli.count import counted
from rowcast.cli.recovery import register_recovery
from rowcast.cli.resync import register_resync
from rowcast.cli.trial import register_trial
from rowcast.cli.verbs import Verbs, add_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rowcast.settings import Settings
    from rowcast.sources.change import Change, Note
    from rowcast.sources.source_file import SourceFile


def register(verbs: Verbs) -> None:
    """Add the noun `sources` and its verbs."""
    sources = verbs.noun(
        "sources", "plan, apply and watch the sources declared in connectors/", "plan", "status --json"
    )
    plan = sources.verb(
        "plan",
        _plan,
        "show what apply would change, and how large the change log will get; touches nothing",
        "inventory --json",
        "inventory --sql",
        "--acl",
        description="Exit code 0: nothing would change; 1: something would; 2: refused, or something is not reachable.",
    )
    plan.add_argument(
        "--sql",
        action="store_true",
        help="print instead the SQL that a DBA has to run so that the logins of the settings get by with the least"
        " rights; asks the databases alone",
    )
    plan.add_argument(
        "--acl",
        action="store_true",
        help="print instead the ACLs that Kafka needs for each principal, as calls of kafka-acls.sh; asks nobody",
    )
    apply = sources.verb(
        "apply",
        _apply,
        "make database, topics and Connect as declared; a second run changes nothing",
        "inventory",
        description="Exit code 0: everything is as declared; 2: refused, or a change failed.",
    )
    status = sources.verb(
        "status",
        _status,
        "tell the truth about connector, slot, worker, lag and heartbeat",
        "inventory --json",
        description="Exit code 0: all healthy; 1: something is wrong; 2: the question could not be asked.",
    )
    remove = sources.verb(
        "remove",
        _remove,
        "delete connector, slot and publication of one source; topics and state stay",
        "inventory --yes",
        description="Applying the source again takes a new snapshot. Works without the source's file, too.",
    )
    remove.add_argument("source", metavar="SOURCE", help="name of the source")
    remove.add_argument(
        "--database", metavar="NAME", help="its database in the settings; only where its file is gone and it is asked"
    )
    remove.add_argument("--yes", action="store_true", help="do it; without it only says what would go")
    register_trial(sources)
    register_recovery(sources)
    register_resync(sources)
    for parser in (plan, apply, status):
        parser.add_argument("sources", nargs="*", metavar="SOURCE", help="names of sources (default: all)")
        add_json(parser)


def _load(arguments: argparse.Namespace) -> tuple[Sequence[SourceFile], Settings]:
    from rowcast.settings import load_settings
    from rowcast.sources.source_file import load_sources

    return load_sources(arguments.project, arguments.sources), load_settings(arguments.project)


def _plan(arguments: argparse.Namespace) -> int:
    from rowcast.sources.plan import estimate, left_over, plan

    sources, settings = _load(arguments)
    if arguments.sql:
        return _print_sql(sources, settings, as_json=arguments.json)
    if arguments.acl:
        return _print_acl(sources, settings, as_json=arguments.json)
    notes: list[Note] = []
    changes, estimates = plan(sources, settings, notes.append), estimate(sources, settings)
    left = left_over(sources, settings)
    if arguments.json:
        document = {
            "changes": _listed(changes),
            "notes": _listed(notes),
            "estimates": _listed(estimates),
            "left_topics": _listed(left),
        }
        print(json.dumps(document, indent=2))
    else:
        for line in (*map(_line, changes), *notes, *estimates, *left):
            print(line)
        print(
            counted(len(changes), "change")
            + (f"; `rowcast sources apply` makes {'it' if len(changes) == 1 else 'them'}" if changes else "")
        )
    return 1 if changes else 0


def _print_sql(sources: Sequence[SourceFile], settings: Settings, *, as_json: bool) -> int:
    from rowcast.sources.dba_script import dba_scripts

    scripts = dba_scripts(sources, settings)
    if as_json:
        print(json.dumps({"scripts": [asdict(each) for each in scripts]}, indent=2))
    else:
        print("\n\n".join("\n".join(each.lines()) for each in scripts) or "-- nothing to run")
    return 1 if scripts else 0


def _print_acl(sources: Sequence[SourceFile], settings: Settings, *, as_json: bool) -> int:
    from rowcast.sources.access import accesses, script_lines

    found = accesses(sources, settings)
    if as_json:
        print(json.dumps({"acl": [asdict(each) for each in found]}, indent=2))
    else:
        print("\n".join(script_lines(found, settings.brokers or "BROKER:9092")))
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    from rowcast.sources.plan import apply, left_over

    def progress(change: Change) -> None:
        if not arguments.json:
            print(_line(change), flush=True)

    notes: list[Note] = []
    sources, settings = _load(arguments)
    changes = apply(sources, settings, progress, notes.append)
    left = left_over(sources, settings)
    if arguments.json:
        document = {"changes": _listed(changes), "notes": _listed(notes), "left_topics": _listed(left)}
        print(json.dumps(document, indent=2))
    else:
        for line in (*notes, *left):
            print(line)
        print(counted(len(changes), "change"))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from rowcast.cli.status_lines import status_lines
    from rowcast.settings import load_settings
    from rowcast.sources.source_file import load_sources, source_names
    from rowcast.sources.status import read_statuses

    wanted = [name for name in source_names(arguments.project) if not arguments.sources or name in arguments.sources]
    sources = load_sources(arguments.project, wanted) if wanted else ()
    statuses = read_statuses(sources, load_settings(arguments.project), arguments.sources)
    if not statuses or set(arguments.sources) - {status.source for status in statuses}:
        load_sources(arguments.project, arguments.sources)  # neither declared nor applied: says so
    if arguments.json:
        print(json.dumps({"sources": [status.document() for status in statuses]}, indent=2))
    else:
        for status in statuses:
            print("\n".join(status_lines(status)))
    return 0 if all(status.healthy for status in statuses) else 1


def _remove(arguments: argparse.Namespace) -> int:
    from rowcast.settings import load_settings
    from rowcast.sources.lost_source import find_removable
    from rowcast.sources.removal import remove

    settings = load_settings(arguments.project)
    source = find_removable(arguments.source, settings, arguments.database)
    if not arguments.yes:
        print(
            f"would delete connector, offsets, slot and publication of {source.source} (database {source.database});"
            " repeat with --yes"
        )
        return 1
    remove(source, settings, print)
    return 0


def _listed(entries: Iterable[DataclassInstance]) -> list[dict[str, Any]]:
    return [asdict(each) for each in entries]


def _line(change: Change) -> str:
    return f"{change.source}: {change.action} {change.object} in {change.area} ({change.reason})"
