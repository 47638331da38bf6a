"""
The sequencer alone: a worker process works through a full change log; the connector is stopped.

Its progress is read from outside, from the source's row of the control database. The clock starts when the first
committed batch is seen and stops when the position is behind the last record of the workload.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.change_log import FilledLog
from benchmarks.child import Child
from benchmarks.course import Course
from benchmarks.domain_events import PublishedEvents, read_published
from benchmarks.errors import MeasureError, check
from benchmarks.local_web import call
from benchmarks.site import Site
from benchmarks.workload import Workload

_POLL_S = 0.01
_STALLED_S = 120.0
_START_TIMEOUT_S = 60.0
_POSITION = "SELECT next_offset, sub_position IS NULL, status, stopped_code FROM rowcast.source WHERE source = %s"


def measure(site: Site, workload: Workload, log: FilledLog) -> tuple[PublishedEvents, dict[str, Any]]:
    """
    Let a new worker with empty state turn *log* into events.

    Raises:
        MeasureError: the events are not those that the source tables ask for, or the worker did not get there.

    """
    site.forget_sequencing()
    port = _free_port()
    with site.worker(port) as worker, psycopg.connect(site.control_url, autocommit=True) as control:
        course = _follow(control, log, worker)
        cpu_s = worker.cpu_s()
        stages = _stages(port)
        (refused,) = control.execute(
            "SELECT count(*) FROM rowcast.aggregate WHERE refused_reason IS NOT NULL"
        ).fetchone() or (None,)
    check("refused aggregates", 0, refused)
    published = read_published(site, workload)
    timing = course.timing({log.place: log.rows}, {log.place: log.end})
    return published, {
        "rows": workload.rows,
        "events": len(published.ids),
        "timed_rows": timing.counted,
        "seconds": round(timing.seconds, 3),
        "rows_per_s": round(timing.per_s),
        "events_per_s": round(timing.per_s * len(published.ids) / workload.rows),
        "seconds_from_claim": round(timing.ended_s - course.began_s, 3),
        "worker_cpu_s": round(cpu_s, 2),
        "worker_pss_mb": round(worker.peak_pss_mb(), 1),
        "worker_pss_mb_quarters": _quarters(course, worker, log),
        "worker_stage_s": stages,
    }


def _follow(control: psycopg.Connection, log: FilledLog, worker: Child) -> Course:
    """The course of the position from the claim, which commits the first one, until it is behind the log's rows."""
    course: Course | None = None
    moved_s, waits_s = time.monotonic(), _START_TIMEOUT_S
    while True:
        offset, whole, status, code = control.execute(_POSITION, (log.source,)).fetchone() or (None,) * 4
        now_s = time.monotonic()
        if status == "stopped":
            raise MeasureError(f"the worker stopped the source: {code}")
        if offset is not None:
            course = course or Course(now_s)
            former = len(course.seen)
            if whole:
                course.note(now_s, {log.place: offset})
            if not whole or len(course.seen) > former:
                moved_s, waits_s = now_s, _STALLED_S
            if whole and offset >= log.end:
                worker.look()
                return course
        if now_s - moved_s > waits_s:
            raise MeasureError(f"the worker stands still at offset {offset} of {log.end}")
        worker.look()
        time.sleep(_POLL_S)


def _quarters(course: Course, worker: Child, log: FilledLog) -> dict[str, float]:
    """The largest proportional set size in each quarter of the log's rows: flat memory shows by the last three."""
    found, from_s = {}, course.began_s
    for number in range(1, 5):
        behind = log.rows[len(log.rows) * number // 4 - 1]
        until_s = next(at_s for at_s, offsets in course.seen if offsets[log.place] > behind)
        found[str(number)] = round(worker.peak_pss_mb(from_s, until_s), 1)
        from_s = until_s
    return found


def _stages(port: int) -> dict[str, float]:
    """What the worker itself says of where its time went, in seconds; for tuning, not for the figures."""
    page = call(f"http://127.0.0.1:{port}/metrics").text
    return {
        sample.labels["stage"]: round(sample.value, 3)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "rowcast_stage_seconds_sum"
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
