"""
Transactions that are too large for memory: staged in the control database, then folded key by key.

Nothing of such a transaction goes out before its END was checked. Until its last key is folded, the position
stands before its BEGIN, so that a crash reads it again; folding the same changes twice gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import orjson
import psycopg

from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.change import Operation, RowChange
from stream_app.core.mapping import SourceMapping
from stream_app.core.sequencing import key_of
from stream_app.core.state import Key

_COPY = "COPY rowcast.staged_change (source, ord, aggregate, id_text, operation, columns) FROM STDIN"
_NEXT_KEYS = """
SELECT DISTINCT aggregate, id_text FROM rowcast.staged_change
WHERE source = %s AND operation <> 't' AND (aggregate, id_text) > (%s, %s)
ORDER BY aggregate, id_text LIMIT %s
"""
_CHANGES = """
SELECT s.aggregate, s.id_text, s.operation, s.columns
FROM unnest(%s::text[], %s::text[]) AS w(aggregate, id_text)
JOIN rowcast.staged_change s ON s.source = %s AND s.aggregate = w.aggregate AND s.id_text = w.id_text
ORDER BY s.ord
"""


class Staging:
    """
    The staged changes of one source.

    *connection* writes, *reading* reads: what was folded of them may be committed meanwhile.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        reading: psycopg.Connection,
        mapping: SourceMapping,
        hold: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._hold = hold
        self._mapping = mapping
        self._source = mapping.definition.source

    def clear(self) -> None:
        """Forget everything: the change log has it."""
        with self._connection.transaction():
            self._hold()
            self._connection.execute("DELETE FROM rowcast.staged_change WHERE source = %s", (self._source,))

    def stage(self, changes: Iterable[tuple[int, RowChange]]) -> None:
        """Keep *changes* (order, change) of the open transaction."""
        with self._connection.transaction():
            # A zombie must not mix its rows with those of the next owner.
            self._hold()
            copy_lines(self._connection, _COPY, self._lines(changes))

    def _lines(self, changes: Iterable[tuple[int, RowChange]]) -> Iterator[bytes]:
        source = copy_text(self._source)
        types = {each.name: copy_text(each.name) for each in self._mapping.by_rank}
        for order, row in changes:
            if row.operation is Operation.TRUNCATE:
                key, columns = Key(self._mapping.by_table[row.table].name, ""), NULL
            else:
                key = key_of(self._mapping, row)
                image = row.before if row.operation is Operation.DELETE else row.after
                columns = copy_text(orjson.dumps(self._mapping.by_type[key.aggregate].keep(image or {})))
            fields = (types[key.aggregate], key.id_text.encode(), row.operation.value.encode(), columns)
            yield b"%b\t%d\t%b\t%b\t%b\t%b\n" % (source, order, *fields)

    def apply_truncates(self) -> list[str]:
        """Drop what a TRUNCATE of the same transaction undid; returns the truncated aggregate types."""
        with self._connection.transaction():
            self._hold()
            rows = self._connection.execute(
                "SELECT aggregate, max(ord) FROM rowcast.staged_change WHERE source = %s AND operation = 't'"
                " GROUP BY aggregate",
                (self._source,),
            ).fetchall()
            for aggregate, last in rows:
                self._connection.execute(
                    "DELETE FROM rowcast.staged_change WHERE source = %s AND aggregate = %s AND ord < %s",
                    (self._source, aggregate, last),
                )
        return [aggregate for aggregate, _ in rows]

    def batches(self, limit: int) -> Iterator[tuple[list[Key], tuple[RowChange, ...]]]:
        """The staged keys in order, at most *limit* at a time, each with all its changes in order."""
        last = ("", "")
        while True:
            rows = self._reading.execute(_NEXT_KEYS, (self._source, *last, limit)).fetchall()
            if not rows:
                return
            keys = [Key(*row) for row in rows]
            last = keys[-1]
            yield keys, self._changes(keys)

    def _changes(self, keys: list[Key]) -> tuple[RowChange, ...]:
        parameters = ([key.aggregate for key in keys], [key.id_text for key in keys], self._source)
        changes = []
        for aggregate, _, operation, columns in self._reading.execute(_CHANGES, parameters):
            image = orjson.loads(columns)
            gone = operation == Operation.DELETE
            table = self._mapping.by_type[aggregate].definition.table
            changes.append(
                RowChange(Operation(operation), table, image if gone else None, None if gone else image, 0, 0, 0, 0)
            )
        return tuple(changes)
