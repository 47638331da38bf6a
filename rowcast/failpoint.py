"""
Failpoints: named places where a test can make a process die, freeze, fail or wait, as a certain hit.

Set by ``ROWCAST_FAILPOINTS``, a comma-separated list of ``name=action``, ``name=action@hit`` or
``name=action@first-last``: the action happens at these hits of the place (default: the first).
Actions: ``kill`` (SIGKILL), ``stop`` (SIGSTOP), ``error`` (an unexpected error), ``sleep:SECONDS``. Without the
variable a place costs one look at an empty dictionary.
"""

from __future__ import annotations

import os
import signal
import time

from rowcast.errors import ConfigurationError

_VARIABLE = "ROWCAST_FAILPOINTS"


class FailpointError(Exception):
    """What the action ``error`` raises; outside the error tree, as a bug would be."""


def _parse(text: str) -> dict[str, tuple[str, range]]:
    planned = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, rest = entry.partition("=")
        action, _, hits = rest.partition("@")
        first, _, last = (hits or "1").partition("-")
        known = action in {"kill", "stop", "error"} or action.startswith("sleep:")
        if not equals or not known or not first.isdigit() or not (last or "1").isdigit():
            raise ConfigurationError(
                f"cannot read {entry!r}", where=_VARIABLE, fix="name=kill|stop|error|sleep:SECONDS[@hit[-hit]]"
            )
        planned[name] = (action, range(int(first), int(last or first) + 1))
    return planned


_planned = _parse(os.environ.get(_VARIABLE, ""))
_hits: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Do what is planned for the place *name* at this hit, if anything is."""
    if not _planned or name not in _planned:
        return
    _hits[name] = _hits.get(name, 0) + 1
    action, hits = _planned[name]
    if _hits[name] not in hits:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "error":
        raise FailpointError(name)
    else:
        time.sleep(float(action.removeprefix("sleep:")))
