"""
The state that a batch works on: what the control database holds, with the batch's own changes on top.

The core asks for state by yielding a `Lookup`; the shell answers by filling the `View`. Every later
transaction of the batch sees what the earlier ones did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from rowcast.identity import tenant_of
from stream_app.core.change import Columns


class Key(NamedTuple):
    """An aggregate of the source at hand: its type and id text."""

    aggregate: str
    id_text: str


class Emptied(NamedTuple):
    """Rows that a TRUNCATE took: what row state calls *name*, all of them or those of one *tenant*."""

    name: str
    tenant: str | None = None


# The state that an aggregate's last event carried, as the canonical JSON of its `after` and `ancestors`: equal
# states have equal bytes. It is the beginning of that event's value, and what the control database keeps.
Published = bytes


def publish(after: Mapping[str, Any], ancestors: Mapping[str, Sequence[str] | None]) -> Published:
    """The published state of an entity and its ancestors."""
    return orjson.dumps({"after": after, "ancestors": ancestors}, option=orjson.OPT_SORT_KEYS)


def read_published(published: Published) -> tuple[dict[str, Any], dict[str, list[str] | None]]:
    """The entity and the ancestors of a published state."""
    document = orjson.loads(published)
    return document["after"], document["ancestors"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an aggregate has no event for its current state: *reason*, the raw row, and since when."""

    reason: str
    record: str
    since: str
    lsn: int


class AggregateState(NamedTuple):
    """
    What the control database knows of one aggregate; *present* says that its root row exists.

    *majors* are those in which its latest version went out, the newest first, which is the one that *published* is
    of; None: in all that are live.
    """

    version: int = 0
    parent_id_text: str | None = None
    present: bool = False
    published: Published | None = None
    refusal: Refusal | None = None
    majors: tuple[int, ...] | None = None


ABSENT = AggregateState()


@dataclass(frozen=True, slots=True)
class Lookup:
    """
    State that the core needs next: aggregates with their root rows, and children by (child type, parent id).

    Children that a link table binds are found by the index that *indexes* names, and may hold some that are bound no
    more; see `stream_app.core.link`. *one_each*: of each parent's children one is enough. Otherwise there is a limit to
    all together, and `LargeFanOutError` where it is passed.

    Of types whose rows are tied to their aggregates by a holding: *held* aggregates with all rows that hold them,
    and *rows* by (type, row key).
    """

    aggregates: frozenset[Key]
    children: frozenset[tuple[str, str]] = frozenset()
    held: frozenset[Key] = frozenset()
    rows: frozenset[Key] = frozenset()
    indexes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    one_each: bool = False


@dataclass(slots=True)
class View:
    """
    The state of one batch.

    `dirty` and `dirty_rows` say what has to be written back, `stored` and `stored_rows` what of the loaded
    aggregates and rows was there.

    Of types with a holding, `rows` is by (type, row key), `owners` says which aggregate (id text) each known row
    holds, and `candidates` has for each loaded aggregate the keys of all rows that may hold it. An embedded row is kept
    likewise: it holds the row above. `touched` are the aggregates whose embedded rows changed, `whole` those of which
    the batch has read the root row with all its values. What the control database has of rows in `emptied` does not
    count.
    """

    aggregates: dict[Key, AggregateState] = field(default_factory=dict)
    rows: dict[Key, Columns | None] = field(default_factory=dict)
    children: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    dirty: set[Key] = field(default_factory=set)
    dirty_rows: set[Key] = field(default_factory=set)
    stored: set[Key] = field(default_factory=set)
    stored_rows: set[Key] = field(default_factory=set)
    owners: dict[Key, str | None] = field(default_factory=dict)
    candidates: dict[Key, set[str]] = field(default_factory=dict)
    touched: set[Key] = field(default_factory=set)
    whole: set[Key] = field(default_factory=set)
    emptied: frozenset[Emptied] = frozenset()

    def is_emptied(self, name: str, key_text: str) -> bool:
        """Whether what the control database has of the row or aggregate does not count any more."""
        return bool(self.emptied) and Emptied(name, tenant_of(key_text)) in self.emptied

    def missing(self, keys: Iterable[Key]) -> frozenset[Key]:
        """Those of *keys* that were not loaded yet."""
        aggregates = self.aggregates
        return frozenset([key for key in keys if key not in aggregates])

    def state(self, key: Key) -> AggregateState:
        """The aggregate's state; it has to be loaded."""
        return self.aggregates[key]

    def lay_over(self, newer: View, lookup: Lookup) -> None:
        """Put what *newer* changed over what *lookup* has just loaded, whether that had it already or not."""
        for key in lookup.aggregates & newer.dirty:
            self.aggregates[key] = newer.aggregates[key]
            self.stored.add(key)
        for key in lookup.aggregates & newer.dirty_rows:
            row = self.rows[key] = newer.rows[key]
            (self.stored_rows.discard if row is None else self.stored_rows.add)(key)
        if lookup.held or lookup.rows:
            self._lay_over_held(newer, lookup)
        if not lookup.children:
            return
        joined: dict[tuple[str, str], set[str]] = {}
        for key in newer.dirty:
            parent = newer.aggregates[key].parent_id_text
            if parent is not None:
                joined.setdefault((key.aggregate, parent), set()).add(key.id_text)
        for child, parent in lookup.children:
            known = self.children[child, parent]
            index = lookup.indexes.get((child, parent))
            if index is not None:
                known |= newer.linked(Key(index, parent))
                continue
            # One of many tells nothing of the others, so it stays.
            left = {each for each in known if Key(child, each) in newer.dirty} if not lookup.one_each else set()
            self.children[child, parent] = (known - left) | joined.get((child, parent), set())

    def _lay_over_held(self, newer: View, lookup: Lookup) -> None:
        for key in lookup.held & newer.dirty:
            self.aggregates[key] = newer.aggregates[key]
            self.stored.add(key)
        rows = set(lookup.rows)
        for key in lookup.held:
            self.candidates[key] |= newer.candidates.get(key, set())
            rows.update(Key(key.aggregate, row_key) for row_key in self.candidates[key])
        for row in rows & newer.dirty_rows - self.dirty_rows:
            columns = self.rows[row] = newer.rows[row]
            self.owners[row] = newer.owners[row]
            (self.stored_rows.discard if columns is None else self.stored_rows.add)(row)

    def note_row(self, row: Key, columns: Columns | None, owner: str | None) -> None:
        """The control database has *row* of a type with a holding (None: it does not); what is known stays."""
        if columns is not None and not self.is_emptied(*row):
            self.stored_rows.add(row)
        if row not in self.owners:
            gone = columns is None or self.is_emptied(*row)
            self.rows[row], self.owners[row] = (None, None) if gone else (columns, owner)

    def note_holder(self, key: Key, row_key: str, columns: Columns) -> None:
        """The control database says that the row with this key holds *key*."""
        self.note_row(Key(key.aggregate, row_key), columns, key.id_text)
        self.candidates[key].add(row_key)

    def holders(self, key: Key) -> list[str]:
        """The keys of the rows that hold *key*, of a type with a holding; it has to be loaded."""
        owned = (each for each in self.candidates[key] if self.owners.get(Key(key.aggregate, each)) == key.id_text)
        return sorted(owned)

    def linked(self, key: Key) -> set[str]:
        """Whom the entries of an index that were put here bind with *key*: the index's name and the parent's id."""
        rows = (self.rows[Key(key.aggregate, each)] for each in self.candidates.get(key, ()))
        return {row["child"] for row in rows if row is not None}

    def put_held_row(self, row: Key, columns: Columns | None, owner: str | None) -> None:
        """Set a row of a type with a holding (None: gone) and the aggregate that it holds."""
        self.rows[row], self.owners[row] = columns, owner
        self.dirty_rows.add(row)
        if owner is not None:
            self.candidates.setdefault(Key(row.aggregate, owner), set()).add(row.id_text)

    def put_row(self, key: Key, columns: Columns | None, parent_id_text: str | None) -> None:
        """Set the root row of *key* (None: gone), and keep the children of its parents right."""
        self.rows[key] = columns
        self.dirty_rows.add(key)
        self.place(key, parent_id_text, present=columns is not None)

    def place(self, key: Key, parent_id_text: str | None, *, present: bool) -> None:
        """Set whether *key* is present and under which parent, and keep the children of its parents right."""
        self.dirty.add(key)
        version, former_parent, was_present, published, refusal, majors = self.aggregates[key]
        if former_parent != parent_id_text:
            if former_parent is not None:
                self.children.get((key.aggregate, former_parent), set()).discard(key.id_text)
            if parent_id_text is not None:
                # Only complete sets are kept: one that was not asked for stays unknown.
                known = self.children.get((key.aggregate, parent_id_text))
                if known is not None:
                    known.add(key.id_text)
        elif was_present is present:
            return
        state = (version, parent_id_text, present, published, refusal, majors)
        self.aggregates[key] = tuple.__new__(AggregateState, state)

    def put(self, key: Key, state: AggregateState) -> None:
        """Set the state of *key*."""
        self.aggregates[key] = state
        self.dirty.add(key)
