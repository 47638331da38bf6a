"""The state of one source as its owner reads it from the control database, for the core and beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import psycopg

from stream_app import statements
from stream_app.core.loading import DESCENDANTS_MAX, LargeFanOutError
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import ABSENT, AggregateState, Key, Lookup, Refusal, View


class StateReader:
    """
    Reads rows and aggregates through a connection of its own; what is committed meanwhile may be missing.

    While `vacant`, nothing is there of what is asked for, so that nobody has to look.
    """

    vacant = False

    def __init__(self, connection: psycopg.Connection, mapping: SourceMapping) -> None:
        self._connection = connection
        self._mapping = mapping
        self._source = mapping.definition.source

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def load(self, lookup: Lookup, view: View) -> None:
        """Put what *lookup* asks for into *view*."""
        if lookup.aggregates:
            self._load_aggregates(lookup.aggregates, view)
        if lookup.children:
            self._load_children(lookup, view)
        if lookup.held:
            self._load_held(lookup.held, view)
        if lookup.rows:
            self._load_owners(lookup.rows, view)

    def _load_aggregates(self, keys: Iterable[Key], view: View) -> None:
        by_type: dict[str, list[str]] = {}
        for key in keys:
            view.aggregates[key] = ABSENT
            view.rows[key] = None
            by_type.setdefault(key.aggregate, []).append(key.id_text)
        if self.vacant:
            return
        with self._connection.pipeline():
            found = [(each, *self._ask_for(each, "\n".join(ids))) for each, ids in by_type.items()]
        for aggregate, states, rows in found:
            self._take_states(aggregate, states, view)
            for row_key, columns in rows:
                key = Key(aggregate, row_key)
                view.rows[key] = orjson.loads(columns)
                view.stored_rows.add(key)

    def _load_held(self, keys: Iterable[Key], view: View) -> None:
        by_type: dict[str, list[str]] = {}
        for key in keys:
            if key.aggregate in self._mapping.held:
                view.aggregates[key] = ABSENT
            view.candidates.setdefault(key, set())
            by_type.setdefault(key.aggregate, []).append(key.id_text)
        for aggregate, ids in by_type.items():
            wanted, table = "\n".join(ids), self._mapping.tables[aggregate]
            if aggregate in self._mapping.held:
                self._load_states(aggregate, wanted, view)
            for id_text, row_key, columns in self._connection.execute(
                statements.LOAD_HELD, (wanted, self._source, table)
            ):
                view.note_holder(Key(aggregate, id_text), row_key, orjson.loads(columns))

    def _load_owners(self, rows: Iterable[Key], view: View) -> None:
        by_type: dict[str, list[str]] = {}
        for row in rows:
            by_type.setdefault(row.aggregate, []).append(row.id_text)
        for aggregate, keys in by_type.items():
            parameters = ("\n".join(keys), self._source, self._mapping.tables[aggregate])
            for row_key, columns, owner in self._connection.execute(statements.LOAD_OWNERS, parameters):
                view.note_row(Key(aggregate, row_key), orjson.loads(columns), owner)
        for row in rows:
            view.note_row(row, None, None)  # those that are not there

    def _load_children(self, lookup: Lookup, view: View) -> None:
        by_type: dict[tuple[str, str | None], list[str]] = {}
        for each in lookup.children:
            view.children[each] = set()
            by_type.setdefault((each[0], lookup.indexes.get(each)), []).append(each[1])
        for (child, index), parents in by_type.items():
            statement = statements.CHILDREN if index is None else statements.LINKED_CHILDREN
            of = child if index is None else self._mapping.tables[index]
            # One more than can be used shows that there are too many, without getting all of them.
            limits = (1, None) if lookup.one_each else (DESCENDANTS_MAX + 1, DESCENDANTS_MAX + 1)
            rows = self._connection.execute(statement, ("\n".join(parents), self._source, of, *limits)).fetchall()
            if len(rows) > DESCENDANTS_MAX and not lookup.one_each:
                raise LargeFanOutError
            for parent, id_text in rows:
                view.children[child, parent].add(id_text)

    def is_empty(self) -> bool:
        """Whether there is no state at all, and what is asked for is found by its own key alone."""
        mapping = self._mapping
        if mapping.held or mapping.embedded or mapping.references:
            return False
        query = (
            "SELECT NOT EXISTS (SELECT FROM rowcast.aggregate WHERE source = %(source)s)"
            " AND NOT EXISTS (SELECT FROM rowcast.row_state WHERE source = %(source)s)"
        )
        return self._connection.execute(query, {"source": self._source}).fetchone() == (True,)

    def load_references(self) -> None:
        """Fill the reference tables of the mapping with the committed rows."""
        for table in self._mapping.references.values():
            rows = self._connection.execute(
                "SELECT row_key, columns FROM rowcast.row_state WHERE source = %s AND table_name = %s",
                (self._source, table.definition.table),
            )
            table.rows.clear()
            table.rows.update((row_key, orjson.loads(columns)) for row_key, columns in rows)

    def _load_states(self, aggregate: str, wanted: str, view: View) -> None:
        found = self._connection.execute(statements.LOAD_AGGREGATES, (wanted, self._source, aggregate))
        self._take_states(aggregate, found, view)

    def _take_states(self, aggregate: str, found: Iterable[Any], view: View) -> None:
        for row in found:
            key = Key(aggregate, row[0])
            view.aggregates[key] = _state(row)
            view.stored.add(key)

    def _ask_for(self, aggregate: str, wanted: str) -> tuple[psycopg.Cursor[Any], psycopg.Cursor[Any]]:
        states = self._connection.execute(statements.LOAD_AGGREGATES, (wanted, self._source, aggregate))
        table = self._mapping.tables[aggregate]
        return states, self._connection.execute(statements.LOAD_ROWS, (wanted, self._source, table))


def _state(row: Sequence[Any]) -> AggregateState:
    _id_text, version, parent, present, published, reason, record, since, lsn, owed = row
    refusal = None if reason is None else Refusal(reason, record, _instant(since), int(lsn))
    majors = None if owed is None else tuple(map(int, owed.split(",")))
    return AggregateState(version, parent, present, None if published is None else published.encode(), refusal, majors)


def _instant(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
