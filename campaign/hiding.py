"""
Rows that change while the publication leaves their tables out: no change log tells of it.

What a DBA does who switches the capture off, or rewrites a table. Both happens in one transaction, so nobody else ever
sees a publication that is not whole, and the other tables' changes stay where they are.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg

from campaign.journal import COMMITTED, Attempt, Journal
from campaign.known_keys import KnownKeys
from campaign.random_schema import Type
from campaign.writer import HIDDEN, HIDER, Steps, Writer
from rowcast.sources.connector import publication_name


class Hiding(Writer):
    """A client of *source* that changes hidden rows, unseen by its change log."""

    def __init__(self, source: str, url: str, keys: KnownKeys, journal: Journal, rng: random.Random) -> None:
        super().__init__(HIDER, url, keys, journal, rng)
        self._publication = publication_name(source)
        self._attempt: Attempt | None = None

    def hide(self, ending: threading.Event) -> bool:
        """
        Change hidden rows once; False if they are as they were.

        Raises:
            psycopg.OperationalError: the connection is lost; the next call finds out what became of the changes.

        """
        former = self._attempt
        with self.connect() as connection:
            done = former is not None and former.outcome == COMMITTED
            done = done or self.commit_one(connection, ending)
            self._attempt = None
        return done

    def _kind(self) -> str:
        return HIDDEN

    def work(self, connection: psycopg.Connection[Any], attempt: Attempt, ending: threading.Event) -> None:
        """Change, delete and insert some hidden rows of each table."""
        del ending
        self._attempt = attempt
        tables = ", ".join(f"public.{name}" for name in self._keys.types)
        connection.execute(f"ALTER PUBLICATION {self._publication} DROP TABLE {tables}".encode())
        steps = Steps(connection, attempt.changes, self._keys, self._rng)
        for made in self._keys.types.values():
            self._change(steps, made)
        connection.execute(f"ALTER PUBLICATION {self._publication} ADD TABLE {tables}".encode())

    def end(self, connection: psycopg.Connection[Any], attempt: Attempt) -> None:
        """Commit: somebody waits for it."""
        self._journal.about_to_commit(attempt)
        self.commit(connection, attempt)

    def _change(self, steps: Steps, made: Type) -> None:
        keys, rng = self._keys.hidden[made.name], self._rng
        row = self._keys.hidden_row(rng, made)
        names = [name for name in made.columns if name not in made.key]
        for key in rng.sample(keys, min(2, len(keys))):
            steps.update(made, [key], {name: row[name] for name in rng.sample(names, rng.randint(1, len(names)))})
        if rng.random() < 0.5:
            steps.upsert(made, self._keys.hidden_row(rng, made))
        named = any(each.parent is made and each.name in self._keys.constrained for each in self._keys.types.values())
        if keys and not named and rng.random() < 0.6:
            steps.delete(made, rng.choice(keys))
