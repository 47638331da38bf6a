"""
Transactions that are too large for memory: staged in the control database, then folded key by key.

Nothing of such a transaction goes out before its END was checked. Until its last key is folded, the position
stands before its BEGIN, so that a crash reads it again; folding the same changes twice gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import orjson
import psycopg

from rowcast.failpoint import failpoint
from rowcast.identity import tenant_of
from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.change import Columns, Message, Operation, RowChange
from stream_app.core.column import holds_placeholder, is_unavailable
from stream_app.core.embedding import EmbeddedMapping
from stream_app.core.holding import completed
from stream_app.core.mapping import AggregateMapping, SourceMapping
from stream_app.core.sequencing import key_of
from stream_app.core.state import Emptied, Key
from stream_app.core.statement import RefusedStatement
from stream_app.stated import StatedEvents
from stream_app.statements import OF_TENANT, WHOLE_TABLES

_COPY = "COPY rowcast.staged_change (source, ord, aggregate, id_text, operation, columns) FROM STDIN"
# What is behind a key comes in the order of the index, and no more of it is looked at than is taken.
_NEXT = """
SELECT s.id_text, s.ord, s.operation, coalesce(m.columns, s.columns) FROM (
    SELECT id_text, ord, operation, columns FROM rowcast.staged_change
    WHERE source = %(source)s AND aggregate = %(aggregate)s AND operation <> 't' AND id_text > %(last)s
    ORDER BY id_text, ord LIMIT %(limit)s
) s LEFT JOIN rowcast.moved_row m ON m.source = %(source)s AND m.ord = s.ord AND m.lsn = %(lsn)s
ORDER BY s.id_text, s.ord
"""
_COPY_MOVED = "COPY rowcast.moved_row (source, lsn, ord, aggregate, former, columns) FROM STDIN"
_MOVED = """
SELECT ord, columns, former FROM rowcast.moved_row
WHERE source = %s AND lsn = 0 AND aggregate = %s AND ord > %s ORDER BY ord LIMIT %s
"""
_FORGET_MOVED = "DELETE FROM rowcast.moved_row WHERE source = %s AND (lsn = 0 OR %s)"
_HISTORY = """
SELECT s.id_text, s.ord, s.operation, coalesce(m.columns, s.columns) FROM rowcast.staged_change s
LEFT JOIN rowcast.moved_row m ON m.source = s.source AND m.ord = s.ord AND m.lsn = %s
WHERE s.source = %s AND s.aggregate = %s AND s.id_text = ANY (%s) AND s.operation <> 't' ORDER BY s.ord
"""
_ROWS = """
SELECT row_key, columns FROM rowcast.row_state WHERE source = %s AND table_name = %s AND row_key = ANY (%s)
"""
_MOVED_AT_ONCE = 500
# Id, place in the transaction, operation and columns.
_Row = tuple[str, int, str, str]
_order = itemgetter(1)
_OPERATIONS = {each.value: each for each in Operation}
# Named tuples by this are made in half the time that they take to make themselves.
_new = tuple.__new__


class StagedLines(NamedTuple):
    """A part of a transaction as COPY takes it: its changes, those of them that moved, and its stated events."""

    changes: bytes
    moved: bytes
    statements: bytes


class Batch(NamedTuple):
    """
    All changes of some rows of one table, up to *last*, in the order of the transaction; *keys* are those of the rows.

    Of the aggregates *waiting* something is stated.
    """

    last: Key
    keys: Sequence[Key]
    rows: tuple[RowChange, ...]
    waiting: frozenset[Key]


class Staging:
    """
    The staged changes of one source.

    Over *connection*, in one thread at a time; *hold* keeps other claims out of its transactions.
    """

    def __init__(self, connection: psycopg.Connection, mapping: SourceMapping, hold: Callable[[], None]) -> None:
        self._connection = connection
        self._hold = hold
        self._mapping = mapping
        self._source = mapping.definition.source
        self._stated = StatedEvents(connection, mapping)
        self._lsn = 0
        self._truncates = False
        self._deleted: tuple[int, Key] | None = None
        self._moved: list[tuple[int, Key, Columns]] = []

    def clear(self, *, done: bool = False) -> None:
        """Forget what is staged: the change log has it. With *done* also what was found out about changed keys."""
        with self._connection.transaction():
            self._hold()
            # There is no limit to what is staged, nor to how long this takes.
            self._connection.execute(WHOLE_TABLES.encode())
            self._connection.execute("DELETE FROM rowcast.staged_change WHERE source = %s", (self._source,))
            self._connection.execute(_FORGET_MOVED, (self._source, done))
            self._stated.clear_staged()
        self._truncates = False

    def lines(self, changes: Iterable[tuple[int, RowChange]], statements: Sequence[Message] = ()) -> StagedLines:
        """
        What `stage` takes of *changes* (order, change) and stated events of the open transaction.

        Raises:
            TableDefectError: a table is not as it was applied; they may be asked for again, without its types.

        """
        self._moved.clear()  # of a call that failed
        rows = b"".join(self._lines(changes))
        return StagedLines(rows, b"".join(self._moved_lines()), self._stated.lines(statements))

    def stage(self, lines: StagedLines) -> None:
        """Keep what stands in *lines*."""
        with self._connection.transaction():
            # A zombie must not mix its rows with those of the next owner.
            self._hold()
            copy_lines(self._connection, _COPY, [lines.changes])
            if lines.moved:
                copy_lines(self._connection, _COPY_MOVED, [lines.moved])
            if lines.statements:
                self._stated.stage(lines.statements)
            failpoint("sequencer.in_staging")

    def _lines(self, changes: Iterable[tuple[int, RowChange]]) -> Iterator[bytes]:
        source = copy_text(self._source)
        types = {each.name: copy_text(each.name) for each in self._mapping.of_aggregates}
        names = {each.table: each.name for each in self._mapping.of_aggregates}
        for order, row in changes:
            if row.operation is Operation.TRUNCATE:
                key, columns = Key(names[row.table], row.tenant or ""), NULL
                self._truncates = True
            else:
                key = key_of(self._mapping, row)
                image = row.before if row.operation is Operation.DELETE else row.after
                kept = self._mapping.rows_of(key.aggregate).keep(image or {})
                self._note_moved(order, key, row, kept)
                columns = copy_text(orjson.dumps(kept))
            fields = (types[key.aggregate], key.id_text.encode(), row.operation.value.encode(), columns)
            yield b"%b\t%d\t%b\t%b\t%b\t%b\n" % (source, order, *fields)

    def apply_truncates(self) -> list[Emptied]:
        """Drop what a TRUNCATE of the same transaction undid; returns what was truncated."""
        if not self._truncates:
            return []
        with self._connection.transaction():
            self._hold()
            self._connection.execute(WHOLE_TABLES.encode())
            rows = self._connection.execute(
                "SELECT aggregate, nullif(id_text, ''), max(ord) FROM rowcast.staged_change"
                " WHERE source = %s AND operation = 't' GROUP BY 1, 2",
                (self._source,),
            ).fetchall()
            for aggregate, tenant, last in rows:
                self._connection.execute(
                    "DELETE FROM rowcast.staged_change WHERE source = %(source)s AND aggregate = %(aggregate)s"
                    f" AND ord < %(last)s AND operation <> 't' AND {OF_TENANT.format('id_text')}".encode(),
                    {"source": self._source, "aggregate": aggregate, "last": last, "tenant": tenant},
                )
        return [Emptied(aggregate, tenant) for aggregate, tenant, _ in rows]

    def _note_moved(self, order: int, key: Key, row: RowChange, columns: Columns) -> None:
        """A changed primary key is a delete directly followed by an insert, which alone may lack values."""
        if row.operation is Operation.DELETE:
            self._deleted = order, key
        elif row.operation is Operation.CREATE and self._deleted is not None:
            place, former = self._deleted
            if (place, former.aggregate) == (order - 1, key.aggregate) and any(map(is_unavailable, columns.values())):
                self._moved.append((order, former, columns))

    def _moved_lines(self) -> Iterator[bytes]:
        source = copy_text(self._source)
        for order, former, columns in self._moved:
            fields = (copy_text(former.aggregate), former.id_text.encode(), copy_text(orjson.dumps(columns)))
            yield b"%b\t0\t%d\t%b\t%b\t%b\n" % (source, order, *fields)

    def complete_moved(self, lsn: int, truncated: Collection[Emptied]) -> None:
        """
        Complete the rows that got another key with what stands unchanged outside the WAL.

        Before anything of the transaction at *lsn* is folded; what was *truncated* had no rows when it began.
        """
        self._lsn = lsn
        with self._connection.transaction():
            self._hold()
            repeated = "SELECT FROM rowcast.moved_row WHERE source = %s AND lsn = %s LIMIT 1"
            if self._connection.execute(repeated, (self._source, lsn)).fetchone() is None:
                for mapping in self._mapping.of_aggregates:
                    self._complete_type(mapping, truncated)

    def _complete_type(self, mapping: AggregateMapping | EmbeddedMapping, truncated: Collection[Emptied]) -> None:
        place, last = (self._source, mapping.name), 0
        while moved := self._connection.execute(_MOVED, (*place, last, _MOVED_AT_ONCE)).fetchall():
            last = moved[-1][0]
            former = [id_text for _, _, id_text in moved]
            found = self._connection.execute(_ROWS, (self._source, mapping.table, former))
            rows: dict[str, Columns | None] = {
                row_key: orjson.loads(columns)
                for row_key, columns in found
                if Emptied(mapping.name, tenant_of(row_key)) not in truncated
            }
            history: dict[str, list[_Staged]] = {}
            for id_text, *staged in self._connection.execute(_HISTORY, (self._lsn, *place, former)):
                history.setdefault(id_text, []).append(_Staged(*staged))
            whole = _complete(moved, rows, history)
            lines = [
                (self._source, self._lsn, order, mapping.name, id_text, orjson.dumps(whole[order]).decode())
                for order, _, id_text in moved
            ]
            with self._connection.cursor() as cursor:
                cursor.executemany("INSERT INTO rowcast.moved_row VALUES (%s, %s, %s, %s, %s, %s)", lines)

    def misread(self, place: tuple[int, str]) -> tuple[int, list[RefusedStatement]]:
        """How many of the staged statements are refused, and the first few; *place*: LSN and time of their END."""
        return self._stated.misread(place)

    def next(self, mapping: AggregateMapping | EmbeddedMapping, behind: str, limit: int) -> Batch | None:
        """All changes of the next aggregates *behind* one: at most *limit* changes, or all of one aggregate."""
        rows = self._next(mapping.name, behind, limit)
        if not rows:
            return None
        first, last = rows[0][0], rows[-1][0]
        rows.sort(key=_order)
        name, table, waiting = mapping.name, mapping.table, self._stated.waiting(mapping.name, first, last)
        keys = [_new(Key, (name, row[0])) for row in rows]
        return Batch(Key(name, last), keys, tuple([_change(table, row) for row in rows]), waiting)

    def _next(self, aggregate: str, last: str, limit: int) -> list[_Row]:
        """What `next` takes, by key."""
        rows: list[_Row] = self._connection.execute(
            _NEXT,
            {"source": self._source, "aggregate": aggregate, "last": last, "limit": limit, "lsn": self._lsn},
        ).fetchall()
        if len(rows) < limit:
            return rows
        cut = rows[-1][0]
        if whole := [row for row in rows if row[0] != cut]:
            return whole
        return self._connection.execute(_HISTORY, (self._lsn, self._source, aggregate, [cut])).fetchall()


class _Staged(NamedTuple):
    order: int
    operation: str
    columns: str


def _complete(
    moved: Iterable[tuple[int, str, str]],
    rows: Mapping[str, Columns | None],
    history: Mapping[str, Iterable[_Staged]],
) -> dict[int, Columns]:
    """
    The columns of the inserts *moved* (order, columns, former id), by order.

    *rows* are those before the transaction, *history* has its changes, both by former id.
    """
    whole: dict[int, Columns] = {}
    for order, columns, former in moved:
        known = rows.get(former)
        for each in history.get(former, ()):
            if each.order >= order - 1:
                break
            if each.operation == Operation.DELETE:
                known = None
                continue
            known = completed(whole.get(each.order) or orjson.loads(each.columns), known)
        whole[order] = completed(orjson.loads(columns), known)
    return whole


def _change(table: str, row: _Row) -> RowChange:
    _, order, code, columns = row
    document, operation = columns.encode(), _OPERATIONS[code]
    image, whole = orjson.loads(document), not holds_placeholder(document)
    before, after = (image, None) if operation is Operation.DELETE else (None, image)
    return _new(RowChange, (operation, table, before, after, 0, order, 0, 0, False, False, whole, None))
