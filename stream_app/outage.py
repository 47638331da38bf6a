"""Something is away, in the log: once when it goes, once a minute, once when it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("rowcast.worker")
_REMINDER_S = 60.0


Explain = Callable[[object], str | None]


class OutageLog:
    """
    Tells of *what*; `away` and `back` may be called as often as it is tried.

    *explain* finds out why, which may take seconds: each time that the outage is told, in a thread of its own.
    """

    def __init__(self, what: str, now_s: Callable[[], float] = time.monotonic, explain: Explain | None = None) -> None:
        self._what = what
        self._explain = explain
        self._now_s = now_s
        self._since_s: float | None = None
        self._told_s = 0.0

    def away(self, error: object) -> None:
        """It failed with *error*."""
        now_s = self._now_s()
        reason = " ".join(str(error).split())
        if self._since_s is None:
            self._since_s = self._told_s = now_s
            log.warning("%s: %s; trying again", self._what, reason)
            self._start_explaining(error)
        elif now_s - self._told_s >= _REMINDER_S:
            self._told_s = now_s
            log.warning("%s: %s; trying again since %.0f s", self._what, reason, now_s - self._since_s)
            self._start_explaining(error)

    def _start_explaining(self, error: object) -> None:
        if self._explain is not None:
            threading.Thread(target=self._tell_why, args=(self._explain, error), daemon=True).start()

    def _tell_why(self, explain: Explain, error: object) -> None:
        reason = explain(error)
        if reason is not None:
            log.warning("%s: %s", self._what, reason)

    def back(self) -> None:
        """It works."""
        if self._since_s is not None:
            log.warning("%s: works again after %.0f s", self._what, self._now_s() - self._since_s)
            self._since_s = None
