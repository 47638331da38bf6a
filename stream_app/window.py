"""
The alarm before the change log forgets what was not processed yet.

The change log keeps its records for a declared window. While the oldest unprocessed record is older than half
of it there is time to act: beyond the window the source stops, and only a new snapshot helps.
"""

from __future__ import annotations

import logging
import time

from stream_app.metrics import SourceMetrics

log = logging.getLogger("rowcast.worker")
_WARNING_INTERVAL_S = 60.0


class WindowWatch:
    """Follows the age of the oldest unprocessed record of one source, also while the source is stopped."""

    def __init__(self, source: str, window_ms: int, metrics: SourceMetrics) -> None:
        self._source = source
        self._window_s = window_ms / 1000
        self._metrics = metrics
        self._oldest_s: float | None = None
        self._warned_s = float("-inf")
        metrics.window(self._window_s)

    def note(self, oldest_ms: int | None) -> None:
        """The oldest unprocessed record was appended at *oldest_ms* (Unix time); None: there is none."""
        self._oldest_s = None if oldest_ms is None else oldest_ms / 1000

    def check(self) -> bool:
        """Set the metric; warn once a minute, and return True, while the record is older than half the window."""
        age_s = 0.0 if self._oldest_s is None else max(0.0, time.time() - self._oldest_s)
        self._metrics.change_log_age(age_s)
        old = age_s > self._window_s / 2
        if old and time.monotonic() > self._warned_s + _WARNING_INTERVAL_S:
            self._warned_s = time.monotonic()
            log.warning(
                "source %s: the next change to process is %.0f s old, and the change log keeps %.0f s"
                " (POSITION_LEAVES_WINDOW)",
                self._source,
                age_s,
                self._window_s,
            )
        return old
