"""Python's collector of cycles while events are applied."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# A batch and the one read ahead; the default of 700 or 2,000 looks at each of their objects several times.
ALLOCATIONS = 50_000


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """
    Look for cycles after 50,000 new objects rather than 700: events have none, and looking costs as much as decoding.

    Only ever raises the threshold, and restores it: an application that turned the collector off, or has chosen a
    higher one, keeps what it has.
    """
    before = gc.get_threshold()
    if not 0 < before[0] < ALLOCATIONS:
        yield
        return
    gc.set_threshold(ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
