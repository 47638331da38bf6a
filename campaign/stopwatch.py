"""Where a round's seconds go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """*parts_s* are the seconds of each part that is over, in their order; *now* is the part that is not."""

    def __init__(self) -> None:
        self.parts_s: dict[str, float] = {}
        self.now = ""
        self._since_s = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done inside is of this part."""
        self.now, self._since_s = name, time.monotonic()
        try:
            yield
        finally:
            self.parts_s[name] = time.monotonic() - self._since_s
            self.now = ""

    def __str__(self) -> str:
        return f"{self.now or 'waiting'} for {time.monotonic() - self._since_s:.0f} s"
