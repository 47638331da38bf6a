"""
What has to be published of a history of rows, transaction by transaction. Pure.

As the oracle of `random_schema`, it knows schema and rows only; it works anew what a transaction can have touched,
instead of everything, so that histories of thousands of transactions are judged within a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from campaign.random_schema import Row, Rows, State, Type, ancestors
from campaign.rows import RowChange, key_of

Key = tuple[str, str]  # aggregate type and id text


class Commit(NamedTuple):
    """A committed transaction: *acked_at* is when its client knew (Unix time)."""

    xid: int
    lsn: int
    acked_at: float
    changes: Sequence[RowChange]


class ExpectedEvent(NamedTuple):
    """An event that has to be there; *lsn* is None for the snapshot of a row that was there before the capture."""

    key: Key
    version: int
    kind: str
    lsn: int | None
    after: Mapping[str, Any] | None
    ancestors: Mapping[str, Any]


def expected_events(types: Sequence[Type], initial: Rows, commits: Iterable[Commit]) -> dict[Key, list[ExpectedEvent]]:
    """The events of each aggregate in order; *commits* come in the order of their commits."""
    oracle = Oracle(types)
    oracle.change([RowChange(name, None, row) for (name, _), row in initial.items()], None)
    for commit in commits:
        oracle.change(commit.changes, commit.lsn)
    return oracle.events


class Oracle:
    """Fed with the transactions of one history, in order; *events* and their *count* are those so far."""

    def __init__(self, types: Sequence[Type]) -> None:
        self._types = {each.name: each for each in types}
        self._rows: dict[Key, Row] = {}
        self._counted: dict[Key, Row] = {}
        self._children: dict[Key, set[Key]] = defaultdict(set)
        self._states: dict[Key, State] = {}
        self.events: dict[Key, list[ExpectedEvent]] = {}
        self.count = 0

    def change(self, changes: Iterable[RowChange], lsn: int | None) -> None:
        """One transaction with its LSN; None: the rows of before."""
        touched: set[Key] = set()
        for change in changes:
            made = self._types[change.table]
            if change.removed is not None:
                touched.add(self._put(made, dict(zip(made.key, change.removed, strict=True)), None))
            if change.row is not None:
                touched.add(self._put(made, dict(zip(made.key, key_of(made, change.row), strict=True)), change.row))
        for key in sorted(self._with_descendants(touched), key=lambda key: (self._types[key[0]].rank, key[1])):
            self._publish(key, lsn)

    def _put(self, made: Type, key_row: Row, row: Row | None) -> Key:
        key = made.name, made.id_of(key_row)
        former = self._rows.pop(key, None)
        if former is not None and (up := self._parent(made, former)) is not None:
            self._children[up].discard(key)
        self._counted.pop(key, None)
        if row is not None:
            self._rows[key] = row
            if (up := self._parent(made, row)) is not None:
                self._children[up].add(key)
            if made.counts(row):
                self._counted[key] = row
        return key

    def _parent(self, made: Type, row: Row) -> Key | None:
        if made.parent is None or (id_text := made.parent_id(row)) is None:
            return None
        return made.parent.name, id_text

    def _with_descendants(self, keys: set[Key]) -> set[Key]:
        found, waiting = set(keys), list(keys)
        while waiting:
            below = self._children.get(waiting.pop(), set()) - found
            found |= below
            waiting += below
        return found

    def _publish(self, key: Key, lsn: int | None) -> None:
        made, old, row = self._types[key[0]], self._states.get(key), self._counted.get(key)
        new = None if row is None else (made.entity(row), ancestors(made, row, self._counted))
        if token(old) == token(new):
            return
        if new is None:
            assert old is not None, "what is equal was passed over"
            del self._states[key]
        else:
            self._states[key] = new
        kind = "snapshot" if lsn is None else "created" if old is None else "deleted" if new is None else "updated"
        entity, above = new or (None, (old or ({}, {}))[1])
        events = self.events.setdefault(key, [])
        self.count += 1
        events.append(ExpectedEvent(key, len(events) + 1, kind, lsn, entity, above))


def token(value: object) -> bytes:
    """JSON that is equal where values are."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
