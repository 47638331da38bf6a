"""All together: connector, worker and the orders consumer run while a workload is committed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks import consumer
from benchmarks.applier import ORDERS
from benchmarks.child import Child
from benchmarks.domain_events import read_published
from benchmarks.errors import MeasureError
from benchmarks.site import AGGREGATES, Site
from benchmarks.workload import Workload

_POLL_S = 0.01
_STALLED_S = 120.0
_READY_TIMEOUT_S = 90.0
_DRAWN = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM applied_event_seq_seq"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A whole pipeline for *site*, and *effects*: a connection to the consumer's database for looking."""

    site: Site
    worker: Child
    consumer: Child
    effects: psycopg.Connection

    def look(self) -> None:
        """See that both processes are alive."""
        self.worker.look()
        self.consumer.look()

    def wait_effects(self, count: int) -> float:
        """
        Wait until *count* effects are committed; returns the moment at which that was first seen.

        Raises:
            MeasureError: nothing has moved for long.

        """
        drawn, moved_s = -1, time.monotonic()
        while True:
            (now_drawn,) = self.effects.execute(_DRAWN).fetchone() or (0,)
            # Numbers are drawn before their transaction commits, and reading one is cheaper than counting.
            if now_drawn >= count and self.count_effects() >= count:
                return time.monotonic()
            if now_drawn != drawn:
                drawn, moved_s = now_drawn, time.monotonic()
            if time.monotonic() - moved_s > _STALLED_S:
                raise MeasureError(f"the pipeline stands still at {self.count_effects()} effects of {count}")
            self.look()
            time.sleep(_POLL_S)

    def count_effects(self) -> int:
        """How many effects are committed."""
        row = self.effects.execute("SELECT count(*) FROM applied_event").fetchone()
        return int(row[0]) if row else 0

    def newest_effect(self) -> int:
        """The number of the effect that was committed last, 0 for none."""
        row = self.effects.execute("SELECT coalesce(max(seq), 0) FROM applied_event").fetchone()
        return int(row[0]) if row else 0


def measure(site: Site, workload: Workload) -> dict[str, Any]:
    """
    Commit *workload* to *site* and time it from before its first transaction to its last effect.

    Raises:
        MeasureError: events or effects are not those of the workload, or the pipeline did not get there.

    """
    # Each row change of the workloads alters what is published: one event and one effect for each.
    events = workload.rows
    with running(site) as pipeline:
        began_s = time.monotonic()
        workload.commit(site.database_url)
        committed_s = time.monotonic()
        ended_s = pipeline.wait_effects(events)
        consumer.check_effects(pipeline.effects, read_published(site, workload), ORDERS)
    return {
        "rows": workload.rows,
        "events": events,
        "seconds": round(ended_s - began_s, 3),
        "commit_s": round(committed_s - began_s, 3),
        "rows_per_s": round(workload.rows / (ended_s - began_s)),
        "worker_pss_mb": round(pipeline.worker.peak_pss_mb(), 1),
        "consumer_pss_mb": round(pipeline.consumer.peak_pss_mb(), 1),
    }


@contextmanager
def running(site: Site) -> Iterator[Pipeline]:
    """The pipeline of *site* with the orders consumer, once worker and consumer are at work."""
    url = site.new_consumer_database()
    with (
        site.worker() as worker,
        consumer.start(site, url, ORDERS) as orders,
        psycopg.connect(url, autocommit=True) as effects,
    ):
        pipeline = Pipeline(site, worker, orders, effects)
        _wait_ready(pipeline)
        yield pipeline


def _wait_ready(pipeline: Pipeline) -> None:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    partitions = pipeline.site.definition().partitions * len(AGGREGATES)
    with psycopg.connect(pipeline.site.control_url, autocommit=True) as control:
        while len(consumer.positions(pipeline.effects)) < partitions or not _past_snapshot(control):
            if time.monotonic() > deadline_s:
                raise MeasureError(f"worker and consumer are not at work after {_READY_TIMEOUT_S:.0f} s")
            pipeline.look()
            time.sleep(_POLL_S)


def _past_snapshot(control: psycopg.Connection) -> bool:
    row = control.execute("SELECT count(*) FROM rowcast.generation WHERE status = 'complete'").fetchone()
    return row is not None and row[0] >= len(AGGREGATES)
