"""
The rows and aggregates that a batch has changed, written to the control database in the transaction of its owner.

Many go by COPY, which takes a fraction of the time of array parameters. Few go as arrays: each COPY waits for the
server twice, and a small batch is nothing but such waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson
import psycopg

from stream_app import statements
from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import AggregateState, Key, Refusal, View

_FEW = 100
_NOT_REFUSED = b"\t".join([NULL] * 4)


def is_few(view: View) -> bool:
    """Whether no COPY is needed for what *view* changes, so that it may be written in a pipeline."""
    return len(view.dirty) <= _FEW and len(view.dirty_rows) <= _FEW


class StateWriter:
    """Writes over *connection*, in the transaction that is open there."""

    def __init__(self, connection: psycopg.Connection, mapping: SourceMapping) -> None:
        self._connection, self._mapping = connection, mapping
        self._source = mapping.definition.source
        self._first = copy_text(self._source) + b"\t"

    def prepare(self) -> None:
        """Make ready; once a connection."""
        self._connection.execute(statements.CHANGED)

    def write(self, view: View, generation: int) -> None:
        """Write what *view* has changed; its rows are marked with *generation*."""
        kept = [key for key in view.dirty_rows if view.rows[key] is not None]
        gone = [key for key in view.dirty_rows if view.rows[key] is None and key in view.stored_rows]
        new_rows = [key for key in kept if key not in view.stored_rows]
        known_rows = [key for key in kept if key in view.stored_rows]
        new = [key for key in view.dirty if key not in view.stored]
        known = [key for key in view.dirty if key in view.stored]
        if is_few(view):
            self._put_rows(statements.INSERT_FEW_ROWS, new_rows, view, generation)
            self._put_rows(statements.UPDATE_FEW_ROWS, known_rows, view, generation)
            self._put_aggregates(statements.INSERT_FEW_AGGREGATES, new, view)
            self._put_aggregates(statements.UPDATE_FEW_AGGREGATES, known, view)
        else:
            self._copy_rows((new_rows, known_rows), view, generation)
            self._copy_aggregates((new, known), view)
        if gone:
            tables = [self._mapping.tables[key.aggregate] for key in gone]
            parameters = tables, [key.id_text for key in gone], self._source
            self._connection.execute(statements.DELETE_ROWS, parameters)

    def _put_rows(self, statement: str, keys: Sequence[Key], view: View, generation: int) -> None:
        if not keys:
            return
        tables = self._mapping.tables
        columns = (
            [tables[key.aggregate] for key in keys],
            [key.id_text for key in keys],
            [orjson.dumps(view.rows[key]).decode() for key in keys],
            [generation] * len(keys),
            [view.owners.get(key) for key in keys],
        )
        self._connection.execute(statement.encode(), (self._source, *columns))

    def _put_aggregates(self, statement: str, keys: Sequence[Key], view: View) -> None:
        if not keys:
            return
        states = [view.aggregates[key] for key in keys]
        refusals = [each.refusal for each in states]
        columns = (
            [key.aggregate for key in keys],
            [key.id_text for key in keys],
            [each.version for each in states],
            [each.parent_id_text for each in states],
            [each.present for each in states],
            [None if each.published is None else each.published.decode() for each in states],
            [None if each is None else each.reason for each in refusals],
            [None if each is None else each.record for each in refusals],
            [None if each is None else each.since for each in refusals],
            [None if each is None else each.lsn for each in refusals],
            [_majors(each) for each in states],
        )
        self._connection.execute(statement.encode(), (self._source, *columns))

    def _copy_rows(self, keys: tuple[Sequence[Key], Sequence[Key]], view: View, generation: int) -> None:
        new, known = keys
        if new:
            lines = self._row_lines(new, view, generation, self._first)
            copy_lines(self._connection, statements.COPY_ROWS, lines)
        if known:
            lines = self._row_lines(known, view, generation, b"")
            copy_lines(self._connection, statements.COPY_CHANGED_ROWS, lines)
            self._connection.execute(statements.UPDATE_ROWS.encode(), (self._source,))

    def _row_lines(self, keys: Iterable[Key], view: View, generation: int, first: bytes) -> Iterator[bytes]:
        number = b"%d" % generation
        tables = {name: first + copy_text(table) for name, table in self._mapping.tables.items()}
        owners = view.owners
        for key in keys:
            columns = copy_text(orjson.dumps(view.rows[key]))
            owner = owners.get(key) if owners else None
            holds = NULL if owner is None else owner.encode()
            yield b"%b\t%b\t%b\t%b\t%b\n" % (tables[key.aggregate], key.id_text.encode(), columns, number, holds)

    def _copy_aggregates(self, keys: tuple[Sequence[Key], Sequence[Key]], view: View) -> None:
        new, known = keys
        if new:
            lines = self._aggregate_lines(new, view, self._first)
            copy_lines(self._connection, statements.COPY_AGGREGATES, lines)
        if known:
            lines = self._aggregate_lines(known, view, b"")
            copy_lines(self._connection, statements.COPY_CHANGED_AGGREGATES, lines)
            self._connection.execute(statements.UPDATE_AGGREGATES.encode(), (self._source,))

    def _aggregate_lines(self, keys: Iterable[Key], view: View, first: bytes) -> Iterator[bytes]:
        types = {each.name: first + copy_text(each.name) for each in self._mapping.by_rank}
        for key in keys:
            state = view.aggregates[key]
            majors = _majors(state)
            yield b"%b\t%b\t%d\t%b\t%b\t%b\t%b\t%b\n" % (
                types[key.aggregate],
                key.id_text.encode(),
                state.version,
                NULL if state.parent_id_text is None else state.parent_id_text.encode(),
                b"t" if state.present else b"f",
                NULL if state.published is None else copy_text(state.published),
                _NOT_REFUSED if state.refusal is None else _refusal_fields(state.refusal),
                NULL if majors is None else majors.encode(),
            )


def _majors(state: AggregateState) -> str | None:
    return None if state.majors is None else ",".join(map(str, state.majors))


def _refusal_fields(refusal: Refusal) -> bytes:
    fields = (refusal.reason, refusal.record, refusal.since)
    return b"\t".join([*(copy_text(each) for each in fields), b"%d" % refusal.lsn])
