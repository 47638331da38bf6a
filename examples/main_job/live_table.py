"""The live table on standard error: one line rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_COLUMNS = ("seconds", "committed", "published", "applied", "refused", "lag")


class LiveTable:
    """Rows of figures, at most one a second on a terminal and one in five seconds elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._interval_s = 1.0 if self._terminal else 5.0
        self._next = 0.0
        self._open = False

    def head(self) -> None:
        """The names of the columns."""
        print("".join(f"{name:>11}" for name in _COLUMNS), file=self._stream, flush=True)

    def due(self) -> bool:
        """Whether it is time for another row."""
        return time.monotonic() >= self._next

    def row(self, seconds: float, counts: tuple[int, int, int, int], lag_s: float) -> None:
        """Committed, published, applied, refused after so many *seconds* of the load, and the lag."""
        self.line(f"{seconds:>11.0f}" + "".join(f"{count:>11}" for count in counts) + f"{lag_s * 1000:>8.0f} ms")

    def line(self, text: str) -> None:
        """Any text in the place of a row."""
        self._next = time.monotonic() + self._interval_s
        print(
            f"\r{text}" if self._terminal else text, end="" if self._terminal else "\n", file=self._stream, flush=True
        )
        self._open = self._terminal

    def close(self) -> None:
        """End the line that was rewritten."""
        if self._open:
            print(file=self._stream, flush=True)
            self._open = False
