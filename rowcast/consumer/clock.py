"""
A lower bound of the broker's clock.

Whether a gap may be compaction is a question of the broker's time: append times are its clock, and so is the
age after which it compacts. No response of the Kafka protocol carries that clock, so it is bounded from below;
an estimate that is too late could pass loss for compaction, one that is too early only stops for a person.

Two bounds, and the later one counts:

- the newest append time seen plus the monotonic time since: true whatever any wall clock says;
- the earlier of this machine's and the database's wall clock, less a margin. It serves the consumer that starts
  on topics which have been quiet for long, and relies on one of the two clocks being no further ahead of the
  broker's than the margin.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_MAX_MARGIN_MS = 60_000
_MARGIN_SHARE = 0.01  # of the window, so that a short window is not swallowed by the margin


class BrokerClock:
    """Fed with append times and the database's clock; all times are milliseconds since 1970."""

    def __init__(
        self, wall_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall_s, self._monotonic_s = wall_s, monotonic_s
        self._broker_ahead_ms: float | None = None  # broker's clock minus the monotonic one, at least
        self._database_ahead_ms: float | None = None  # database's clock minus the monotonic one

    def appended(self, appended_ms: int) -> None:
        """A record with this append time was read just now."""
        ahead = appended_ms - self._monotonic_s() * 1000
        if self._broker_ahead_ms is None or ahead > self._broker_ahead_ms:
            self._broker_ahead_ms = ahead

    def database(self, now_ms: float) -> None:
        """The database's clock shows this just now."""
        self._database_ahead_ms = now_ms - self._monotonic_s() * 1000

    def horizon_ms(self, window_ms: int) -> float:
        """The append time before which a topic with this compaction lag may have been compacted."""
        monotonic_ms = self._monotonic_s() * 1000
        wall_ms = self._wall_s() * 1000
        if self._database_ahead_ms is not None:
            wall_ms = min(wall_ms, monotonic_ms + self._database_ahead_ms)
        now_ms = wall_ms - min(_MAX_MARGIN_MS, window_ms * _MARGIN_SHARE)
        if self._broker_ahead_ms is not None:
            now_ms = max(now_ms, monotonic_ms + self._broker_ahead_ms)
        return now_ms - window_ms
