"""`rowcast worker`: the Faust worker that turns change logs into domain events."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec

from rowcast.cli.verbs import Verbs
from rowcast.errors import ConfigurationError
from rowcast.settings import load_settings

# What Faust calls them.
_LOG_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}


def register(verbs: Verbs) -> None:
    """Add the verb `worker`."""
    parser = verbs.verb(
        "worker",
        _run,
        "turn change logs into domain events (needs the extra `worker`)",
        "                # work on every applied source that no other worker owns",
        "--web-port 9100    # for a Prometheus that looks there",
        description="Start a worker: the same as `faust -A stream_app.app worker` in the project folder.",
    )
    parser.add_argument(
        "--web-port",
        type=int,
        metavar="PORT",
        help="port of /health and /metrics on loopback; 0: any free one"
        " (default: 6066 when it is free, else any; ROWCAST_WEB_PORT)",
    )
    parser.add_argument("--log-level", default="info", choices=list(_LOG_LEVELS), help="default: info")


def _run(arguments: argparse.Namespace) -> int:
    if find_spec("faust") is None:
        raise ConfigurationError("Faust is not installed", where="rowcast worker", fix="pip install 'rowcast[worker]'")
    # Shows a wrong setting here, with this command's exit code, rather than inside Faust.
    settings = load_settings(arguments.project)
    settings.kafka()
    settings.connect()
    settings.control()
    settings.hash_key()
    environment = {**os.environ, "ROWCAST_PROJECT": str(arguments.project)}
    if arguments.web_port is not None:
        environment["ROWCAST_WEB_PORT"] = str(arguments.web_port)
    command = ["faust", "--quiet", "-A", "stream_app.app", "worker", "--loglevel", _LOG_LEVELS[arguments.log_level]]
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)  # noqa: S606 - the same interpreter
