from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from consumer_fixture import new_database, wait_until
from psycopg import sql

from rowcast.consumer.inbox import Inbox
from rowcast.consumer.partitions import Ownership, Partition
from rowcast.database import connect
from rowcast.errors import OwnershipLostError

FIRST, SECOND = Partition("t.item.v1", 0), Partition("t.item.v1", 1)


@pytest.fixture
def url(stack: Any) -> Iterator[str]:
    with new_database(stack.settings) as url:
        yield url


class Session:
    """One instance's connection."""

    def __init__(self, url: str, consumer: str = "orders") -> None:
        self.connection: psycopg.Connection = connect(url, application="test", autocommit=True)
        self.inbox = Inbox(self.connection, consumer)
        self.inbox.migrate()
        self.owned: dict[Partition, Ownership] = {}

    def claim(self, *partitions: Partition) -> None:
        """Claims as after an assignment."""
        with self.connection.transaction():
            positions = self.inbox.claim(dict.fromkeys(partitions), "test")
        for each in positions:
            self.owned[each.partition] = Ownership(each.partition, each.generation, each.next_offset, each.next_offset)

    def batch(self, targets: dict[Partition, int], versions: dict[str, int] | None = None) -> None:
        """Stores offsets and marks as a batch does."""
        with self.inbox.transaction([self.owned[each] for each in targets], versions or {}):
            self.inbox.store(versions or {}, targets, self.owned)
        for partition, target in targets.items():
            self.owned[partition].moved(target)

    def marks(self, *identities: str) -> dict[str, int]:
        """What the marks hold."""
        with self.inbox.transaction([], identities) as marks:
            return marks


@pytest.fixture
def sessions(url: str) -> Iterator[tuple[Session, Session]]:
    first, second = Session(url), Session(url)
    yield first, second
    first.connection.close()
    second.connection.close()


def test_migrations_run_once(url: str) -> None:
    """A second start changes nothing, also as a role that may not create schemas."""
    with connect(url, application="test", autocommit=True) as connection:
        assert Inbox(connection, "orders").migrate() == ["0001_inbox.sql"]
        assert Inbox(connection, "orders").migrate() == []
        name = f"role_{connection.info.dbname}"
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        try:
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA rowcast_inbox TO {}").format(sql.Identifier(name)))
            grant = sql.SQL("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA rowcast_inbox TO {}")
            connection.execute(grant.format(sql.Identifier(name)))
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
            assert Inbox(connection, "orders").migrate() == []
        finally:
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_a_claim_starts_at_zero_and_raises_the_generation(sessions: tuple[Session, Session]) -> None:
    """A new partition starts at offset 0 in generation 1; every claim adds one and keeps the offset."""
    first, second = sessions
    first.claim(SECOND, FIRST)
    assert {(each.generation, each.next_offset) for each in first.owned.values()} == {(1, 0)}
    first.batch({FIRST: 7})
    second.claim(FIRST)
    assert (second.owned[FIRST].generation, second.owned[FIRST].next_offset) == (2, 7)


@pytest.mark.guarantee("Effects exactly once")
def test_a_zombie_changes_nothing(sessions: tuple[Session, Session]) -> None:
    """After another instance's claim, the former owner's batch is refused and rolled back as a whole."""
    first, second = sessions
    first.claim(FIRST, SECOND)
    second.claim(SECOND)
    with pytest.raises(OwnershipLostError, match=r"t\.item\.v1\[1\]"):
        first.batch({FIRST: 5, SECOND: 5}, {"shop/item/a": 1})
    assert first.marks("shop/item/a") == {}
    second.batch({SECOND: 3}, {"shop/item/a": 1})
    second.claim(FIRST)
    assert second.owned[FIRST].next_offset == 0


@pytest.mark.guarantee("Effects exactly once")
def test_a_moved_offset_is_noticed(sessions: tuple[Session, Session]) -> None:
    """Somebody who rewinds the offset, or deletes the row, makes the owner's next batch fail."""
    first, _ = sessions
    first.claim(FIRST)
    first.batch({FIRST: 5})
    first.connection.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 2")
    with pytest.raises(OwnershipLostError):
        first.batch({FIRST: 6})
    first.connection.execute("DELETE FROM rowcast_inbox.offset_position")
    with pytest.raises(OwnershipLostError):
        first.batch({FIRST: 6})


@pytest.mark.guarantee("Effects exactly once")
def test_a_claim_waits_for_the_batch_under_way(sessions: tuple[Session, Session]) -> None:
    """While a batch holds its offset rows, no claim can pass it; the claim then sees what it stored."""
    first, second = sessions
    first.claim(FIRST)
    second.connection.execute("SET lock_timeout = '100ms'")
    with first.inbox.transaction([first.owned[FIRST]]):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.claim(FIRST)
        first.inbox.store({}, {FIRST: 9}, first.owned)
    second.claim(FIRST)
    assert second.owned[FIRST].next_offset == 9


def test_marks_are_per_consumer_and_rise(url: str, sessions: tuple[Session, Session]) -> None:
    """Marks of one consumer say nothing about another; a mark that was raised elsewhere is not lowered."""
    first, _ = sessions
    other = Session(url, "billing")
    first.inbox.store({"shop/item/a": 3, "shop/item/b": 1}, {}, {})
    assert first.marks("shop/item/a", "shop/item/b", "shop/item/c") == {"shop/item/a": 3, "shop/item/b": 1}
    assert other.marks("shop/item/a") == {}
    with pytest.raises(OwnershipLostError):
        first.inbox.store({"shop/item/a": 2, "shop/item/b": 2}, {}, {})
    other.connection.close()


def test_reading_marks_uses_the_primary_key_whatever_the_statistics_say(sessions: tuple[Session, Session]) -> None:
    """Marks are looked up one by one through the index, also right after the table has grown without ANALYZE."""
    first, _ = sessions
    connection = first.connection
    connection.execute("ALTER TABLE rowcast_inbox.mark SET (autovacuum_enabled = false)")
    connection.execute("ANALYZE rowcast_inbox.mark")
    connection.execute(
        "INSERT INTO rowcast_inbox.mark SELECT 'orders', 'shop/item/' || n, 1 FROM generate_series(1, 50000) AS n"
    )
    identities = [f"shop/item/{number}" for number in range(1, 50000, 100)]
    assert len(first.marks(*identities)) == 500
    connection.execute("SELECT pg_stat_clear_snapshot(), pg_stat_force_next_flush()")
    row = connection.execute("SELECT seq_tup_read, idx_scan FROM pg_stat_user_tables WHERE relname = 'mark'").fetchone()
    assert row is not None
    assert row[0] < 50_000
    assert row[1] >= 500


def silent_for_longer_than_allowed(watcher: psycopg.Connection, sessions: Sequence[psycopg.Connection]) -> bool:
    """
    Whether the server has been waiting for all of these clients for more than 5 s.

    It may have ended some: a limit counts where the end of a pipeline came by itself.
    """
    row = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
        " AND greatest(state_change, query_start) >= clock_timestamp() - interval '5.1 s'",
        ([each.info.backend_pid for each in sessions],),
    ).fetchone()
    return row == (0,)


def backends(watcher: psycopg.Connection) -> set[int]:
    """The sessions in the database of *watcher*."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    return {pid for (pid,) in watcher.execute(query)}


@pytest.mark.guarantee("Any instance may die")
def test_sessions_that_are_silent_in_a_pipeline_or_behind_one_are_ended(url: str) -> None:
    """The server may let them be; whoever claims does not. Other consumers, and sessions at work, are left alone."""

    def session(consumer: str) -> psycopg.Connection:
        return connect(url, application=f"rowcast consumer {consumer}", autocommit=True)

    inside, behind, other, working, mine = (session(name) for name in ("a", "a", "b", "a", "a"))
    with ExitStack() as stack:
        stack.callback(mine.close)
        for each in (inside, behind, other):
            stack.callback(each.close)
            each.execute("BEGIN")
            pipeline = each.pipeline()
            pipeline.__enter__()
            each.execute("SELECT 1")
            if each is inside:
                # It reaches the server, and no end of the pipeline follows: that would start the server's own limit.
                each.pgconn.send_flush_request()
                while each.pgconn.flush():
                    pass
            else:
                pipeline.__exit__(None, None, None)
        wait_until(lambda: silent_for_longer_than_allowed(mine, [inside, behind, other]))
        before = backends(mine)
        with working.transaction():
            working.execute("SELECT 1")
            Inbox(mine, "a").end_frozen()
            assert working.execute("SELECT 2").fetchone() == (2,)
        kept = {each.info.backend_pid for each in (other, working, mine)} & before
        ended_late = {other.info.backend_pid}  # the server's own limit may have come in between
        # A session that is told to end takes a moment.
        wait_until(lambda: backends(mine) | ended_late == kept | ended_late)
        working.close()
