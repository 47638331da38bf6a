"""
The consumer alone: a process applies full domain topics to an empty database; connector and worker are stopped.

Its progress is read from outside, from its read positions, which it commits together with the effects.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg

from benchmarks.applier import BROKERS, CONSUMER, DATABASE, ORDERS
from benchmarks.child import Child
from benchmarks.course import Course, Place
from benchmarks.domain_events import PublishedEvents
from benchmarks.errors import MeasureError, check
from benchmarks.site import Site

_POLL_S = 0.01
_STALLED_S = 60.0
_POSITIONS = "SELECT topic, partition, next_offset FROM rowcast_inbox.offset_position WHERE consumer = %s"


def measure(site: Site, published: PublishedEvents, handler: str) -> dict[str, Any]:
    """
    Let a new consumer with *handler* apply all *published* events.

    Raises:
        MeasureError: the effects are not those of the events, or the consumer did not get there.

    """
    url = site.new_consumer_database()
    with start(site, url, handler) as consumer, psycopg.connect(url, autocommit=True) as database:
        course = _follow(database, published, consumer)
        cpu_s = consumer.cpu_s()
        check_effects(database, published, handler)
    timing = course.timing(published.offsets, published.ends)
    return {
        "events": len(published.ids),
        "timed_events": timing.counted,
        "seconds": round(timing.seconds, 3),
        "events_per_s": round(timing.per_s),
        "consumer_cpu_s": round(cpu_s, 2),
        "consumer_pss_mb": round(consumer.peak_pss_mb(), 1),
    }


def start(site: Site, url: str, handler: str) -> Child:
    """A consumer process with *handler* on the database at *url*."""
    environment = {DATABASE: url, BROKERS: site.brokers}
    return Child("consumer", ["-m", "benchmarks.applier", handler, site.name], site.folder, environment)


def positions(database: psycopg.Connection) -> dict[Place, int]:
    """The read positions; none before the consumer has prepared its database."""
    row = database.execute("SELECT to_regclass('rowcast_inbox.offset_position')").fetchone()
    if row is None or row[0] is None:
        return {}
    return {(topic, partition): offset for topic, partition, offset in database.execute(_POSITIONS, (CONSUMER,))}


def check_effects(database: psycopg.Connection, published: PublishedEvents, handler: str) -> None:
    """
    See that the tables of *handler* hold the effect of every event, once.

    Raises:
        MeasureError: they do not.

    """
    if handler == ORDERS:
        applied = [event_id for (event_id,) in database.execute("SELECT event_id FROM applied_event")]
        check("effects of the orders handlers", len(published.ids), len(applied))
        check("events without an effect", set(), set(published.ids) - set(applied))
    else:
        found = {f"{each[0]}:{each[1]}": each[2] for each in database.execute("SELECT * FROM entity")}
        newest: dict[str, int] = {}
        for event_id in published.ids:
            name, _, version = event_id.rpartition(":")
            newest[name] = max(int(version), newest.get(name, 0))
        check("rows of the upsert handler", len(newest), len(found))
        check("rows with another version", [], [name for name in newest if newest[name] != found.get(name)][:3])


def _follow(database: psycopg.Connection, published: PublishedEvents, consumer: Child) -> Course:
    """The course of the read positions from the first assignment until they are behind all events."""
    course: Course | None = None
    moved_s = time.monotonic()
    while True:
        offsets = positions(database)
        now_s = time.monotonic()
        if offsets:
            course = course or Course(now_s)
            former = len(course.seen)
            course.note(now_s, offsets)
            if len(course.seen) > former:
                moved_s = now_s
            if all(offsets.get(place, 0) >= end for place, end in published.ends.items()):
                return course
        if now_s - moved_s > _STALLED_S:
            raise MeasureError(f"the consumer stands still at {offsets}")
        consumer.look()
        time.sleep(_POLL_S)
