"""From the death of a source's owner to the next applied event, while one-row transactions go on."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from benchmarks.errors import MeasureError
from benchmarks.latency import Clients, observe
from benchmarks.site import Site
from benchmarks.together import running

_RATE = 50
_SECONDS = 30.0
# Before it, events flow and the standby stands by.
_KILL_AFTER_S = 4.0
_READY_TIMEOUT_S = 30.0


def measure(site: Site) -> dict[str, Any]:
    """
    Kill the owner of *site* with SIGKILL under load; a second worker stands by.

    Raises:
        MeasureError: a transaction has no effect or more than one.

    """
    with running(site) as pipeline, site.worker(name="standby") as standby:
        _wait_standing_by(site)
        clients = Clients(site.database_url, _RATE, round(_RATE * _SECONDS))
        first = pipeline.newest_effect()
        killed_s: list[float] = []

        def kill() -> None:
            killed_s.append(time.monotonic())
            pipeline.worker.kill()

        timer = threading.Timer(_KILL_AFTER_S, kill)
        clients.start()
        timer.start()
        try:
            seen = observe(replace(pipeline, worker=standby), clients, first)
        finally:
            timer.cancel()
            clients.stop()
    (at_s,) = killed_s
    # What was committed before may have been published before.
    applied_s = min(seen[name] for name, committed_s in clients.committed_s.items() if committed_s > at_s)
    return {"transactions": clients.total, "offered_per_s": _RATE, "takeover_s": round(applied_s - at_s, 2)}


def _wait_standing_by(site: Site) -> None:
    """Wait until the second worker says that another owns the source."""
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    log = site.folder / "standby.log"
    while b"standing by" not in log.read_bytes():
        if time.monotonic() > deadline_s:
            raise MeasureError(f"the second worker does not stand by after {_READY_TIMEOUT_S:.0f} s")
        time.sleep(0.05)
