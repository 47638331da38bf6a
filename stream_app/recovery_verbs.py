"""
``python -m stream_app.recovery_verbs``, as `rowcast sources rebuild` and `recover` run it.

What brings back a source needs what a worker is made of: its producer, its reader and its state.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import psycopg

from rowcast.control.remedies import RecoveryStep
from rowcast.errors import RowcastError
from rowcast.settings import load_settings
from rowcast.sources.source_file import load_sources
from stream_app.rebuild import Rebuilding, rebuild
from stream_app.recovery import Recovering, recover


def main(arguments: list[str]) -> int:
    """Do what *arguments* ask for; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (RowcastError, psycopg.Error) as error:
        print(f"rowcast: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rowcast sources")
    parser.add_argument("--project", type=Path)
    verbs = parser.add_subparsers(required=True)
    rebuilding = verbs.add_parser("rebuild")
    rebuilding.set_defaults(run=_rebuild)
    recovering = verbs.add_parser("recover")
    recovering.set_defaults(run=_recover)
    recovering.add_argument("--code", required=True)
    recovering.add_argument("--timeout", type=float, default=60.0)
    for verb in (rebuilding, recovering):
        verb.add_argument("--same-hash-key", action="store_true")
        verb.add_argument("--yes", action="store_true")
        verb.add_argument("--dry-run", action="store_true")
        verb.add_argument("--json", action="store_true")
        verb.add_argument("source")
    return parser


def _asked(options: argparse.Namespace) -> Rebuilding:
    (file,) = load_sources(options.project, [options.source])
    return Rebuilding(
        file=file,
        settings=load_settings(options.project),
        really=options.yes and not options.dry_run,
        same_hash_key=options.same_hash_key,
        # One document stands alone on standard output.
        progress=partial(print, file=sys.stderr if options.json else sys.stdout, flush=True),
    )


def _rebuild(options: argparse.Namespace) -> int:
    rebuilt = rebuild(_asked(options))
    if options.json:
        print(json.dumps(rebuilt.document(), indent=2))
    else:
        for line in rebuilt.lines():
            print(line)
        if not rebuilt.done:
            what = f"would take this over, drop connector, offsets and slot of {options.source}, forget its rows and"
            print(f"{what} position, and snapshot it anew{'' if options.dry_run else '; repeat with --yes'}")
        else:
            print(_captured_anew(options.source))
    return 0 if rebuilt.done or options.dry_run else 1


def _recover(options: argparse.Namespace) -> int:
    recovery = recover(Recovering(code=options.code, rebuilding=_asked(options), timeout_s=options.timeout))
    if options.json:
        print(json.dumps(recovery.document(), indent=2))
    elif recovery.finished:
        print(f"{options.source} is recovered from {options.code}")
        if set(recovery.steps) & {RecoveryStep.RESNAPSHOT, RecoveryStep.REBUILD}:
            print(_captured_anew(options.source))
    else:
        left = " and ".join(recovery.steps[recovery.done :])
        print(f"would {left} {options.source}{'' if options.dry_run else '; repeat with --yes'}")
    return 0 if recovery.finished or options.dry_run else 1


def _captured_anew(source: str) -> str:
    return f"{source} is captured anew; its snapshot follows, see `rowcast sources status {source}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
