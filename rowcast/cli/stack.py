"""``rowcast up | down | status``: the embedded stack of PostgreSQL, Kafka and Kafka Connect."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.cli.verbs import Verbs, add_json
from rowcast.settings import PARTS_CHOICES, parts_settings

if TYPE_CHECKING:
    from rowcast.local.part import PartStatus

_HALF_STARTED = "the stack is being started or stopped, or that was broken off; `rowcast up` or `rowcast down` mends it"


def register(verbs: Verbs) -> None:
    """Add the verbs of the stack."""
    up = verbs.verb(
        "up",
        _up,
        "start PostgreSQL, Kafka and Kafka Connect on this machine",
        "--database orders",
        description="Start what does not run yet, wait until all parts answer, and create the databases.",
    )
    up.add_argument(
        "--database",
        action="append",
        default=[],
        metavar="NAME",
        help="create this database too, besides those of connectors/*.yaml; may be given several times",
    )
    up.add_argument(
        "--parts",
        choices=PARTS_CHOICES,
        help="run PostgreSQL and Java from the installed packages, from this machine, or from this machine where it has"
        " them (default: as last time, at first bundled; ROWCAST_PARTS)",
    )
    up.add_argument(
        "--postgres-bin",
        metavar="FOLDER",
        help="PostgreSQL 14 or newer of this machine: the folder with postgres and initdb (ROWCAST_POSTGRES_BIN)",
    )
    up.add_argument(
        "--java-home",
        metavar="FOLDER",
        help="Java 17 or newer of this machine: the folder with bin/java (ROWCAST_JAVA_HOME)",
    )
    down = verbs.verb(
        "down",
        _down,
        "stop the stack that `up` started",
        "--wipe",
        description="Stop Kafka Connect, Kafka and PostgreSQL in order. Data stay for the next `up`.",
    )
    down.add_argument("--wipe", action="store_true", help="delete the stack's state folder and all data in it too")
    status = verbs.verb(
        "status",
        _status,
        "show which parts of the stack run and answer",
        "--json",
        description="Ask every part. Exit code 0 when all answer or none is meant to run, 1 when one does not answer.",
    )
    add_json(status)


def _up(arguments: argparse.Namespace) -> int:
    from rowcast.local.part import StackError
    from rowcast.local.stack import Stack

    wish = parts_settings(vars(arguments), Path.cwd())
    with _ended_by_signals():
        try:
            public = Stack(arguments.project).up(arguments.database, _tell, wish)
        except StackError as error:
            _tell(f"rowcast: {error}")
            return 2
    server = public["postgres"]
    print(f"postgres  {server['host']}:{server['port']}")
    print(f"kafka     {public['brokers']}")
    print(f"connect   {public['connect_url']}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from rowcast.local.stack import Stack

    if not Stack(arguments.project).down(wipe=arguments.wipe, progress=_tell):
        print("no stack is running here")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from rowcast.local.stack import Stack

    stack = Stack(arguments.project)
    parts = stack.status()
    meant = stack.meant_to_run()
    alive = any(part.alive for part in parts)
    if arguments.json:
        print(json.dumps({"running": meant, "parts": [asdict(part) for part in parts]}, indent=1))
    elif not parts:
        print(f"no stack in {stack.folder}; `rowcast up` starts one")
    else:
        print(_table(parts))
        if not meant:
            print(_HALF_STARTED if alive else "the stack is stopped; `rowcast up` starts it")
    return 1 if (meant or alive) and not all(part.answering for part in parts) else 0


def _table(parts: list[PartStatus]) -> str:
    lines = [f"{'part':<10}{'pid':>8}{'port':>8}{'PSS MB':>9}  {'state':<22}program"]
    for part in parts:
        pss = "-" if part.pss_mb is None else f"{part.pss_mb:.0f}"
        state = "answers" if part.answering else "runs, does not answer" if part.alive else "down"
        lines.append(
            f"{part.name:<10}{part.pid or '-':>8}{part.port or '-':>8}{pss:>9}  {state:<22}{part.program or '-'}"
        )
    for part in parts:
        if part.log_tail:
            lines.append(f"\nend of {part.log}:")
            lines += [f"  | {line}" for line in part.log_tail]
    return "\n".join(lines)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does: with everything stopped that it started."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    # What is ignored stays ignored, as under nohup.
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
