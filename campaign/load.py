"""The generator: several clients at once, until enough was changed and every fault has passed."""

from __future__ import annotations

import random
import threading
import time

import psycopg

from campaign.errors import NoVerdictError
from campaign.journal import Journal, unsettled
from campaign.known_keys import KnownKeys
from campaign.rows import RowChange
from campaign.writer import Writer

CLIENTS = 6
PAUSE_S = 0.01
_DIAL_S = 0.2
_JOIN_S = 60.0
_LOOK_S = 0.1


class Load:
    """Clients of the source at *url* that begin to write with `start`; *pace_s* is their pause, the more the slower."""

    def __init__(self, url: str, keys: KnownKeys, journal: Journal, seed: int) -> None:
        self.journal = journal
        self._keys, self._url = keys, url
        self._ending = threading.Event()
        self._error: Exception | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed} {number}")), daemon=True)
            for number in range(CLIENTS)
        ]
        self.pause_s = PAUSE_S

    def note(self, changes: list[RowChange]) -> None:
        """Rows that were there before."""
        self._keys.note(changes)

    def start(self) -> None:
        """Begin."""
        for each in self._threads:
            each.start()

    def check(self) -> None:
        """
        See that all clients work.

        Raises:
            NoVerdictError: one broke; that is a defect of the generator.

        """
        if self._error is not None:
            raise NoVerdictError(f"the generator broke: {self._error!r}") from self._error

    def finish(self) -> None:
        """
        End all clients; the outcome of every transaction is known afterwards.

        Raises:
            NoVerdictError: a client broke, or does not end.

        """
        self.end()
        self.check()
        if any(each.is_alive() for each in self._threads) or unsettled(self.journal.attempts):
            raise NoVerdictError("a client of the generator does not come to an end")

    def end(self) -> None:
        """End all clients, whatever became of them."""
        self._ending.set()
        deadline_s = time.monotonic() + _JOIN_S
        for each in self._threads:
            if each.ident is not None:
                each.join(max(0.0, deadline_s - time.monotonic()))

    def _run(self, number: int, rng: random.Random) -> None:
        writer = Writer(number, self._url, self._keys, self.journal, rng)
        try:
            while not self._ending.is_set() or writer.unsettled:
                try:
                    with writer.connect() as connection:
                        while not self._ending.is_set():
                            writer.commit_one(connection, self._ending)
                            self._ending.wait(self.pause_s * rng.random() * 2)
                except psycopg.OperationalError:
                    time.sleep(_DIAL_S)
        # Raised where the round waits for the load.
        except Exception as error:  # noqa: BLE001
            self._error = error
