"""Migrations of the control tables and of the inbox: numbered, forward only."""

from __future__ import annotations

from pathlib import Path

import pytest

ROWCAST = Path(__file__).resolve().parents[2] / "rowcast"


@pytest.mark.parametrize("part", ["control", "consumer"])
def test_migrations_are_numbered_without_gap(part: str) -> None:
    """Two with one number would run in the order of their names, whichever was written first."""
    names = sorted(path.name for path in (ROWCAST / part).rglob("*.sql"))

    assert names
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
