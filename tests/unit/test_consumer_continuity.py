from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.consumer.clock import BrokerClock
from rowcast.consumer.continuity import Verdict, judge
from rowcast.event import EventKind

DAY_MS = 24 * 3600 * 1000
UPDATED, SNAPSHOT, DELETED = EventKind.UPDATED, EventKind.SNAPSHOT, EventKind.DELETED


@pytest.mark.parametrize(
    ("mark", "version", "kind", "appended_ms", "verdict"),
    [
        (0, 1, EventKind.CREATED, 2000, Verdict.APPLY),
        (4, 5, UPDATED, 2000, Verdict.APPLY),
        (4, 4, UPDATED, 2000, Verdict.SKIP),
        (4, 1, SNAPSHOT, 0, Verdict.SKIP),
        (4, 6, UPDATED, 2000, Verdict.GAP),
        (0, 2, UPDATED, 2000, Verdict.GAP),
        (0, 2, DELETED, 2000, Verdict.GAP),
        (4, 6, UPDATED, 999, Verdict.APPLY),
        (4, 6, UPDATED, 1000, Verdict.GAP),
        (4, 6, UPDATED, None, Verdict.GAP),
        (0, 9, SNAPSHOT, 2000, Verdict.APPLY),
        (4, 9, SNAPSHOT, None, Verdict.APPLY),
    ],
)
def test_the_verdict(mark: int, version: int, kind: EventKind, appended_ms: int | None, verdict: Verdict) -> None:
    """The next version and snapshots are applied, old ones skipped, gaps accepted only before the horizon (1000)."""
    assert judge(mark, version, kind, appended_ms, 1000) is verdict


@given(st.lists(st.integers(1, 8), max_size=30))
def test_effects_never_repeat_and_never_skip(versions: list[int]) -> None:
    """Whatever is delivered inside the window, what is applied is 1, 2, 3 … without holes."""
    applied: list[int] = []
    for version in versions:
        if judge(len(applied), version, UPDATED, 10**15, 0) is Verdict.APPLY:
            applied.append(version)
    assert applied == list(range(1, len(applied) + 1))


class Clocks:
    """A wall clock and a monotonic clock that tests move."""

    def __init__(self, wall_s: float) -> None:
        self.wall_s, self.monotonic_s = wall_s, 50.0

    def clock(self) -> BrokerClock:
        """A broker clock over them."""
        return BrokerClock(lambda: self.wall_s, lambda: self.monotonic_s)

    def move(self, seconds: float) -> None:
        """Time goes on for both."""
        self.wall_s += seconds
        self.monotonic_s += seconds


def test_a_fresh_record_is_the_best_clock() -> None:
    """With wall clocks far behind, the newest append time and the time since count."""
    clocks = Clocks(wall_s=0)
    clock = clocks.clock()
    clock.appended(10 * DAY_MS)
    clock.appended(9 * DAY_MS)
    assert clock.horizon_ms(DAY_MS) == 9 * DAY_MS
    clocks.move(5)
    assert clock.horizon_ms(DAY_MS) == 9 * DAY_MS + 5000


def test_the_earlier_wall_clock_less_a_margin_serves_quiet_topics() -> None:
    """Without fresh records the earlier of both wall clocks counts, a minute less at most."""
    clocks = Clocks(wall_s=10 * 24 * 3600)
    clock = clocks.clock()
    clock.appended(DAY_MS)
    assert clock.horizon_ms(DAY_MS) == 9 * DAY_MS - 60_000
    clock.database(8 * DAY_MS)
    assert clock.horizon_ms(DAY_MS) == 7 * DAY_MS - 60_000
    assert clock.horizon_ms(1000) == 8 * DAY_MS - 1000 - 10


def test_a_database_clock_that_is_ahead_changes_nothing() -> None:
    """One clock that runs ahead cannot pass loss for compaction."""
    clocks = Clocks(wall_s=10 * 24 * 3600)
    clock = clocks.clock()
    clock.database(100 * DAY_MS)
    assert clock.horizon_ms(DAY_MS) == 9 * DAY_MS - 60_000
