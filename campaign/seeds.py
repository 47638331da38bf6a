"""The seeds of a campaign: one that is named, or fresh ones that take the themes in turn."""

from __future__ import annotations

import secrets
import time
from collections import deque

from campaign.faults import THEMES
from campaign.options import Options

_SEEDS = 2**31


class Seeds:
    """Those that *options* ask for, one after another, from now on."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._count, self._repeats = 0, options.repeats
        self._again: deque[int] = deque()
        self._ends_s = None if options.minutes is None else time.monotonic() + 60 * options.minutes

    def take(self) -> int | None:
        """The next one; None when there are enough, or no time is left."""
        if self._ends_s is not None and time.monotonic() > self._ends_s:
            return None
        if self._options.seed is not None:
            self._count += 1
            return self._options.seed if self._count == 1 else None
        if self._options.seeds is None or self._count < self._options.seeds:
            self._count += 1
            return _fresh((self._count - 1) % len(THEMES))
        return _fresh(self._again.popleft()) if self._again else None

    def repeat(self, seed: int) -> bool:
        """Another one of the theme of *seed* will come; False if that was so as often as may be."""
        if not self._repeats:
            return False
        self._repeats -= 1
        self._again.append(seed % len(THEMES))
        return True


def _fresh(theme: int) -> int:
    return secrets.randbelow(_SEEDS // len(THEMES)) * len(THEMES) + theme
