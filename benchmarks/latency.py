"""
From COMMIT to applied at fixed rates: an open loop of one-row transactions through the whole pipeline.

Transaction k is due at start + k / rate, whatever happened to those before it. Each wait runs from the client's return
from COMMIT to the moment at which an observer, who asks every few milliseconds, sees the effect: an upper bound.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from benchmarks.errors import MeasureError, check
from benchmarks.site import Site
from benchmarks.together import Pipeline, running
from examples.main_job.latency import percentile

RATES = (50, 200, 500)
# A rate counts as reached from this share of it on.
_REACHED_SHARE = 0.95
_CLIENTS = 8
_PAUSE_S = 0.005
_STALLED_S = 60.0
_WARM_UP = 200
# The one consumer draws its numbers and commits in order, so nothing comes in below the last one seen.
_EFFECTS = "SELECT seq, id_text FROM applied_event WHERE seq > %s ORDER BY seq"
_INSERT = """
INSERT INTO public.instance (id, hrid, title, source, instance_type) VALUES (%s, %s, 'One row', 'MARC', 'text')
"""


@dataclass(slots=True)
class Clients:
    """Eight connections to the database at *url* that share the schedule of *total* transactions at *rate*."""

    url: str
    rate: float
    total: int
    committed_s: dict[str, float] = field(default_factory=dict)
    began_s: float = 0.0
    ended_s: float = 0.0
    errors: list[Exception] = field(default_factory=list)
    _due: Iterator[int] = field(default_factory=itertools.count)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Open all connections, then start the schedule."""
        connections = [psycopg.connect(self.url, autocommit=True) for _ in range(_CLIENTS)]
        self.began_s = time.monotonic() + 0.05
        self._threads = [threading.Thread(target=self._run, args=(each,), daemon=True) for each in connections]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether transactions are still due or under way."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def reached(self) -> float:
        """Transactions a second from the first due one to the end of the last."""
        return len(self.committed_s) / max(self.ended_s - self.began_s, self.total / self.rate)

    def stop(self) -> None:
        """Take no further transaction."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self, connection: psycopg.Connection) -> None:
        try:
            with connection:
                while (number := next(self._due)) < self.total:
                    if self._stop.wait(max(0.0, self.began_s + number / self.rate - time.monotonic())):
                        return
                    identity = str(uuid.uuid4())
                    connection.execute(_INSERT, (identity, identity))
                    self.committed_s[identity] = self.ended_s = time.monotonic()
        except psycopg.Error as error:
            self.errors.append(error)


def measure(site: Site, seconds: float) -> dict[str, Any]:
    """
    The waits at each rate, over *seconds* each, on the running pipeline of *site*.

    Raises:
        MeasureError: a transaction has no effect or more than one.

    """
    figures = {}
    with running(site) as pipeline:
        _drive(pipeline, 100, _WARM_UP)
        for rate in RATES:
            figures[str(rate)] = _drive(pipeline, rate, round(rate * seconds))
    return figures


def _drive(pipeline: Pipeline, rate: int, total: int) -> dict[str, Any]:
    clients = Clients(pipeline.site.database_url, rate, total)
    first = pipeline.newest_effect()
    clients.start()
    try:
        seen = observe(pipeline, clients, first)
    finally:
        clients.stop()
    # What was seen before its own client's COMMIT had returned counts as 0.
    waits = sorted(max(0.0, seen[name] - at_s) * 1000 for name, at_s in clients.committed_s.items())
    return {
        "transactions": total,
        "offered_per_s": rate,
        "reached_per_s": round(clients.reached, 1),
        "void": clients.reached < _REACHED_SHARE * rate,
        "p50_ms": percentile(waits, 0.50),
        "p95_ms": percentile(waits, 0.95),
        "p99_ms": percentile(waits, 0.99),
        "max_ms": percentile(waits, 1.0),
    }


def observe(pipeline: Pipeline, clients: Clients, first: int) -> dict[str, float]:
    """
    When the effect of each transaction was first seen; *first* is the newest effect from before.

    Raises:
        MeasureError: a transaction has no effect or more than one.

    """
    seen: dict[str, float] = {}
    last, count, moved_s = first, 0, time.monotonic()
    while clients.busy or count < clients.total:
        rows = pipeline.effects.execute(_EFFECTS, (last,)).fetchall()
        now_s = time.monotonic()
        for number, id_text in rows:
            last, count, moved_s = number, count + 1, now_s
            seen.setdefault(id_text, now_s)
        if clients.errors:
            raise MeasureError(f"a client failed: {clients.errors[0]}") from clients.errors[0]
        if now_s - moved_s > _STALLED_S:
            raise MeasureError(f"{count} effects of {clients.total} transactions, and nothing moves")
        pipeline.look()
        time.sleep(_PAUSE_S)
    check("effects", clients.total, count)
    check("transactions without an effect", set(), clients.committed_s.keys() - seen.keys())
    return seen
