"""
Stated events that wait in the control database: while their transaction is staged, and for their chunk.

And those that were refused, which stay until an operator dismisses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg

from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.change import Message
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import Key
from stream_app.core.statement import (
    RefusedStatement,
    Statement,
    StatementError,
    read_statement,
    refuse_message,
)

# So many at a time go into memory, but never a part of those about one aggregate.
STATEMENTS_MAX = 5_000
_COPY = (
    "COPY rowcast.statement (source, ord, rank, aggregate, id_text, event, data, former, staged, reason, record)"
    " FROM STDIN"
)
_PLACE = """
UPDATE rowcast.statement t SET staged = false, former = t.ord < coalesce((
    SELECT min(s.ord) FROM rowcast.staged_change s
     WHERE s.source = t.source AND s.aggregate = t.aggregate AND s.id_text = t.id_text AND s.operation <> 't'), 0)
 WHERE t.source = %(source)s AND t.staged AND t.reason IS NULL AND t.aggregate <> ALL (%(held)s)
"""
# The rows of such an aggregate are those that hold it now.
_PLACE_HELD = """
UPDATE rowcast.statement t SET staged = false, former = t.ord < coalesce((
    SELECT min(s.ord) FROM rowcast.row_state r JOIN rowcast.staged_change s
        ON s.source = r.source AND s.aggregate = %(aggregate)s AND s.id_text = r.row_key AND s.operation <> 't'
     WHERE r.source = t.source AND r.table_name = %(table)s AND r.owner = t.id_text), 0)
 WHERE t.source = %(source)s AND t.staged AND t.reason IS NULL AND t.aggregate = %(aggregate)s
"""
_REFUSE_STAGED = """
WITH refused AS (DELETE FROM rowcast.statement WHERE source = %(source)s AND staged AND reason IS NOT NULL RETURNING *)
INSERT INTO rowcast.refused_statement (source, lsn, ord, aggregate, id_text, event, reason, record, since)
SELECT source, %(lsn)s, ord, aggregate, id_text, event, reason, record, %(since)s FROM refused ON CONFLICT DO NOTHING
"""
_REFUSE = """
INSERT INTO rowcast.refused_statement (source, lsn, ord, aggregate, id_text, event, reason, record, since)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_RENUMBER = """
UPDATE rowcast.statement t SET rank = w.rank FROM unnest(%(names)s::text[], %(ranks)s::integer[]) AS w(aggregate, rank)
WHERE t.source = %(source)s AND NOT t.staged AND t.aggregate = w.aggregate
"""
_REFUSE_GONE = """
WITH gone AS (DELETE FROM rowcast.statement WHERE source = %(source)s AND NOT staged AND aggregate <> ALL (%(names)s)
              RETURNING *)
INSERT INTO rowcast.refused_statement (source, lsn, ord, aggregate, id_text, event, reason, record, since)
SELECT source, %(lsn)s, ord, aggregate, id_text, event, 'its type is declared no more', data, %(since)s FROM gone
ON CONFLICT DO NOTHING
"""
_MISREAD = """
SELECT aggregate, id_text, event, reason, record, ord, count(*) OVER () FROM rowcast.statement
WHERE source = %s AND staged AND reason IS NOT NULL ORDER BY ord LIMIT 3
"""
_COUNTS = """
SELECT w.place, (SELECT count(*) FROM rowcast.statement t
                 WHERE t.source = %s AND t.rank = w.rank AND t.id_text = w.id_text AND NOT t.staged)
FROM unnest(%s::integer[], %s::text[]) WITH ORDINALITY AS w(rank, id_text, place) ORDER BY w.place
"""
_OF = """
SELECT t.rank, t.id_text, t.ord, t.event, t.data, t.former
FROM unnest(%s::integer[], %s::text[]) AS w(rank, id_text) JOIN rowcast.statement t
  ON t.source = %s AND t.rank = w.rank AND t.id_text = w.id_text AND NOT t.staged ORDER BY t.ord
"""


class StatedEvents:
    """The waiting statements of one source, through one connection."""

    def __init__(self, connection: psycopg.Connection, mapping: SourceMapping) -> None:
        self._connection = connection
        self._mapping = mapping
        self._source = mapping.definition.source

    def clear_staged(self) -> None:
        """Forget what is staged: the change log has it."""
        self._connection.execute("DELETE FROM rowcast.statement WHERE source = %s AND staged", (self._source,))

    def lines(self, messages: Iterable[Message]) -> bytes:
        """What `stage` takes of *messages* of the open transaction: statements, or refused."""
        return b"".join([self._staged_line(each) for each in messages])

    def stage(self, lines: bytes) -> None:
        """Keep what stands in *lines*."""
        copy_lines(self._connection, _COPY, [lines])

    def _staged_line(self, message: Message) -> bytes:
        try:
            statement = read_statement(self._mapping, message)
        except StatementError as error:
            refused = refuse_message(message, error, (0, ""))
            told = (refused.aggregate, refused.id_text, refused.event)
            return self._line(
                refused.order, -1, told, NULL, (b"f", b"t", *map(copy_text, (refused.reason, refused.record)))
            )
        return self._statement_line(statement, staged=b"t")

    def _statement_line(self, statement: Statement, *, staged: bytes) -> bytes:
        key = statement.key
        told, rank = (*key, statement.event), self._mapping.by_type[key.aggregate].rank
        former = b"t" if statement.former else b"f"
        return self._line(statement.order, rank, told, copy_text(statement.data), (former, staged, NULL, NULL))

    def _line(self, order: int, rank: int, told: Sequence[str], data: bytes, rest: Sequence[bytes]) -> bytes:
        fields = (copy_text(self._source), b"%d" % order, b"%d" % rank, *map(copy_text, told), data, *rest)
        return b"\t".join(fields) + b"\n"

    def misread(self, place: tuple[int, str]) -> tuple[int, list[RefusedStatement]]:
        """How many of the staged ones are refused, and the first few of them; *place* is their transaction's."""
        rows = self._connection.execute(_MISREAD, (self._source,)).fetchall()
        first = [
            RefusedStatement(place[0], order, aggregate, id_text, event, reason, record, place[1])
            for aggregate, id_text, event, reason, record, order, _count in rows
        ]
        return (rows[0][6] if rows else 0), first

    def waiting(self, aggregate: str, first: str, last: str) -> frozenset[Key]:
        """The aggregates of a type, from id to id, of which something is staged."""
        if aggregate not in self._mapping.by_type:
            return frozenset()  # embedded rows have no events of their own
        rows = self._connection.execute(
            "SELECT DISTINCT id_text FROM rowcast.statement"
            " WHERE source = %s AND rank = %s AND id_text BETWEEN %s AND %s AND staged",
            (self._source, self._mapping.by_type[aggregate].rank, first, last),
        )
        return frozenset(Key(aggregate, id_text) for (id_text,) in rows)

    def place_staged(self, place: tuple[int, str]) -> None:
        """The transaction at *place* (LSN, time) is folded: its staged statements wait for their chunks."""
        refused = {"source": self._source, "lsn": place[0], "since": place[1]}
        self._connection.execute(_REFUSE_STAGED, refused)
        self._connection.execute(_PLACE, {"source": self._source, "held": list(self._mapping.held)})
        for name in self._mapping.held:
            held = {"source": self._source, "aggregate": name, "table": self._mapping.tables[name]}
            self._connection.execute(_PLACE_HELD, held)

    def wait(self, statements: Sequence[Statement]) -> None:
        """Keep *statements* for their chunks."""
        copy_lines(self._connection, _COPY, (self._statement_line(each, staged=b"f") for each in statements))

    def make_pending(self) -> None:
        """Whatever something waits to be said of waits for its event."""
        self._connection.execute(
            "INSERT INTO rowcast.pending (source, rank, id_text) SELECT DISTINCT source, rank, id_text"
            " FROM rowcast.statement WHERE source = %s AND NOT staged ON CONFLICT DO NOTHING",
            (self._source,),
        )

    def renumber(self, place: tuple[int, str]) -> None:
        """Call types by their present numbers; what waits for a type that went is refused at *place* (LSN, time)."""
        names, ranks = list(self._mapping.by_type), [each.rank for each in self._mapping.by_type.values()]
        wanted = {"source": self._source, "names": names, "ranks": ranks, "lsn": place[0], "since": place[1]}
        self._connection.execute(_RENUMBER, wanted)
        self._connection.execute(_REFUSE_GONE, wanted)

    def refuse(self, refused: Iterable[RefusedStatement]) -> None:
        """Keep *refused* for operators; a repetition is known."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_REFUSE, [(self._source, *each) for each in refused])

    def any(self) -> bool:
        """Whether something waits to be said."""
        query = "SELECT 1 FROM rowcast.statement WHERE source = %s AND NOT staged LIMIT 1"
        return self._connection.execute(query, (self._source,)).fetchone() is not None

    def of(self, keys: Sequence[Key]) -> tuple[list[Key], dict[Key, list[Statement]]]:
        """As many of *keys*, at least one, as fit into memory with what waits to be said of them; and that."""
        ranks = [self._mapping.by_type[key.aggregate].rank for key in keys]
        ids = [key.id_text for key in keys]
        total, fit = 0, 0
        for _place, count in self._connection.execute(_COUNTS, (self._source, ranks, ids)):
            total += count
            if fit and total > STATEMENTS_MAX:
                break
            fit += 1
        return list(keys[:fit]), self._read(ranks[:fit], ids[:fit])

    def _read(self, ranks: Sequence[int], ids: Sequence[str]) -> dict[Key, list[Statement]]:
        found: dict[Key, list[Statement]] = {}
        for rank, id_text, *said in self._connection.execute(_OF, (list(ranks), list(ids), self._source)):
            order, event, data, former = said
            key = Key(self._mapping.by_rank[rank].name, id_text)
            found.setdefault(key, []).append(Statement(order, key, event, data.encode(), former))
        return found

    def said(self, rank: int, id_text: str) -> None:
        """Everything up to this aggregate is said."""
        self._connection.execute(
            "DELETE FROM rowcast.statement WHERE source = %s AND NOT staged AND (rank, id_text) <= (%s, %s)",
            (self._source, rank, id_text),
        )
