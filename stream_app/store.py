"""
The control database as the owner of a source writes it: state and position.

One transaction writes rows, versions, generations, commands and position together, with compare-and-set on
(epoch, next offset, sub-position); whoever lost the lease changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import orjson
import psycopg

from rowcast.control.halts import write_halts
from rowcast.errors import OwnershipLostError
from rowcast.failpoint import failpoint
from stream_app import statements
from stream_app.core.embedding import LinkMapping
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import Key, View
from stream_app.generation import Generation
from stream_app.live_majors import Opening
from stream_app.pending import Pending
from stream_app.position import EndOffsets, Position
from stream_app.state_writer import StateWriter, is_few
from stream_app.stated import StatedEvents
from stream_app.step import Step

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


class Store:
    """
    The state of one owned source, of which *mapping* was applied as *revision*.

    When the connection breaks, the outcome of a commit is unknown and the position has to be read again.
    """

    def __init__(
        self, connection: psycopg.Connection, ownership: Ownership, mapping: SourceMapping, revision: str
    ) -> None:
        self._connection = connection
        self._ownership = ownership
        self._mapping = mapping
        self._source = ownership.source
        self._revision = revision
        self._writer = StateWriter(connection, mapping)
        self._prune_s = 0.0
        self._stated = StatedEvents(connection, mapping)
        self._pending = Pending(connection, mapping)

    def prepare(self) -> None:
        """Make ready to `commit`."""
        self._writer.prepare()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

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
                    self._connection.execute(statements.WHOLE_TABLES.encode())
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

    def renumber(self, former: Sequence[str] | None, position: Position, time: str) -> Position:
        """
        Take what is pending over from a claim that had the types *former* in their order; None: those of now.

        Returns *position* as it is then: in another order, everything that is left goes out from the beginning. What
        waits to be said of a type that went is refused at *time* (RFC 3339).

        Raises:
            OwnershipLostError: another claim was made.

        """
        names = [each.name for each in self._mapping.by_rank]
        if names == former:
            return position
        with self._connection.transaction():
            self.hold()
            self._connection.execute("SET LOCAL statement_timeout = 0")
            if former is not None:
                self._pending.renumber(former)
                self._stated.renumber((position.commit_lsn, time))
                # In the same commit: a claim that dies behind it leaves none that goes on in the former order.
                left = {name: each for name, each in (position.sub_position or {}).items() if name != "last"}
                position = replace(position, sub_position=left or None)
            query = "UPDATE rowcast.source SET ranked = %s, sub_position = %s WHERE source = %s"
            ranked = orjson.dumps(names).decode()
            self._connection.execute(query, (ranked, _json(position.sub_position), self._source))
        return position

    def open_majors(self, opening: Opening, end_offsets: EndOffsets) -> None:
        """
        Take over other live majors, in one transaction; the position has to be committed.

        Raises:
            OwnershipLostError: another claim was made.

        """
        with self._connection.transaction():
            self.hold()
            # Touches every row of a type.
            self._connection.execute(statements.WHOLE_TABLES.encode())
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
        same = former is not None and former.heartbeat == position.heartbeat
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
                "revision": self._revision,
                "end_offsets": _json(position.end_offsets),
                "fingerprint": None,
                # It grows with the tables, and comes with few commits.
                "same_heartbeat": same,
                "heartbeat": None if same else _json(position.heartbeat),
                "expected_offset": None if former is None else former.next_offset,
                "expected_sub": None if former is None else _json(former.sub_position),
            },
        ).rowcount
        if written != 1:
            raise OwnershipLostError(f"{self._source}: the position is not what epoch {self._ownership.epoch} left")

    def _save(self, view: View, step: Step) -> None:
        if step.truncated:
            self._truncate(view, step)
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
        self._pending.save(step, view)
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

    def _truncate(self, view: View, step: Step) -> None:
        for name, tenant in step.truncated:
            self._forget_rows(name, None, tenant)
        # What was read of them before is gone now, and what came after is new.
        view.stored_rows -= {key for key in view.stored_rows if view.is_emptied(*key)}

    def _note_deleted(self, view: View, step: Step) -> None:
        """What a resync has read of these rows is out of date."""
        gone = [key for key in view.dirty_rows if view.rows[key] is None]
        tables = self._tables(gone) + [self._mapping.tables[each.name] for each in step.truncated]
        # None stands for all rows of the table, and a tenant with nothing behind it for all of that tenant.
        of_tenants = (None if each.tenant is None else f"{each.tenant}/" for each in step.truncated)
        keys = [*(key.id_text for key in gone), *of_tenants]
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

    def _forget_links(self, link: LinkMapping, before_generation: int | None, tenant: str | None) -> None:
        """Likewise for the rows of a link table; their aggregates keep the parents that are left."""
        self._connection.execute(
            statements.FORGET_LINKS,
            {
                "source": self._source,
                "aggregate": link.aggregate,
                "table": self._mapping.tables[link.name],
                "index": self._mapping.tables[link.index],
                "generation": before_generation,
                "tenant": tenant,
            },
        )

    def _forget_rows(self, aggregate: str, before_generation: int | None, tenant: str | None = None) -> None:
        """
        Rows of a type, embedded table or reference table that *before_generation* did not find; None: all.

        Those of one *tenant*, or of all.
        """
        link = self._mapping.embedded.get(aggregate)
        if isinstance(link, LinkMapping):
            self._forget_links(link, before_generation, tenant)
            return
        mapping = self._mapping.by_type.get(aggregate)
        # Those that link rows name are theirs, whether the row that they bind is there or not.
        parents = ", parent_id_text = NULL" if mapping is None or mapping.link is None else ""
        query = (
            "WITH gone AS (DELETE FROM rowcast.row_state WHERE source = %(source)s AND table_name = %(table)s"
            " AND (%(generation)s::bigint IS NULL OR generation < %(generation)s)"
            f" AND {statements.OF_TENANT.format('row_key')} RETURNING row_key, owner)"
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
                "tenant": tenant,
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
