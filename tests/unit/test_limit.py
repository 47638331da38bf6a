"""Limits that tests make small."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = (
    "from stream_app.core import loading, transaction as t; print(t.TRANSACTION_CHANGES_MAX, loading.DESCENDANTS_MAX)"
)


def shown(limits: str) -> subprocess.CompletedProcess[str]:
    """What a process with these limits takes them for."""
    return subprocess.run(
        [sys.executable, "-c", SHOW],
        env={"ROWCAST_LIMITS": limits, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_limits_are_those_that_were_set() -> None:
    """Those that were not keep their number."""
    assert shown("").stdout == "20000 5000\n"
    assert shown("descendants=3").stdout == "20000 3\n"


@pytest.mark.parametrize("limits", ["descendants", "descendants=0", "descendants=-1", "unknown=3"])
def test_a_limit_that_cannot_be_is_an_error(limits: str) -> None:
    """With the names that there are."""
    done = shown(limits)
    assert done.returncode != 0
    assert "ROWCAST_LIMITS" in done.stderr
    assert "transaction_changes" in done.stderr
