"""
Transactions that are too large for memory: staged in the control database, then folded key by key.

Nothing of such a transaction goes out before its END was checked. Until its last key is folded, the position
stands before its BEGIN, so that a crash reads it again; folding the same changes twice gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import orjson
import psycopg

from rowcast.failpoint import failpoint
from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.change import Operation, RowChange
from stream_app.core.column import holds_placeholder
from stream_app.core.mapping import SourceMapping
from stream_app.core.sequencing import key_of
from stream_app.core.state import Key

_COPY = "COPY rowcast.staged_change (source, ord, aggregate, id_text, operation, columns) FROM STDIN"
_NEXT_KEYS = """
SELECT DISTINCT id_text FROM rowcast.staged_change
WHERE source = %s AND aggregate = %s AND operation <> 't' AND id_text > %s
ORDER BY id_text LIMIT %s
"""
_CHANGES = """
SELECT ord, operation, columns FROM rowcast.staged_change
WHERE source = %s AND aggregate = %s AND id_text BETWEEN %s AND %s AND operation <> 't' ORDER BY ord
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
            failpoint("sequencer.in_staging")

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

    def batches(self, limit: int) -> Iterator[tuple[Key, tuple[RowChange, ...]]]:
        """
        All changes of at most *limit* aggregates at a time, in the order of the transaction, with the last key.

        Parents' types come first, then the order is that of the ids.
        """
        for mapping in self._mapping.by_rank:
            last = ""
            while True:
                place = self._source, mapping.name
                ids = [row[0] for row in self._reading.execute(_NEXT_KEYS, (*place, last, limit))]
                if not ids:
                    break
                last = ids[-1]
                rows = self._reading.execute(_CHANGES, (*place, ids[0], last))
                yield Key(mapping.name, last), tuple([_change(mapping.definition.table, *row) for row in rows])


def _change(table: str, order: int, code: str, columns: str) -> RowChange:
    operation, image = Operation(code), orjson.loads(columns)
    before, after = (image, None) if operation is Operation.DELETE else (None, image)
    whole = not holds_placeholder(columns.encode())
    return RowChange(operation, table, before, after, 0, order, 0, 0, whole=whole)
