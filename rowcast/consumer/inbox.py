"""
The inbox in the consumer's database: marks and offsets, read and written in the transaction of the effects.

Every method runs in the caller's transaction. Rows are locked in one order, offsets before marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg.rows import tuple_row

from rowcast.consumer.partitions import Ownership, Partition
from rowcast.database import migrate
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
_LOCK_MARKS = """
    SELECT n.identity, m.version
    FROM unnest(%(identities)s::text[]) AS n(identity)
    CROSS JOIN LATERAL (
        SELECT version FROM rowcast_inbox.mark
        WHERE consumer = %(consumer)s AND identity = n.identity
        FOR UPDATE
    ) AS m
"""
_RAISE_MARKS = """
    INSERT INTO rowcast_inbox.mark AS m (consumer, identity, version)
    SELECT %(consumer)s, identity, version
    FROM unnest(%(identities)s::text[], %(versions)s::bigint[]) AS n(identity, version)
    ON CONFLICT (consumer, identity) DO UPDATE SET version = excluded.version
        WHERE m.version < excluded.version
"""
_STORE_POSITIONS = """
    UPDATE rowcast_inbox.offset_position AS p
    SET next_offset = n.next_offset, stored_at = now()
    FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[], %(generations)s::bigint[])
        AS n(topic, partition, next_offset, generation)
    WHERE p.consumer = %(consumer)s AND p.topic = n.topic AND p.partition = n.partition
        AND p.generation = n.generation
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
        rows = self._all(_CLAIM, partitions, topic_ids=ids, instance=instance)
        return [Position(Partition(row[0], row[1]), row[2], row[3], row[4]) for row in rows]

    def lock_positions(self, owned: Sequence[Ownership]) -> None:
        """
        Locks the offset rows and compares them with what this instance believes.

        Raises:
            OwnershipLostError: another instance raised a generation, or somebody moved an offset.
        """
        lost = changed(owned, self.positions([each.partition for each in owned]))
        if lost:
            raise OwnershipLostError(f"{', '.join(map(str, lost))}: generation or offset was changed elsewhere")

    def positions(self, partitions: Iterable[Partition]) -> list[Position]:
        """Locks the offset rows and returns what they hold."""
        rows = self._all(_LOCK_POSITIONS, sorted(partitions))
        return [Position(Partition(row[0], row[1]), row[2], row[3]) for row in rows]

    def lock_marks(self, identities: Iterable[str]) -> dict[str, int]:
        """Locks the marks of *identities* and returns them; an aggregate without one is not in the answer."""
        parameters = {"consumer": self._consumer, "identities": sorted(identities)}
        return dict(self._cursor().execute(_LOCK_MARKS, parameters).fetchall())

    def raise_marks(self, versions: Mapping[str, int]) -> None:
        """
        Sets the marks to *versions*.

        Raises:
            OwnershipLostError: another transaction got as far with one of them in the meantime.
        """
        if not versions:
            return
        identities = sorted(versions)
        parameters = {
            "consumer": self._consumer,
            "identities": identities,
            "versions": [versions[each] for each in identities],
        }
        if self._cursor().execute(_RAISE_MARKS, parameters).rowcount != len(versions):
            raise OwnershipLostError("a mark was raised elsewhere")

    def store_positions(self, targets: Mapping[Partition, int], owned: Mapping[Partition, Ownership]) -> None:
        """
        Moves the locked offsets to *targets*.

        Raises:
            OwnershipLostError: a row is gone.
        """
        partitions = sorted(targets)
        parameters = {
            **self._keys(partitions),
            "offsets": [targets[each] for each in partitions],
            "generations": [owned[each].generation for each in partitions],
        }
        if self._cursor().execute(_STORE_POSITIONS, parameters).rowcount != len(targets):
            raise OwnershipLostError("an offset row is gone")

    def now_ms(self) -> float:
        """The database's clock, in milliseconds since 1970."""
        row = self._cursor().execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
        return float(cast("tuple[Any]", row)[0]) * 1000

    def _keys(self, partitions: Sequence[Partition]) -> dict[str, object]:
        return {
            "consumer": self._consumer,
            "topics": [each.topic for each in partitions],
            "partitions": [each.number for each in partitions],
        }

    def _all(self, statement: str, partitions: Sequence[Partition], **more: object) -> list[tuple[Any, ...]]:
        return self._cursor().execute(statement, {**self._keys(partitions), **more}).fetchall()

    def _cursor(self) -> psycopg.Cursor[tuple[Any, ...]]:
        # A handler may have set another row factory on its connection.
        return self._connection.cursor(row_factory=tuple_row)


def changed(owned: Iterable[Ownership], held: Iterable[Position]) -> list[Partition]:
    """The partitions whose row does not hold what this instance believes."""
    rows = {each.partition: (each.generation, each.next_offset) for each in held}
    return [each.partition for each in owned if rows.get(each.partition) != (each.generation, each.next_offset)]
