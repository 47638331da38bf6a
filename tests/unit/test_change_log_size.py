"""The estimate of the change log's size, from statistics that are given."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from changelog import build_definition

from rowcast.sources.change_log_size import Activity, ChangeLogEstimate, Growth, TableActivity, estimate_change_log

SINCE = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
# Names and four bytes each: id, title, tags, secret of `instance`.
NAMES_BYTES = 17 + 4 * 4


def instance(**changes: int) -> TableActivity:
    """Statistics of the table `instance`: rows of 100 bytes."""
    counts = {"inserts": 0, "updates": 0, "deletes": 0, "size_bytes": 100_000, "rows": 1_000, **changes}
    return TableActivity(name="public.instance", **counts)


def activity(*tables: TableActivity, span: timedelta = timedelta(seconds=100_000)) -> Activity:
    """Statistics over *span*."""
    return Activity(since=SINCE, until=SINCE + span, tables=tables)


def growth(estimate: ChangeLogEstimate) -> Growth:
    """The numbers of an estimate that could be made."""
    assert estimate.growth is not None
    return estimate.growth


def test_the_estimate_is_rate_times_bytes_times_window_and_heartbeats() -> None:
    """Each change costs envelope, field names and row; beats come once a second, whatever happens."""
    counted = instance(inserts=150_000, updates=50_000, deletes=30_000)

    found = growth(estimate_change_log(build_definition(), activity(counted)))

    assert found.changes_per_s == 2.3
    assert found.change_bytes == 650 + NAMES_BYTES + 100
    assert found.heartbeats_bytes == 604_800 * 990
    assert found.size_bytes == round(2.3 * found.change_bytes * 604_800) + found.heartbeats_bytes


def test_a_full_identity_adds_the_former_image_of_updates() -> None:
    """With REPLICA IDENTITY FULL an update carries two images, an insert one."""
    definition = build_definition()
    full = replace(definition, tables=tuple(replace(each, replica_identity="f") for each in definition.tables))

    updated = growth(estimate_change_log(full, activity(instance(updates=1_000))))
    inserted = growth(estimate_change_log(full, activity(instance(inserts=1_000))))

    assert updated.change_bytes == 650 + 2 * (NAMES_BYTES + 100)
    assert inserted.change_bytes == 650 + NAMES_BYTES + 100


def test_the_bytes_of_a_change_are_weighed_by_the_tables_changes() -> None:
    """A wide table that hardly changes hardly counts."""
    idle = TableActivity(name="public.item", inserts=0, updates=0, deletes=0, size_bytes=10**9, rows=1)

    with_idle = estimate_change_log(build_definition(), activity(instance(inserts=10), idle))

    assert with_idle == estimate_change_log(build_definition(), activity(instance(inserts=10)))


def test_a_table_that_is_empty_now_counts_with_its_envelope() -> None:
    """Rows that came and went leave no row to measure."""
    emptied = instance(inserts=10, deletes=10, size_bytes=0, rows=0)

    assert growth(estimate_change_log(build_definition(), activity(emptied))).change_bytes == 650 + NAMES_BYTES


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        (activity(instance(inserts=10), span=timedelta(minutes=59)), "span less than an hour, since 2026-11-20T08:00"),
        (activity(instance()), "hold no change of its tables since 2026-11-20T08:00"),
        (activity(), "hold no change"),
    ],
)
def test_too_little_to_go_by_gives_no_estimate(counted: Activity, words: str) -> None:
    """A short span or no change at all is said instead of a number."""
    estimate = estimate_change_log(build_definition(), counted)

    assert estimate.growth is None
    assert str(estimate).startswith("change log inventory.changes: no estimate of its size can be made yet (")
    assert words in str(estimate)


@pytest.mark.parametrize(
    ("changes", "window_ms", "line"),
    [
        (230_000, 604_800_000, "1.7 GB for 7 d (2.3 changes/s since 2026-11-20, 783 bytes each; 599 MB of heartbeats)"),
        (
            100,
            176_400_000,
            "175 MB for 49 h (less than 0.01 changes/s since 2026-11-20, 783 bytes each; 175 MB of heartbeats)",
        ),
        (
            12_345_000,
            604_800_000,
            "59 GB for 7 d (123 changes/s since 2026-11-20, 783 bytes each; 599 MB of heartbeats)",
        ),
        (10_000, 90_000, "96 kB for 90 s (0.1 changes/s since 2026-11-20, 783 bytes each; 89 kB of heartbeats)"),
    ],
)
def test_the_line_says_what_it_is_based_on(changes: int, window_ms: int, line: str) -> None:
    """Size and window, rate and since when, bytes of a change, and the share of the heartbeats."""
    definition = replace(build_definition(), change_log_window_ms=window_ms)

    text = str(estimate_change_log(definition, activity(instance(inserts=changes))))

    assert text == f"change log inventory.changes: about {line}"
