"""The benchmark has no figure for a stage whose counts are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.change_log import place_rows
from benchmarks.domain_events import place_events
from benchmarks.errors import MeasureError
from benchmarks.workload import rows
from examples.main_job.evidence import AppendedRecord

Values = list[tuple[int, dict[str, Any]]]
TOPICS = {"shop.instance.v1": "instance"}
EXPECTED = {("instance", "a"): [1, 2], ("instance", "b"): [1, 2]}


def change_log() -> Values:
    """Two inserts and two updates, each in a transaction of its own, with a heartbeat's transaction before them."""
    values: list[dict[str, Any]] = [{"status": "END", "id": "1:10", "event_count": 1}]
    for number, operation in enumerate("ccuu", start=2):
        values += [
            {"status": "BEGIN", "id": f"{number}:{number}1"},
            {"op": operation, "source": {"table": "instance"}, "transaction": {"id": f"{number}:{number}2"}},
            {"status": "END", "id": f"{number}:{number}3", "event_count": 1},
        ]
    return list(enumerate(values, start=100))


def events() -> list[AppendedRecord]:
    """Both versions of two aggregates, on two partitions."""
    return [event(0, 5, "a", 1), event(1, 3, "b", 1), event(0, 6, "a", 2), event(1, 9, "b", 2)]


def event(partition: int, offset: int, key: str, version: int) -> AppendedRecord:
    """A record of the domain topic."""
    headers = (("ce_id", f"instance:{key}:{version}".encode()), ("ce_sequence", f"{version:020d}".encode()))
    return AppendedRecord("shop.instance.v1", partition, offset, 0, key.encode(), b"{}", headers)


def test_a_whole_change_log_is_placed() -> None:
    """Rows by their offsets, and the end behind the last END."""
    log = place_rows(change_log(), "shop", rows(4))

    assert (log.rows, log.end) == ([102, 105, 108, 111], 113)


@pytest.mark.parametrize("missing", [2, 12])
def test_a_change_log_without_a_row_or_an_end_has_no_figure(missing: int) -> None:
    """A row that is lost, and a transaction that has no END."""
    values = change_log()
    del values[missing]

    with pytest.raises(MeasureError, match=r"change log|END"):
        place_rows(values, "shop", rows(4))


def test_a_row_that_is_there_twice_has_no_figure() -> None:
    """A change that was sent again is not throughput."""
    values = change_log()

    with pytest.raises(MeasureError, match="row changes"):
        place_rows([*values, (113, values[2][1])], "shop", rows(4))


def test_all_events_are_placed() -> None:
    """By partition, with the ends behind them."""
    published = place_events(events(), TOPICS, EXPECTED)

    assert published.ends == {("shop.instance.v1", 0): 7, ("shop.instance.v1", 1): 10}
    assert len(published.ids) == 4


@pytest.mark.parametrize(
    "records",
    [
        events()[:3],
        [*events(), event(0, 7, "a", 2)],
        [*events(), event(0, 7, "c", 1)],
        [events()[2], events()[0], *events()[1::2]],
    ],
    ids=["lost", "twice", "unknown", "out of order"],
)
def test_wrong_events_have_no_figure(records: list[AppendedRecord]) -> None:
    """Every row has its versions in order, once each, and nothing else is on the topics."""
    with pytest.raises(MeasureError, match="disagree"):
        place_events(records, TOPICS, EXPECTED)
