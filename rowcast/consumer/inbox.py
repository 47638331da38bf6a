"""
The inbox in the consumer's database: marks and offsets, read and written in the transaction of the effects.

Every method but `transaction` runs in the caller's. Rows are locked in one order, offsets before marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg.rows import tuple_row

from rowcast.consumer.partitions import Ownership, Partition
from rowcast.database import IDLE_IN_TRANSACTION_TIMEOUT_S, migrate
from rowcast.errors import OwnershipLostError

SCHEMA = "rowcast_inbox"

_CLAIM = """
    INSERT INTO rowcast_inbox.offset_position AS p
        (consumer, topic, partition, generation, next_offset, topic_id, instance)
    SELECT %(consumer)s, topic, partition, 1, 0, topic_id, %(instance)s
    FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(topic_ids)s::text[]) AS n(topic, partition, topic_id)
    ORDER BY topic, partition
    ON CONFLICT (consumer, topic, partition) DO UPDATE
        SET generation = p.generation + 1, instance = excluded.instance, assigned_at = now(),
            topic_id = coalesce(p.topic_id, excluded.topic_id)
    RETURNING topic, partition, generation, next_offset, topic_id
"""
_FORMER_MAJOR = """
    WITH known AS (
        SELECT topic, partition, next_offset, assigned_at FROM rowcast_inbox.offset_position
        WHERE consumer = %(consumer)s AND starts_with(topic, %(aggregate)s)
    )
    SELECT topic, partition, next_offset FROM known
    WHERE NOT EXISTS (SELECT 1 FROM known WHERE topic = %(topic)s)
        AND topic = (SELECT topic FROM known ORDER BY assigned_at DESC, topic DESC LIMIT 1)
"""
# A lateral subquery that locks is never flattened: one look-up by primary key for each element of the array,
# in the array's order, whatever the statistics of a fast-growing table make the planner believe.
_LOCK_POSITIONS = """
    SELECT n.topic, n.partition, p.generation, p.next_offset
    FROM unnest(%(topics)s::text[], %(partitions)s::int[]) AS n(topic, partition)
    CROSS JOIN LATERAL (
        SELECT generation, next_offset FROM rowcast_inbox.offset_position
        WHERE consumer = %(consumer)s AND topic = n.topic AND partition = n.partition
        FOR UPDATE
    ) AS p
"""
# One statement, one round trip: UNION ALL runs its parts one after the other.
# %b: psycopg makes the binary form of a long array ten times as fast as its text.
_LOCK = f"""
    SELECT topic, partition, generation, next_offset, NULL AS identity, NULL AS version
    FROM ({_LOCK_POSITIONS}) AS positions
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, n.identity, m.version
    FROM unnest(%(identities)b::text[]) AS n(identity)
    CROSS JOIN LATERAL (
        SELECT version FROM rowcast_inbox.mark
        WHERE consumer = %(consumer)s AND identity = n.identity
        FOR UPDATE
    ) AS m
"""
_STORE = """
    WITH raised AS (
        INSERT INTO rowcast_inbox.mark AS m (consumer, identity, version)
        SELECT %(consumer)s, identity, version
        FROM unnest(%(identities)b::text[], %(versions)b::bigint[]) AS n(identity, version)
        ON CONFLICT (consumer, identity) DO UPDATE SET version = excluded.version
            WHERE m.version < excluded.version
        RETURNING 1
    ), stored AS (
        UPDATE rowcast_inbox.offset_position AS p
        SET next_offset = n.next_offset, stored_at = now()
        FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[], %(generations)s::bigint[])
            AS n(topic, partition, next_offset, generation)
        WHERE p.consumer = %(consumer)s AND p.topic = n.topic AND p.partition = n.partition
            AND p.generation = n.generation
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM raised), (SELECT count(*) FROM stored)
"""
# Inside a pipeline, PostgreSQL does not count how long a client is idle in its transaction; behind one, not before the
# next statement (psycopg's Flush comes after the Sync that starts the clock, and stops it).
_END_FROZEN = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
        AND application_name = current_setting('application_name')
        AND (
            state LIKE 'idle in transaction%%' AND state_change < clock_timestamp() - %(limit_s)s * interval '1 second'
            OR state = 'active' AND wait_event = 'ClientRead'
                AND query_start < clock_timestamp() - %(limit_s)s * interval '1 second'
        )
"""


@dataclass(frozen=True, slots=True)
class Position:
    """What the database holds of a partition."""

    partition: Partition
    generation: int
    next_offset: int
    topic_id: str | None = None


class Inbox:
    """The rows of one consumer in schema ``rowcast_inbox``, over one connection."""

    def __init__(self, connection: psycopg.Connection, consumer: str) -> None:
        self._connection, self._consumer = connection, consumer

    def migrate(self) -> list[str]:
        """Brings the schema to its newest version; the names of the migrations that ran."""
        return migrate(self._connection, SCHEMA, "rowcast.consumer")

    def claim(self, topic_ids: Mapping[Partition, str | None], instance: str) -> list[Position]:
        """
        Raises the generation of the partitions and returns what they hold; a new one starts at offset 0.

        From its commit on, no batch of an earlier owner can commit.
        """
        partitions = sorted(topic_ids)
        ids = [topic_ids[each] for each in partitions]
        return [_position(row) for row in self._execute(_CLAIM, **_keys(partitions), topic_ids=ids, instance=instance)]

    def former_major(self, topic: str) -> dict[Partition, int]:
        """What was read of the aggregate's major before *topic*, the last one; empty when *topic* itself was begun."""
        rows = self._execute(_FORMER_MAJOR, topic=topic, aggregate=topic.rpartition(".")[0] + ".").fetchall()
        return {Partition(name, number): offset for name, number, offset in rows}

    @contextmanager
    def transaction(self, owned: Sequence[Ownership], identities: Iterable[str] = ()) -> Iterator[dict[str, int]]:
        """
        A transaction that locks the offset rows, then the marks of *identities*; the marks that there are.

        Raises:
            OwnershipLostError: another instance raised a generation, or somebody moved an offset.
        """
        keys = _keys(sorted(each.partition for each in owned))
        with self._connection.transaction():
            rows = self._execute(_LOCK, **keys, identities=sorted(identities)).fetchall()
            lost = changed(owned, [_position(row[:4]) for row in rows if row[0] is not None])
            if lost:
                raise OwnershipLostError(f"{', '.join(map(str, lost))}: generation or offset was changed elsewhere")
            yield {row[4]: row[5] for row in rows if row[0] is None}

    def positions(self, partitions: Iterable[Partition]) -> list[Position]:
        """Locks the offset rows and returns what they hold."""
        return [_position(row) for row in self._execute(_LOCK_POSITIONS, **_keys(sorted(partitions)))]

    def store(
        self, versions: Mapping[str, int], targets: Mapping[Partition, int], owned: Mapping[Partition, Ownership]
    ) -> None:
        """
        Raises the marks to *versions* and moves the locked offsets to *targets*.

        Raises:
            OwnershipLostError: another transaction got as far with a mark in the meantime, or an offset row is gone.
        """
        identities, partitions = sorted(versions), sorted(targets)
        row = self._execute(
            _STORE,
            identities=identities,
            versions=[versions[each] for each in identities],
            **_keys(partitions),
            offsets=[targets[each] for each in partitions],
            generations=[owned[each].generation for each in partitions],
        ).fetchone()
        raised, stored = cast("tuple[int, int]", row)
        if raised != len(identities):
            raise OwnershipLostError("a mark was raised elsewhere")
        if stored != len(partitions):
            raise OwnershipLostError("an offset row is gone")

    def end_frozen(self) -> None:
        """
        Ends the sessions of this consumer whose client has been silent in a transaction for longer than it may be.

        The server does so by itself, except where a handler used a pipeline; they hold the rows to be claimed.
        """
        self._execute(_END_FROZEN, limit_s=IDLE_IN_TRANSACTION_TIMEOUT_S)

    def now_ms(self) -> float:
        """The database's clock, in milliseconds since 1970."""
        row = self._cursor().execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        return float(cast("tuple[Any]", row)[0]) * 1000

    def _execute(self, statement: str, **parameters: object) -> psycopg.Cursor[tuple[Any, ...]]:
        return self._cursor().execute(statement, {"consumer": self._consumer, **parameters})

    def _cursor(self) -> psycopg.Cursor[tuple[Any, ...]]:
        # A handler may have set another row factory on its connection.
        return self._connection.cursor(row_factory=tuple_row)


def _keys(partitions: Sequence[Partition]) -> dict[str, object]:
    return {"topics": [each.topic for each in partitions], "partitions": [each.number for each in partitions]}


def _position(row: tuple[Any, ...]) -> Position:
    return Position(Partition(row[0], row[1]), *row[2:])


def changed(owned: Iterable[Ownership], held: Iterable[Position]) -> list[Partition]:
    """The partitions whose row does not hold what this instance believes."""
    rows = {each.partition: (each.generation, each.next_offset) for each in held}
    return [each.partition for each in owned if rows.get(each.partition) != (each.generation, each.next_offset)]
