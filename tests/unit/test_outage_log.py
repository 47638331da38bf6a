from __future__ import annotations

import pytest

from stream_app.outage import OutageLog


def test_an_outage_is_told_when_it_begins_once_a_minute_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried, and again at the next one."""
    now = [100.0]
    outage = OutageLog("control database", lambda: now[0])
    outage.back()
    for second in range(125):
        now[0] = 100.0 + second
        outage.away("connection refused\n\tIs the server running?")
    outage.back()
    outage.back()
    outage.away("again")
    assert [record.getMessage() for record in caplog.records] == [
        "control database: connection refused Is the server running?; trying again",
        "control database: connection refused Is the server running?; trying again since 60 s",
        "control database: connection refused Is the server running?; trying again since 120 s",
        "control database: works again after 124 s",
        "control database: again; trying again",
    ]
