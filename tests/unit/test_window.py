"""The alarm before the change log forgets what was not processed."""

from __future__ import annotations

import logging
import time

import pytest

from stream_app.metrics import Metrics, SourceMetrics
from stream_app.window import WindowWatch


def test_the_older_half_of_the_window_raises_the_alarm_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing left is no age; the younger half is fine; the older half warns, and not at every step."""
    metrics = Metrics()
    watch = WindowWatch("inventory", 60_000, SourceMetrics(metrics, "inventory"))
    now_ms = int(time.time() * 1000)
    with caplog.at_level(logging.WARNING):
        assert not watch.check()
        watch.note(now_ms - 20_000)
        assert not watch.check()
        watch.note(now_ms - 40_000)
        assert watch.check()
        assert watch.check()
    assert len(caplog.records) == 1
    text = metrics.render().decode()
    age = next(line for line in text.splitlines() if line.startswith("rowcast_change_log_age_seconds{"))
    assert 40 <= float(age.split()[-1]) < 50
    assert 'rowcast_change_log_window_seconds{source="inventory"} 60.0' in text
    watch.note(None)
    assert not watch.check()
