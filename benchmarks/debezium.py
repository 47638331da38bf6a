"""
Debezium alone: the workload waits in the WAL, the connector is started, nothing else runs.

The clock is read where the end of the change log is readable with `read_committed`.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.change_log import FilledLog, read_filled
from benchmarks.course import Course
from benchmarks.errors import MeasureError
from benchmarks.site import Site
from benchmarks.topic_watch import TopicWatch
from benchmarks.workload import Workload
from rowcast.topics import change_log_topic

_POLL_S = 0.01
_STALLED_S = 90.0
# The connector writes a heartbeat a second: a log that grew by so little has nothing more to say.
_QUIET_S = 1.5
_QUIET_RECORDS = 25


def take_snapshot(site: Site, workload: Workload) -> FilledLog:
    """
    The change log of *site*, whose connector has read the initial *workload*; it is stopped.

    Raises:
        MeasureError: the log does not hold what was committed.

    """
    site.stop_capture()
    return read_filled(site.brokers, site.name, workload)


def fill(site: Site, workload: Workload) -> tuple[FilledLog, dict[str, Any]]:
    """
    Commit *workload* while the connector of *site* is stopped, let it write the change log, and stop it again.

    Raises:
        MeasureError: the log does not hold what was committed.

    """
    site.stop_capture()
    workload.commit(site.database_url)
    place = change_log_topic(site.name), 0
    watch = TopicWatch(site.brokers, [place])
    course = Course(time.monotonic())
    first = watch.ends()[place]
    site.resume_capture()
    _follow(watch, course, first + workload.rows + 2 * workload.transactions)
    site.stop_capture()
    log = read_filled(site.brokers, site.name, workload)
    timing = course.timing({place: log.rows}, {place: log.end})
    return log, {
        "rows": workload.rows,
        "transactions": workload.transactions,
        "timed_rows": timing.counted,
        "seconds": round(timing.seconds, 3),
        "rows_per_s": round(timing.per_s),
    }


def _follow(watch: TopicWatch, course: Course, expected: int) -> None:
    """Note the end of the log until it is at least *expected* and only heartbeats come."""
    moved_s, quiet_from = time.monotonic(), (time.monotonic(), 0)
    while True:
        ends = watch.ends()
        now_s, end = time.monotonic(), max(ends.values())
        if not course.seen or course.seen[-1][1] != ends:
            moved_s = now_s
        course.note(now_s, ends)
        if end - quiet_from[1] > _QUIET_RECORDS:
            quiet_from = now_s, end
        if end >= expected and now_s - quiet_from[0] > _QUIET_S:
            return
        if now_s - moved_s > _STALLED_S:
            raise MeasureError(f"the change log stands still at {end}, {expected} were expected")
        time.sleep(_POLL_S)
