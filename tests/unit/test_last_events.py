"""What a rebuild takes from the domain topics: the last event of each aggregate in each major."""

from __future__ import annotations

from dataclasses import replace

import pytest
from consumer_fixture import make_event
from test_core_majors import publishing

from rowcast.errors import MalformedEventError
from rowcast.event import EventKind, Record
from stream_app.last_event import LastEvent, covered_by, last_of


def record(id_text: str, version: int, kind: EventKind | None = None, major: int = 1) -> Record:
    """An event of the source shop."""
    return replace(make_event("shop", id_text, version, kind), major=major).encode()


def test_the_last_event_of_each_aggregate_and_major_counts() -> None:
    """Its version, and the state that it left; none where it says that the aggregate is deleted."""
    records = [
        record("a", 1),
        record("b", 1),
        record("a", 2),
        record("b", 2, EventKind.DELETED),
        record("a", 2, None, 2),
    ]

    assert sorted(last_of(records, "shop"), key=lambda each: each[:3]) == [
        LastEvent("item", "a", 1, 2, b'{"after":{"id":"a","n":2},"ancestors":{}}'),
        LastEvent("item", "a", 2, 2, b'{"after":{"id":"a","n":2},"ancestors":{}}'),
        LastEvent("item", "b", 1, 2, None),
    ]


def test_events_of_another_source_are_refused() -> None:
    """Its versions are none of ours."""
    with pytest.raises(MalformedEventError, match="an event of another source, shop"):
        last_of([record("a", 1)], "inventory")


def test_a_version_that_readers_of_a_live_major_lack_is_owed() -> None:
    """Covered is what went out in all live majors, the newest among them; a major that ended counts for nothing."""
    definition = publishing((2, 1))
    found = [("instance", "2,1"), ("instance", "1"), ("instance", "2"), ("item", "1"), ("item", "2,1")]

    assert list(covered_by(definition, found)) == [("instance", "2,1"), ("item", "1")]
