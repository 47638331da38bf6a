"""``python -m benchmarks``, started by `scripts/bench`. Exit codes: 0 measured, 2 not measured, 130 interrupted."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import requests
from confluent_kafka import KafkaException

from benchmarks.errors import MeasureError
from benchmarks.figures import ratios, summary
from benchmarks.interruption import finish_undisturbed, interruptible
from benchmarks.machine import describe_machine, describe_settings, load_average
from benchmarks.options import Options, parse_options
from benchmarks.plan import Rounds
from examples.main_job.progress import tell
from rowcast.errors import RowcastError
from rowcast.local.part import StackError
from rowcast.local.stack import Stack
from rowcast.settings import load_settings

_NOT_MEASURED = (
    MeasureError,
    RowcastError,
    StackError,
    psycopg.Error,
    KafkaException,
    requests.RequestException,
    OSError,
)


def main(argv: list[str] | None = None) -> int:
    """Measure and return the exit code."""
    interruptible()
    try:
        options = parse_options(argv)
        if options.json is not None:
            options.json.unlink(missing_ok=True)  # no file where there are no figures
        content = _measure(options)
    except _NOT_MEASURED as error:
        tell(f"not measured: {error}")
        return 2
    except KeyboardInterrupt:
        tell("interrupted: what this run started is stopped")
        return 130
    text = json.dumps(content, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    else:
        print(text)
    return 0


def _measure(options: Options) -> dict[str, Any]:
    with _stack(options) as project:
        stack = load_settings(project)
        machine = {**describe_machine(stack), "load_average_begin": load_average()}
        measuring = Rounds(options, stack, project)
        try:
            rounds = measuring.run()
        finally:
            finish_undisturbed()
            measuring.clean()
        machine["load_average_end"] = load_average()
        settings = describe_settings(stack, measuring.connector)
    return {
        "machine": machine,
        "settings": {**settings, **_asked(options)},
        "ratios": ratios(rounds),
        "stages": summary(rounds),
        "rounds": rounds,
    }


def _asked(options: Options) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in {"json", "stack", "keep"}}


@contextmanager
def _stack(options: Options) -> Iterator[Path]:
    """The project folder of a running stack; one that was started here is stopped, a temporary one deleted."""
    project = options.stack or Path(tempfile.mkdtemp(prefix="rowcast-bench-")).resolve()
    stack = Stack(project)
    running = stack.meant_to_run()
    try:
        stack.up(progress=tell)
        yield project
    finally:
        finish_undisturbed()
        if options.stack is None:
            stack.down(wipe=True)
            shutil.rmtree(project, ignore_errors=True)
        elif not running and not options.keep:
            stack.down()


if __name__ == "__main__":
    sys.exit(main())
