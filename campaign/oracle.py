"""
What has to be published of a history of rows, transaction by transaction. Pure.

As the oracle of `random_schema`, it knows schema and rows only; it works anew what a transaction can have touched,
instead of everything, so that histories of thousands of transactions are judged within a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from campaign.random_schema import Row, Rows, State, Type, ancestors
from campaign.rows import RowChange, key_of

Key = tuple[str, str]  # aggregate type and id text


_NOTHING: Mapping[str, Any] = {}


class Commit(NamedTuple):
    """
    A committed transaction: *acked_at* is when its client knew (Unix time).

    *moment_us* is when the source committed it (Unix time, None: not known), *context* what its client attached. One
    that is *hidden* is in no change log: what it changed is told when somebody has the rows read again.
    """

    xid: int
    lsn: int
    acked_at: float
    changes: Sequence[RowChange]
    moment_us: int | None = None
    context: Mapping[str, Any] = _NOTHING
    hidden: bool = False


class ExpectedEvent(NamedTuple):
    """
    An event that has to be there; *lsn* is None for the snapshot of a row that was there before the capture.

    One that is *asked* for is made between two commits: its *lsn* is that of the first of them, None while not known.
    """

    key: Key
    version: int
    kind: str
    lsn: int | None
    after: Mapping[str, Any] | None
    ancestors: Mapping[str, Any]
    moment_us: int | None = None
    context: Mapping[str, Any] = _NOTHING
    asked: bool = False

    @property
    def due(self) -> int:
        """Whoever says that it is complete up to this LSN says that this event is there."""
        return (self.lsn or 0) + self.asked


def expect(types: Sequence[Type], initial: Rows, commits: Iterable[Commit]) -> Oracle:
    """All that has to be published; *commits* come in the order of their commits."""
    oracle = Oracle(types)
    oracle.change([RowChange(name, None, row) for (name, _), row in initial.items()], None)
    for commit in commits:
        oracle.commit(commit)
    return oracle


def expected_events(types: Sequence[Type], initial: Rows, commits: Iterable[Commit]) -> dict[Key, list[ExpectedEvent]]:
    """The events of each aggregate in order; *commits* come in the order of their commits."""
    return expect(types, initial, commits).events


class Oracle:
    """
    Fed with the transactions of one history, in order; *events* and their *count* are those so far.

    *refused* says of each LSN from which on other aggregates cannot be published, how many of each type.
    """

    def __init__(self, types: Sequence[Type]) -> None:
        self._types = {each.name: each for each in types}
        self._rows: dict[Key, Row] = {}
        self._counted: dict[Key, Row] = {}
        self._children: dict[Key, set[Key]] = defaultdict(set)
        self._inside: dict[Key, set[Key]] = defaultdict(set)  # the embedded rows below a row, and its link rows
        self._naming: dict[Key, set[Key]] = defaultdict(set)  # the link rows that name it as a parent
        self._states: dict[Key, State] = {}
        self._refused: set[Key] = set()
        self.events: dict[Key, list[ExpectedEvent]] = {}
        self.count = 0
        self.refused: list[tuple[int, Mapping[str, int]]] = [(0, {})]

    def commit(self, commit: Commit) -> None:
        """One transaction."""
        self._change(commit.changes, commit)

    def change(self, changes: Iterable[RowChange], lsn: int | None) -> None:
        """One transaction with its LSN; None: the rows of before."""
        self._change(changes, None if lsn is None else Commit(0, lsn, 0.0, ()))

    def _change(self, changes: Iterable[RowChange], commit: Commit | None) -> None:
        touched: set[Key] = set()
        for change in changes:
            made = self._types[change.table]
            if change.removed is not None:
                touched |= self._put(made, dict(zip(made.key, change.removed, strict=True)), None)
            if change.row is not None:
                touched |= self._put(made, dict(zip(made.key, key_of(made, change.row), strict=True)), change.row)
        for key in sorted(self._with_descendants(touched), key=lambda key: (self._types[key[0]].rank, key[1])):
            self._publish(key, commit)
        refused = Counter(aggregate for aggregate, _ in self._refused)
        if refused != self.refused[-1][1]:
            self.refused.append((0 if commit is None else commit.lsn, refused))

    def _put(self, made: Type, key_row: Row, row: Row | None) -> set[Key]:
        """Keep a row, or forget it; the aggregates that it was and is of."""
        key = made.name, made.id_of(key_row)
        below = self._children if made.is_aggregate else self._inside
        touched = self._roots(key)
        former = self._rows.pop(key, None)
        if former is not None and (up := self._parent(made, former)) is not None:
            below[up].discard(key)
        if former is not None and (other := _other(made, former)) is not None:
            self._naming[other].discard(key)
        self._counted.pop(key, None)
        if row is not None:
            self._rows[key] = row
            if (up := self._parent(made, row)) is not None:
                below[up].add(key)
            if (other := _other(made, row)) is not None:
                self._naming[other].add(key)
            if made.counts(row):
                self._counted[key] = row
        return touched | self._roots(key)

    def _roots(self, key: Key) -> set[Key]:
        """The aggregate that a row is of: one, or none."""
        made, row = self._types[key[0]], self._rows.get(key)
        if made.is_aggregate:
            return {key}
        up = None if row is None else self._parent(made, row)
        return set() if up is None else self._roots(up)

    def _parents(self, made: Type, id_text: str) -> set[str]:
        if made.through is None:
            named = [made.parent_id(self._counted[made.name, id_text])]
        else:
            named = [made.through.other_id(row) for row in self._below(made.through, id_text)]
        return {each for each in named if each is not None}

    def _below(self, made: Type, id_text: str) -> list[Row]:
        assert made.parent is not None, "it is embedded in something"
        return [self._rows[each] for each in self._inside[made.parent.name, id_text] if each[0] == made.name]

    def _parent(self, made: Type, row: Row) -> Key | None:
        if made.parent is None or made.through is not None or (id_text := made.parent_id(row)) is None:
            return None
        return made.parent.name, id_text

    def _with_descendants(self, keys: set[Key]) -> set[Key]:
        found, waiting = set(keys), list(keys)
        while waiting:
            key = waiting.pop()
            bound = {up for each in self._naming.get(key, ()) for up in self._roots(each)}
            below = (self._children.get(key, set()) | bound) - found
            found |= below
            waiting += below
        return found

    def _publish(self, key: Key, commit: Commit | None) -> None:
        made, old, row = self._types[key[0]], self._states.get(key), self._counted.get(key)
        new = (
            None
            if row is None
            else (made.entity(row, self._below), ancestors(made, key[1], self._counted, self._parents))
        )
        if new is not None and made.refuses(new[0]) and token(old) != token(new):
            self._refused.add(key)
            return
        self._refused.discard(key)
        if token(old) == token(new):
            return
        if new is None:
            assert old is not None, "what is equal was passed over"
            del self._states[key]
        else:
            self._states[key] = new
        read = commit is None or commit.hidden  # from a table, and not from the log
        kind = "deleted" if new is None else "snapshot" if read else "created" if old is None else "updated"
        entity, above = new or (None, (old or ({}, {}))[1])
        events = self.events.setdefault(key, [])
        self.count += 1
        event = ExpectedEvent(key, len(events) + 1, kind, None, entity, above)
        if commit is not None and commit.hidden:
            event = event._replace(asked=True)
        elif commit is not None:
            event = event._replace(lsn=commit.lsn, moment_us=commit.moment_us, context=commit.context)
        events.append(event)


def _other(made: Type, row: Row) -> Key | None:
    if made.other is None or (id_text := made.other_id(row)) is None:
        return None
    return made.other.name, id_text


def token(value: object) -> bytes:
    """JSON that is equal where values are."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
