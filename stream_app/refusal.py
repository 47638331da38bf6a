"""A wave of refusals is not a few bad rows: above the declared share the source stops."""

from __future__ import annotations

from rowcast.errors import StopError

# Fewer outcomes than this say nothing about a share; after this many a new interval begins.
_OUTCOMES_MIN = 20
_INTERVAL_OUTCOMES = 1_000


class RefusalWatch:
    """Counts events and refusals of one claim, an interval at a time."""

    def __init__(self, source: str, share_max: float) -> None:
        self._source = source
        self._share_max = share_max
        self._events = 0
        self._refused = 0

    def check(self, events: int, refused: int) -> None:
        """
        Count the outcomes of a batch that is about to be published.

        Raises:
            StopError: too large a share was refused; nothing of the batch may be published.

        """
        if self._events + self._refused >= _INTERVAL_OUTCOMES:
            self._events = self._refused = 0
        self._events += events
        self._refused += refused
        outcomes = self._events + self._refused
        if refused and outcomes >= _OUTCOMES_MIN and self._refused > self._share_max * outcomes:
            raise StopError(
                "TOO_MANY_REFUSALS",
                f"{self._refused} of {outcomes} events were refused, more than the declared share {self._share_max}",
                remedy=f"mend mapping or contract, then: rowcast sources apply {self._source};"
                f" rowcast sources resume {self._source}",
            )
