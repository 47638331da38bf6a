"""
The aggregates that wait for their event in the control database: those of snapshots, resyncs and large fan-outs.

They go out chunk by chunk, parents' types first, then by id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from stream_app import statements
from stream_app.core.mapping import SourceMapping
from stream_app.core.reference import Referring
from stream_app.core.state import Key, View
from stream_app.stated import StatedEvents
from stream_app.step import Step

# Aggregates that are there, or of which something was published or refused.
_TOLD = "(present OR published IS NOT NULL OR refused_reason IS NOT NULL)"

# And those of which a snapshot has read the root row alone, or something was stated.
_KNOWN = f"""
(SELECT id_text FROM rowcast.aggregate WHERE source = %(source)s AND aggregate = %(aggregate)s
 AND id_text > %(behind)s AND {_TOLD} ORDER BY id_text LIMIT %(limit)s)
UNION
(SELECT row_key FROM rowcast.row_state WHERE source = %(source)s AND table_name = %(table)s AND row_key > %(behind)s
 ORDER BY row_key LIMIT %(limit)s)
UNION
(SELECT id_text FROM rowcast.pending WHERE source = %(source)s AND rank = %(rank)s AND id_text > %(behind)s
 ORDER BY id_text LIMIT %(limit)s)
ORDER BY id_text LIMIT %(limit)s
"""


class Pending:
    """What is pending of one source, through one connection."""

    def __init__(self, connection: psycopg.Connection, mapping: SourceMapping) -> None:
        self._connection = connection
        self._mapping = mapping
        self._source = mapping.definition.source
        self._stated = StatedEvents(connection, mapping)

    def next(self, limit: int, after: Key | None, whole: Collection[str] = ()) -> list[Key]:
        """
        The next aggregates that wait for their event, parents' types first, then by id, behind *after*.

        Of the types *whole* all do that are known, whether they are noted as pending or not.
        """
        keys: list[Key] = []
        place = (-1, "") if after is None else (self._mapping.by_type[after.aggregate].rank, after.id_text)
        for mapping in self._mapping.by_rank:
            if mapping.name not in whole or mapping.rank < place[0]:
                continue
            if mapping.rank > place[0]:
                keys += self._noted(limit - len(keys), place, mapping.rank)
                place = (mapping.rank, "")
            keys += self._known(limit - len(keys), mapping.name, place[1])
            place = (mapping.rank + 1, "")
            if len(keys) == limit:
                return keys
        return keys + self._noted(limit - len(keys), place, len(self._mapping.by_rank))

    def _noted(self, limit: int, behind: tuple[int, str], until_rank: int) -> list[Key]:
        if not limit:
            return []
        rows = self._connection.execute(
            "SELECT rank, id_text FROM rowcast.pending WHERE source = %s AND (rank, id_text) > (%s, %s) AND rank < %s"
            " ORDER BY rank, id_text LIMIT %s",
            (self._source, *behind, until_rank, limit),
        )
        return [Key(self._mapping.by_rank[rank].name, id_text) for rank, id_text in rows]

    def _known(self, limit: int, aggregate: str, behind: str) -> list[Key]:
        if not limit:
            return []
        mapping = self._mapping.by_type[aggregate]
        # The rows of a type with a holding have keys of their own.
        table = self._mapping.tables[aggregate] if mapping.holding is None else None
        wanted = {"source": self._source, "aggregate": aggregate, "behind": behind, "limit": limit}
        wanted |= {"rank": mapping.rank, "table": table}
        return [Key(aggregate, id_text) for (id_text,) in self._connection.execute(_KNOWN.encode(), wanted)]

    def renumber(self, former: Sequence[str]) -> None:
        """Call by its present number what was numbered in the order of the types *former*; forget types that went."""
        ranks = {each.name: each.rank for each in self._mapping.by_rank}
        numbers = [(old, ranks.get(name)) for old, name in enumerate(former)]
        # No two rows may have one number for a moment, so all go out of the way first.
        apart = max(len(former), len(ranks))
        query = "UPDATE rowcast.pending SET rank = rank + %s WHERE source = %s"
        self._connection.execute(query, (apart, self._source))
        for old, new in numbers:
            if new is not None:
                query = "UPDATE rowcast.pending SET rank = %s WHERE source = %s AND rank = %s"
                self._connection.execute(query, (new, self._source, old + apart))
        query = "DELETE FROM rowcast.pending WHERE source = %s AND rank >= %s"
        self._connection.execute(query, (self._source, apart))

    def save(self, step: Step, view: View) -> None:
        """Let wait, or be done with, what *step* says; *view* tells what it touched."""
        pending = [*step.pending, *(view.dirty | view.touched)] if step.pending_touched else step.pending
        if pending:
            ranks, ids = self._ranked(pending)
            self._connection.execute(
                "INSERT INTO rowcast.pending (source, rank, id_text)"
                " SELECT %s, * FROM unnest(%s::integer[], %s::text[]) ON CONFLICT DO NOTHING",
                (self._source, ranks, ids),
            )
        for name, tenant in step.pending_tenants:
            self._fill(name, tenant)
        for each in step.pending_referring:
            self._fill_referring(each)
        if step.pending_children:
            self._fill_children()
        if step.pending_done is not None:
            ranks, ids = self._ranked([step.pending_done])
            behind, names = ([-1], [""]) if step.pending_behind is None else self._ranked([step.pending_behind])
            # Looks at no place twice: what former chunks have deleted still stands in the index.
            self._connection.execute(
                "DELETE FROM rowcast.pending WHERE source = %s"
                " AND (rank, id_text) > (%s, %s) AND (rank, id_text) <= (%s, %s)",
                (self._source, behind[0], names[0], ranks[0], ids[0]),
            )
            if step.said:
                self._stated.said(ranks[0], ids[0])

    def _ranked(self, keys: Sequence[Key]) -> tuple[list[int], list[str]]:
        return [self._mapping.by_type[key.aggregate].rank for key in keys], [key.id_text for key in keys]

    def _fill(self, aggregate: str, tenant: str | None = None) -> None:
        self._connection.execute(
            "INSERT INTO rowcast.pending (source, rank, id_text)"
            " SELECT source, %(rank)s, id_text FROM rowcast.aggregate"
            f" WHERE source = %(source)s AND aggregate = %(aggregate)s AND {_TOLD}"
            f" AND {statements.OF_TENANT.format('id_text')} ON CONFLICT DO NOTHING".encode(),
            {"rank": self._mapping.by_type[aggregate].rank, "source": self._source, "aggregate": aggregate}
            | {"tenant": tenant},
        )

    def _fill_children(self) -> None:
        """Whoever stands below a pending aggregate may have to be corrected too; parents' types come first."""
        for mapping in self._mapping.by_rank:
            parent = mapping.definition.parent
            if parent is None:
                continue
            rank = self._mapping.by_type[parent.aggregate].rank
            if mapping.link is not None:
                index = self._mapping.tables[mapping.link.index]
                self._connection.execute(statements.PENDING_LINKED, (mapping.rank, index, self._source, rank))
                continue
            self._connection.execute(
                "INSERT INTO rowcast.pending (source, rank, id_text)"
                " SELECT p.source, %s, a.id_text FROM rowcast.pending p JOIN rowcast.aggregate a"
                " ON a.source = p.source AND a.aggregate = %s AND a.parent_id_text = p.id_text"
                " WHERE p.source = %s AND p.rank = %s ON CONFLICT DO NOTHING",
                (mapping.rank, mapping.name, self._source, rank),
            )

    def _fill_referring(self, referring: Referring) -> None:
        way = self._way_up(referring.name)
        if referring.patterns is None:
            self._fill(way[-1])
            return
        root = self._mapping.by_type[way[-1]]
        # The joins lead from each row to the one above, up to the root row.
        joins = "".join(
            f" JOIN rowcast.row_state r{above} ON r{above}.source = r0.source"
            f" AND r{above}.table_name = %({above})s AND r{above}.row_key = r{above - 1}.owner"
            for above in range(1, len(way))
        )
        named = f"r{len(way) - 1}.{'row_key' if root.holding is None else 'owner'}"
        self._connection.execute(
            "INSERT INTO rowcast.pending (source, rank, id_text)"
            f" SELECT DISTINCT r0.source, %(rank)s, {named} FROM rowcast.row_state r0{joins}"
            f" WHERE r0.source = %(source)s AND r0.table_name = %(0)s AND {named} IS NOT NULL"
            # Columns are compact JSON, so a text that stands in it is found as it is written.
            " AND EXISTS (SELECT 1 FROM unnest(%(patterns)s::text[]) AS p WHERE strpos(r0.columns, p) > 0)"
            " ON CONFLICT DO NOTHING".encode(),
            {
                "rank": root.rank,
                "source": self._source,
                "patterns": referring.patterns,
                **{str(place): self._mapping.tables[name] for place, name in enumerate(way)},
            },
        )

    def _way_up(self, name: str) -> list[str]:
        """What row state calls the rows *name* and those above them, up to the root rows."""
        way = [name]
        while way[-1] in self._mapping.embedded:
            way.append(self._mapping.embedded[way[-1]].above)
        return way
