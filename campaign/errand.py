"""What is done to a pipeline beside the load of a round, in a thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Errand(ABC):
    """
    Work that goes on until it is done or *ending* is set; `error`: why it broke off.

    `end` waits for at most *join_s*.
    """

    def __init__(self, ending: threading.Event, join_s: float) -> None:
        self._ending, self._join_s = ending, join_s
        self._thread = threading.Thread(target=self._go, daemon=True)
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether all is done, or given up."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """End it, whatever became of it."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(self._join_s)

    def _go(self) -> None:
        try:
            self._run()
        # Raised where the round waits for it.
        except Exception as error:  # noqa: BLE001
            self.error = error

    @abstractmethod
    def _run(self) -> None:
        """Do it."""
