"""
The control database as the owner of a source uses it: state in, state and position out.

One transaction writes rows, versions, generations, commands and position together, with compare-and-set on
(epoch, next offset, sub-position); whoever lost the lease changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

import orjson
import psycopg

from rowcast.control.halts import read_halts, write_halts
from rowcast.errors import OwnershipLostError
from rowcast.failpoint import failpoint
from rowcast.halt import Halt
from stream_app import statements
from stream_app.core.embedding import LinkMapping
from stream_app.core.loading import DESCENDANTS_MAX, LargeFanOutError
from stream_app.core.mapping import SourceMapping
from stream_app.core.reference import Referring
from stream_app.core.state import ABSENT, AggregateState, Key, Lookup, Refusal, View
from stream_app.core.statement import RefusedStatement, Statement
from stream_app.generation import Generation
from stream_app.live_majors import Opening
from stream_app.position import EndOffsets, Position
from stream_app.state_writer import StateWriter, is_few
from stream_app.stated import StatedEvents

# Ways to execute a query that are for whole tables, and off for everything else.
BULK_METHODS = ("enable_seqscan", "enable_bitmapscan", "enable_material", "enable_hashjoin", "enable_mergejoin")
_WHOLE_TABLES = "; ".join(("SET LOCAL statement_timeout = 0", *(f"SET LOCAL {each} = on" for each in BULK_METHODS)))
# Whoever opens the transaction takes the source row first, so that a claim and a commit never interleave.
_HOLD = "SELECT 1 FROM rowcast.source WHERE source = %s AND epoch = %s AND holder = %s FOR UPDATE"
# A dead or frozen owner is replaced after this long at most, plus the time of one claim.
LEASE_S = 8
_RESEND_WINDOW_MS = 15 * 60 * 1000
_PRUNE_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """A claim: *holder* owns *source* as *epoch*."""

    source: str
    holder: str
    epoch: int


@dataclass(slots=True, kw_only=True)
class Step:
    """
    What one commit writes besides the view: see the columns of the control tables.

    *pending_touched*: whatever the view changed waits for its event. *opened*: what newly live majors wait for is
    pending, and goes out with the chunks that follow. *statements* wait for their event; *placed*, LSN and time of a
    large transaction, lets those wait that were staged with it, *refused* of which are refused; *said* ends their
    waiting, up to what is not pending any more. All *refused_statements* are kept. *comparing*: the generation of a
    resync that is to know which rows were deleted meanwhile. *halted*: what halts types from now on, *lifted* the
    causes that do not any more.
    """

    generation: int = 0
    comparing: int = 0
    processed: list[tuple[int, int, int]] = field(default_factory=list)
    last_time_ms: int = 0
    generations: list[Generation] = field(default_factory=list)
    ended_generations: list[Generation] = field(default_factory=list)
    truncated_types: list[str] = field(default_factory=list)
    pending: list[Key] = field(default_factory=list)
    pending_touched: bool = False
    pending_types: list[str] = field(default_factory=list)
    pending_children: bool = False
    pending_referring: list[Referring] = field(default_factory=list)
    pending_done: Key | None = None
    opened: bool = False
    commands_done: list[tuple[int, str]] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    refused_statements: list[RefusedStatement] = field(default_factory=list)
    refused: int = 0
    said: bool = False
    placed: tuple[int, str] | None = None
    halted: list[Halt] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)

    @property
    def is_wide(self) -> bool:
        """Whether it may touch every row of a type."""
        types = self.ended_generations, self.truncated_types, self.pending_types, self.pending_referring
        return any(types) or self.placed is not None

    @property
    def is_small(self) -> bool:
        """Whether it ends within the usual time limit, and needs no COPY, which there is none of in a pipeline."""
        return not (self.is_wide or self.pending_children or self.statements)


class Store:
    """
    The state of one owned source.

    When the connection breaks, the outcome of a commit is unknown and the position has to be read again.
    """

    def __init__(self, connection: psycopg.Connection, ownership: Ownership, mapping: SourceMapping) -> None:
        self._connection = connection
        self._ownership = ownership
        self._mapping = mapping
        self._source = ownership.source
        self._writer = StateWriter(connection, mapping)
        self._prune_s = 0.0
        self._stated = StatedEvents(connection, mapping)

    def prepare(self) -> None:
        """Make ready to `commit`."""
        self._writer.prepare()

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

    def _load_states(self, aggregate: str, wanted: str, view: View) -> None:
        found = self._connection.execute(statements.LOAD_AGGREGATES, (wanted, self._source, aggregate))
        self._take_states(aggregate, found, view)

    def _take_states(self, aggregate: str, found: Iterable[Any], view: View) -> None:
        for row in found:
            key = Key(aggregate, row[0])
            view.aggregates[key] = _state(row)
            view.stored.add(key)

    def _load_aggregates(self, keys: Iterable[Key], view: View) -> None:
        by_type: dict[str, list[str]] = {}
        for key in keys:
            view.aggregates[key] = ABSENT
            view.rows[key] = None
            by_type.setdefault(key.aggregate, []).append(key.id_text)
        with self._connection.pipeline():
            found = [(each, *self._ask_for(each, "\n".join(ids))) for each, ids in by_type.items()]
        for aggregate, states, rows in found:
            self._take_states(aggregate, states, view)
            for row_key, columns in rows:
                key = Key(aggregate, row_key)
                view.rows[key] = orjson.loads(columns)
                view.stored_rows.add(key)

    def _ask_for(self, aggregate: str, wanted: str) -> tuple[psycopg.Cursor[Any], psycopg.Cursor[Any]]:
        states = self._connection.execute(statements.LOAD_AGGREGATES, (wanted, self._source, aggregate))
        table = self._mapping.tables[aggregate]
        return states, self._connection.execute(statements.LOAD_ROWS, (wanted, self._source, table))

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

    def load_references(self) -> None:
        """Fill the reference tables of the mapping with the committed rows."""
        for table in self._mapping.references.values():
            rows = self._connection.execute(
                "SELECT row_key, columns FROM rowcast.row_state WHERE source = %s AND table_name = %s",
                (self._source, table.definition.table),
            )
            table.rows.clear()
            table.rows.update((row_key, orjson.loads(columns)) for row_key, columns in rows)

    def processed(self) -> list[tuple[int, int, int]]:
        """The transactions of the re-send window as (commit LSN, xid, change count), oldest first."""
        rows = self._connection.execute(
            "SELECT entries FROM rowcast.processed_transaction WHERE source = %s ORDER BY last_lsn", (self._source,)
        )
        flat = [number for (entries,) in rows for number in entries]
        return list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))

    def snapshot_from(self) -> int | None:
        """Behind which offset of the change log a snapshot is expected; None: it was never noted."""
        query = "SELECT snapshot_from FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def resumed_at(self) -> datetime | None:
        """When the source was resumed after its last stop; None: never."""
        query = "SELECT resumed_at FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None else row[0]

    def partitions_from(self) -> dict[str, Any] | None:
        """What the catalogue said before the snapshot, as heartbeats tell of it; None: never noted."""
        query = "SELECT partitions_from FROM rowcast.source WHERE source = %s"
        row = self._connection.execute(query, (self._source,)).fetchone()
        return None if row is None or row[0] is None else orjson.loads(row[0])

    def generations(self) -> list[Generation]:
        """The newest generation of each aggregate type that has one."""
        rows = self._connection.execute(
            "SELECT DISTINCT ON (aggregate) aggregate, generation, status, started_offset, lsn, time"
            " FROM rowcast.generation WHERE source = %s ORDER BY aggregate, generation DESC",
            (self._source,),
        )
        return [Generation(*row) for row in rows]

    def halts(self) -> list[Halt]:
        """Why types of the source are halted."""
        return read_halts(self._connection, self._source)

    def pending(self, limit: int, after: Key | None) -> list[Key]:
        """The next aggregates that wait for their event, parents' types first, then by id, behind *after*."""
        ranks, ids = ([-1], [""]) if after is None else self._ranked([after])
        rows = self._connection.execute(
            "SELECT rank, id_text FROM rowcast.pending WHERE source = %s AND (rank, id_text) > (%s, %s)"
            " ORDER BY rank, id_text LIMIT %s",
            (self._source, ranks[0], ids[0], limit),
        )
        return [Key(self._mapping.by_rank[rank].name, id_text) for rank, id_text in rows]

    def stated(self, keys: Sequence[Key]) -> tuple[list[Key], dict[Key, list[Statement]]]:
        """As many of *keys* as fit into memory with what waits to be said of them, and that."""
        return self._stated.of(keys)

    def has_statements(self) -> bool:
        """Whether something waits to be said."""
        return self._stated.any()

    def commands(self) -> list[tuple[int, str, dict[str, Any]]]:
        """The open commands as (number, verb, arguments), oldest first."""
        rows = self._connection.execute(
            "SELECT number, verb, arguments FROM rowcast.command WHERE source = %s AND done_at IS NULL"
            " ORDER BY number LIMIT 100",
            (self._source,),
        )
        return [(number, verb, orjson.loads(arguments)) for number, verb, arguments in rows]

    def refused(self) -> tuple[int, str | None]:
        """How many aggregates and stated events are refused, and since when the oldest is (RFC 3339)."""
        row = self._connection.execute(
            "SELECT count(*), to_char(min(refused_since) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            " FROM (SELECT refused_since FROM rowcast.aggregate WHERE source = %s AND refused_reason IS NOT NULL"
            " UNION ALL SELECT since FROM rowcast.refused_statement WHERE source = %s) AS r (refused_since)",
            (self._source, self._source),
        ).fetchone()
        assert row is not None, "an aggregate query returns one row"
        return int(row[0]), row[1]

    def commit(self, view: View, step: Step, former: Position | None, position: Position) -> None:
        """
        Write *view*'s changes, *step* and *position* in one transaction, if this claim still holds.

        Raises:
            OwnershipLostError: another claim was made, or the position is not *former* any more.
            psycopg.Error: the outcome is unknown.

        """
        with self._connection.transaction():
            if is_few(view) and step.is_small:
                self._commit_few(view, step, former, position)
            else:
                self.hold()
                if step.is_wide:
                    # Touches every row of a type; the lease is extended with the position below.
                    self._connection.execute(_WHOLE_TABLES.encode())
                elif step.pending_children:
                    # Of a parent that has any number of them.
                    self._connection.execute("SET LOCAL statement_timeout = 0")
                self._save(view, step)
                self._advance(former, position)
            failpoint("sequencer.in_commit")

    def _commit_few(self, view: View, step: Step, former: Position | None, position: Position) -> None:
        """
        In two round trips: of a small batch that is what its commit takes.

        The position moves behind the pipeline: only then does the server count how long this client is idle in its
        transaction, and end it when it is frozen.
        """
        held: psycopg.Cursor[Any] | None = None
        try:
            with self._connection.pipeline():
                held = self._connection.execute(_HOLD, self._whose)
                self._save(view, step)
        except psycopg.errors.IntegrityError:
            # Rows that another owner has written meanwhile.
            if held is not None:
                self._check_held(held)
            raise
        self._check_held(held)
        self._advance(former, position)

    def open_majors(self, opening: Opening, end_offsets: EndOffsets) -> None:
        """
        Take over other live majors, in one transaction; the position has to be committed.

        Raises:
            OwnershipLostError: another claim was made.

        """
        with self._connection.transaction():
            self.hold()
            # Touches every row of a type.
            self._connection.execute(_WHOLE_TABLES.encode())
            for aggregate, majors in opening.former.items():
                text = ",".join(map(str, majors))
                parameters = {"source": self._source, "aggregate": aggregate, "majors": text}
                self._connection.execute(statements.OWE, parameters)
            self._connection.execute(
                statements.OPEN_MAJORS,
                {
                    "source": self._source,
                    "epoch": self._ownership.epoch,
                    "holder": self._ownership.holder,
                    "lease_s": LEASE_S,
                    "live": _json(opening.live),
                    "opening": _json(opening.waiting),
                    "end_offsets": _json(end_offsets),
                },
            )

    def hold(self) -> None:
        """
        Keep other claims out until the end of the open transaction.

        Raises:
            OwnershipLostError: another claim was made.

        """
        self._check_held(self._connection.execute(_HOLD, self._whose))

    @property
    def _whose(self) -> tuple[str, int, str]:
        return self._source, self._ownership.epoch, self._ownership.holder

    def _check_held(self, cursor: psycopg.Cursor[Any]) -> None:
        if cursor.fetchone() is None:
            raise OwnershipLostError(f"{self._source}: epoch {self._ownership.epoch} is over")

    def _advance(self, former: Position | None, position: Position) -> None:
        written = self._connection.execute(
            statements.ADVANCE,
            {
                "source": self._source,
                "epoch": self._ownership.epoch,
                "holder": self._ownership.holder,
                "lease_s": LEASE_S,
                "topic_id": position.change_log_topic_id,
                "next_offset": position.next_offset,
                "commit_lsn": position.commit_lsn,
                "sub_position": _json(position.sub_position),
                "revision": self._mapping.definition.revision,
                "end_offsets": _json(position.end_offsets),
                "fingerprint": None,
                "heartbeat": _json(position.heartbeat),
                "expected_offset": None if former is None else former.next_offset,
                "expected_sub": None if former is None else _json(former.sub_position),
            },
        ).rowcount
        if written != 1:
            raise OwnershipLostError(f"{self._source}: the position is not what epoch {self._ownership.epoch} left")

    def _save(self, view: View, step: Step) -> None:
        for aggregate in step.truncated_types:
            self._forget_rows(aggregate, None)
        # What was read of them before is gone now, and what came after is new.
        view.stored_rows -= {key for key in view.stored_rows if key.aggregate in step.truncated_types}
        if step.comparing:
            self._note_deleted(view, step)
        self._writer.write(view, step.generation)
        for generation in step.generations:
            self._save_generation(generation)
        for generation in step.ended_generations:
            # Neither read by the generation nor changed by the stream since it began: gone at the source.
            self._forget_rows(generation.aggregate, generation.number)
            for each in self._mapping.embedded.values():
                if each.aggregate == generation.aggregate:
                    self._forget_rows(each.name, generation.number)
        for generation in step.ended_generations[:1]:  # all types are read together, and the references with them
            for table in self._mapping.references.values():
                self._forget_rows(table.name, generation.number)
        self._save_statements(step)
        self._save_pending(step, view)
        if step.opened:
            self._connection.execute("UPDATE rowcast.source SET opening = NULL WHERE source = %s", (self._source,))
        if step.halted or step.lifted:
            write_halts(self._connection, self._source, step.halted, step.lifted)
        if step.processed:
            self._save_processed(step)
        for number, outcome in step.commands_done:
            self._connection.execute(
                "UPDATE rowcast.command SET done_at = clock_timestamp(), outcome = %s WHERE number = %s",
                (outcome, number),
            )

    def _note_deleted(self, view: View, step: Step) -> None:
        """What a resync has read of these rows is out of date."""
        gone = [key for key in view.dirty_rows if view.rows[key] is None]
        tables = self._tables(gone) + [self._mapping.tables[each] for each in step.truncated_types]
        keys = [*(key.id_text for key in gone), *(None for _ in step.truncated_types)]
        if tables:
            self._connection.execute(statements.NOTE_DELETED, (self._source, step.comparing, tables, keys))

    def _tables(self, keys: Iterable[Key]) -> list[str]:
        return [self._mapping.tables[key.aggregate] for key in keys]

    def _save_generation(self, generation: Generation) -> None:
        self._connection.execute(
            "INSERT INTO rowcast.generation (source, aggregate, generation, status, started_offset, lsn, time)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (source, aggregate, generation) DO UPDATE"
            " SET status = excluded.status, lsn = excluded.lsn, time = excluded.time",
            (
                self._source,
                generation.aggregate,
                generation.number,
                generation.status,
                generation.started_offset,
                generation.lsn,
                generation.time,
            ),
        )

    def _forget_links(self, link: LinkMapping, before_generation: int | None) -> None:
        """Likewise for the rows of a link table; their aggregates keep the parents that are left."""
        self._connection.execute(
            statements.FORGET_LINKS,
            {
                "source": self._source,
                "aggregate": link.aggregate,
                "table": self._mapping.tables[link.name],
                "index": self._mapping.tables[link.index],
                "generation": before_generation,
            },
        )

    def _forget_rows(self, aggregate: str, before_generation: int | None) -> None:
        """Rows of a type, embedded table or reference table that *before_generation* did not find; None: all."""
        link = self._mapping.embedded.get(aggregate)
        if isinstance(link, LinkMapping):
            self._forget_links(link, before_generation)
            return
        mapping = self._mapping.by_type.get(aggregate)
        # Those that link rows name are theirs, whether the row that they bind is there or not.
        parents = ", parent_id_text = NULL" if mapping is None or mapping.link is None else ""
        query = (
            "WITH gone AS (DELETE FROM rowcast.row_state WHERE source = %(source)s AND table_name = %(table)s"
            " AND (%(generation)s::bigint IS NULL OR generation < %(generation)s) RETURNING row_key, owner)"
            f" UPDATE rowcast.aggregate a SET present = false{parents} FROM gone"
            " WHERE a.source = %(source)s AND a.aggregate = %(aggregate)s"
            + (statements.HELD_NO_MORE if aggregate in self._mapping.held else " AND a.id_text = gone.row_key")
        )
        self._connection.execute(
            query.encode(),
            {
                "source": self._source,
                "table": self._mapping.tables[aggregate],
                "generation": before_generation,
                "aggregate": aggregate,
            },
        )

    def _save_statements(self, step: Step) -> None:
        if step.placed is not None:
            self._stated.place_staged(step.placed)
        if step.statements:
            self._stated.wait(step.statements)
        if step.statements or step.placed is not None:
            self._stated.make_pending()
        if step.refused_statements:
            self._stated.refuse(step.refused_statements)

    def _save_pending(self, step: Step, view: View) -> None:
        pending = [*step.pending, *(view.dirty | view.touched)] if step.pending_touched else step.pending
        if pending:
            ranks, ids = self._ranked(pending)
            self._connection.execute(
                "INSERT INTO rowcast.pending (source, rank, id_text)"
                " SELECT %s, * FROM unnest(%s::integer[], %s::text[]) ON CONFLICT DO NOTHING",
                (self._source, ranks, ids),
            )
        for aggregate in step.pending_types:
            self._fill_pending(aggregate)
        for each in step.pending_referring:
            self._fill_pending_referring(each)
        if step.pending_children:
            self._fill_pending_children()
        if step.pending_done is not None:
            ranks, ids = self._ranked([step.pending_done])
            self._connection.execute(
                "DELETE FROM rowcast.pending WHERE source = %s AND (rank, id_text) <= (%s, %s)",
                (self._source, ranks[0], ids[0]),
            )
            if step.said:
                self._stated.said(ranks[0], ids[0])

    def _ranked(self, keys: Sequence[Key]) -> tuple[list[int], list[str]]:
        return [self._mapping.by_type[key.aggregate].rank for key in keys], [key.id_text for key in keys]

    def _fill_pending_children(self) -> None:
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

    def _fill_pending_referring(self, referring: Referring) -> None:
        way = self._way_up(referring.name)
        if referring.patterns is None:
            self._fill_pending(way[-1])
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

    def _fill_pending(self, aggregate: str) -> None:
        self._connection.execute(
            "INSERT INTO rowcast.pending (source, rank, id_text)"
            " SELECT source, %s, id_text FROM rowcast.aggregate WHERE source = %s AND aggregate = %s"
            " AND (present OR published IS NOT NULL OR refused_reason IS NOT NULL) ON CONFLICT DO NOTHING",
            (self._mapping.by_type[aggregate].rank, self._source, aggregate),
        )

    def _save_processed(self, step: Step) -> None:
        numbers = ",".join(map(str, chain.from_iterable(step.processed)))
        self._connection.execute(
            "INSERT INTO rowcast.processed_transaction (source, last_lsn, last_time_ms, entries)"
            " VALUES (%s, %s, %s, %s::bigint[])",
            (self._source, step.processed[-1][0], step.last_time_ms, f"{{{numbers}}}"),
        )
        if time.monotonic() >= self._prune_s:
            # All rows of the window are looked at, so not with every batch.
            self._prune_s = time.monotonic() + _PRUNE_INTERVAL_S
            self._connection.execute(
                "DELETE FROM rowcast.processed_transaction WHERE source = %s AND last_time_ms < %s",
                (self._source, step.last_time_ms - _RESEND_WINDOW_MS),
            )


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _state(row: Sequence[Any]) -> AggregateState:
    _id_text, version, parent, present, published, reason, record, since, lsn, owed = row
    refusal = None if reason is None else Refusal(reason, record, _instant(since), int(lsn))
    majors = None if owed is None else tuple(map(int, owed.split(",")))
    return AggregateState(version, parent, present, None if published is None else published.encode(), refusal, majors)


def _instant(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
