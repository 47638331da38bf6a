"""The domain topics after a workload: where the events stand, checked against the source tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

from benchmarks.course import Place
from benchmarks.errors import MeasureError, check
from benchmarks.site import Site
from benchmarks.topic_watch import read_all
from benchmarks.workload import Workload
from examples.main_job.evidence import AppendedRecord


@dataclass(frozen=True, slots=True)
class PublishedEvents:
    """The offsets of all events by topic and partition, and their ids."""

    offsets: Mapping[Place, list[int]]
    ids: frozenset[str]

    @property
    def ends(self) -> dict[Place, int]:
        """Behind the last event of each partition."""
        return {place: offsets[-1] + 1 for place, offsets in self.offsets.items()}


def read_published(site: Site, workload: Workload) -> PublishedEvents:
    """
    Read all domain topics of *site* and check them against its source tables.

    Raises:
        MeasureError: they disagree.

    """
    types = {site.domain_topic(aggregate): aggregate for aggregate in workload.versions}
    return place_events(read_all(site.brokers, list(types)), types, _expected(site, workload))


def place_events(
    records: Iterable[AppendedRecord], types: Mapping[str, str], expected: Mapping[tuple[str, str], list[int]]
) -> PublishedEvents:
    """
    Where the events stand; *types* names the aggregate type of each topic.

    Raises:
        MeasureError: the versions of an aggregate (type, id) are not the *expected* ones, in order, once each.

    """
    offsets: dict[Place, list[int]] = defaultdict(list)
    ids = set()
    versions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in records:
        headers = dict(record.headers)
        offsets[record.topic, record.partition].append(record.offset)
        ids.add(headers["ce_id"].decode())
        versions[types[record.topic], (record.key or b"").decode()].append(int(headers["ce_sequence"]))
    wrong = [key for key in expected.keys() | versions.keys() if expected.get(key) != versions.get(key)]
    if wrong:
        key = wrong[0]
        found = f"{len(wrong)} aggregates, first {key}: expected {expected.get(key)}, found {versions.get(key)}"
        raise MeasureError(f"the domain topics disagree with the source tables in {found}")
    check("different event ids on the domain topics", sum(map(len, expected.values())), len(ids))
    return PublishedEvents(dict(offsets), frozenset(ids))


def _expected(site: Site, workload: Workload) -> dict[tuple[str, str], list[int]]:
    expected = {}
    with psycopg.connect(site.database_url) as connection:
        for aggregate, version in workload.versions.items():
            query = sql.SQL("SELECT id::text FROM public.{}").format(sql.Identifier(aggregate))
            for (id_text,) in connection.execute(query):
                expected[aggregate, id_text] = list(range(1, version + 1))
    return expected
