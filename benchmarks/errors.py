"""What ends a benchmark without figures."""

from __future__ import annotations


class MeasureError(Exception):
    """A stage did not do what it was measured at: counts are wrong, or it did not come to an end."""


def check(what: str, expected: object, found: object) -> None:
    """
    Compare a count with what was expected.

    Raises:
        MeasureError: they differ.

    """
    if expected != found:
        raise MeasureError(f"{what}: expected {str(expected)[:300]}, found {str(found)[:300]}")
