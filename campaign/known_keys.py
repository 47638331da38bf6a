"""
Which keys the clients believe to exist, so that they meet at the same rows; nobody relies on its being right.

Hidden rows are those that no client is to meet.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterable
from typing import Any

from campaign.random_schema import TEXTS, VALUES, Row, Type, random_row
from campaign.rows import RowChange, key_of

HOT = 3
# What PostgreSQL keeps apart from the row, so that an UPDATE of other columns does not have it in the WAL.
LARGE = ["x" * 3_000 + each for each in "abc"]
_FRESH_FROM = 1_000
_POPULAR = 0.3


class KnownKeys:
    """
    Keys of *types*, shared by the clients; those of tables in *constrained* are referenced by foreign keys.

    *truncated*: the clients may TRUNCATE tables.
    """

    def __init__(self, types: Iterable[Type], constrained: frozenset[str], *, truncated: bool = True) -> None:
        self.truncated = truncated
        self.types = {each.name: each for each in types}
        self.constrained = constrained
        self.hidden: dict[str, list[tuple[Any, ...]]] = {name: [] for name in self.types}
        self._keys: dict[str, dict[tuple[Any, ...], None]] = {name: {} for name in self.types}
        self._fresh = itertools.count(_FRESH_FROM)
        self._lock = threading.Lock()

    def note(self, changes: Iterable[RowChange]) -> None:
        """A transaction with these changes was committed."""
        with self._lock:
            for change in changes:
                if change.removed is not None:
                    self._keys[change.table].pop(change.removed, None)
                if change.row is not None:
                    self._keys[change.table][key_of(self.types[change.table], change.row)] = None

    def sample(self, rng: random.Random, name: str, count: int) -> list[tuple[Any, ...]]:
        """Up to *count* different keys of a table."""
        with self._lock:
            keys = list(self._keys[name])
        return rng.sample(keys, min(count, len(keys)))

    def hot(self, rng: random.Random, name: str) -> tuple[Any, ...] | None:
        """One of the few keys that all clients want, the oldest ones."""
        with self._lock:
            keys = list(itertools.islice(self._keys[name], HOT))
        return rng.choice(keys) if keys else None

    def row(self, rng: random.Random, made: Type, *, fresh: bool) -> Row:
        """A random row; a *fresh* one has a key that nobody used before."""
        row = random_row(rng, made)
        for name, type_ in made.columns.items():
            if name[0] == "c" and type_ == "text" and rng.random() < 0.2:
                row[name] = rng.choice(LARGE)
        number = next(self._fresh)
        for place, name in enumerate(made.key):
            if made.columns[name] == "text":
                row[name] = f"{rng.choice(TEXTS)}{number}" if fresh else rng.choice(TEXTS)
            else:
                row[name] = number if fresh and not place else rng.choice(VALUES["integer"][:3])
        if fresh and all(made.columns[name] != "text" for name in made.key):
            row[made.key[0]] = number
        self.link(rng, made, row)
        return row

    def hidden_row(self, rng: random.Random, made: Type) -> Row:
        """A row that no client knows, below such a row or none; of short texts, which nothing refuses."""
        row = self.row(rng, made, fresh=True)
        row |= {name: "hidden" for name, value in row.items() if value in LARGE}
        for link, above in _links(made):
            key = rng.choice([None, *self.hidden[above.name]])
            row.update(zip(link, key or [None] * len(link), strict=True))
        return row

    def link(self, rng: random.Random, made: Type, row: Row) -> None:
        """
        Let *row* name a parent: mostly one that is there, sometimes none or, where it is allowed, a missing one.

        Some of those that all clients want have many children, so that a change of theirs has many events.
        """
        for link, above in _links(made):
            popular = self.hot(rng, above.name) if rng.random() < _POPULAR else None
            found = self.sample(rng, above.name, 1) if popular is None else [popular]
            chance = rng.random()
            if chance < 0.15 or (not found and made.name in self.constrained):
                row.update(dict.fromkeys(link))
            elif found and (chance < 0.9 or made.name in self.constrained):
                row.update(zip(link, found[0], strict=True))


def _links(made: Type) -> list[tuple[tuple[str, ...], Type]]:
    """By which columns a row names rows of which tables."""
    links = [(made.link, made.parent), (made.other_link, made.other)]
    return [(link, above) for link, above in links if link and above is not None]
