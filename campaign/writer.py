"""
One client of the source: random transactions, each noted in the journal before it is committed.

What a statement did to the rows is what its RETURNING says, so the journal needs no model of concurrent writers:
row locks order the changes of a row as their transactions commit.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from campaign.journal import ABORTED, COMMITTED, Attempt, Journal
from campaign.known_keys import KnownKeys
from campaign.random_schema import Row, Type
from campaign.rows import RowChange, as_row, key_of, shown_columns
from rowcast.annotation import annotate

_SETTINGS = "-c lock_timeout=4s -c deadlock_timeout=100ms"
_DIAL_S = 0.2
_KINDS = {"small": 50, "hot": 16, "bulk": 9, "copy": 6, "family": 8, "empty": 2, "truncate": 0.4}
_BULK_ROWS = 60
_LONG_S = (0.3, 1.0)
_SAVEPOINT = 0.15
_ROLLED_BACK = 0.08
_PREPARED = 0.1
_ANNOTATED = 0.4
HIDDEN = "hidden"
HIDER = 99


class Writer:
    """Client *number*, which commits random transactions; the one with number 0 takes its time in each."""

    def __init__(self, number: int, url: str, keys: KnownKeys, journal: Journal, rng: random.Random) -> None:
        self._number, self._url = number, url
        self._keys, self._journal, self._rng = keys, journal, rng
        self._types = list(keys.types.values())
        self._open: Attempt | None = None
        self._committing = False
        self._gid: str | None = None
        self._prepared = False

    @property
    def unsettled(self) -> bool:
        """Whether the outcome of its last transaction is not known."""
        return self._open is not None

    def connect(self) -> psycopg.Connection[Any]:
        """A connection, on which nothing of this client is unsettled any more."""
        connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5, options=_SETTINGS)
        self._settle(connection)
        return connection

    def commit_one(self, connection: psycopg.Connection[Any], ending: threading.Event) -> bool:
        """
        One transaction; whether it was committed.

        Errors of its statements, deadlocks among them, roll it back and are no errors here.

        Raises:
            psycopg.OperationalError: the connection is lost; `connect` finds out what became of the transaction.

        """
        attempt = self._open = self._journal.begin(self._number, self._kind())
        self._committing, self._gid, self._prepared = False, None, False
        try:
            connection.execute("BEGIN")
            row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
            assert row is not None, "SELECT without FROM gives one row"
            attempt.xid = int(row[0])
            first = self._rng.random() < 0.5
            annotated = attempt.kind != HIDDEN and self._rng.random() < _ANNOTATED
            if annotated and first:
                self._annotate(connection, attempt)
            self.work(connection, attempt, ending)
            if annotated and not first:
                self._annotate(connection, attempt)
            self.end(connection, attempt)
        except psycopg.Error as error:
            if connection.closed or connection.broken or error.sqlstate is None:
                connection.close()
                raise psycopg.OperationalError(str(error)) from error
            if self._prepared:
                connection.close()
                raise psycopg.OperationalError(str(error)) from error
            connection.execute("ROLLBACK")
            self._done(attempt, ABORTED)
        return attempt.outcome == COMMITTED

    def _kind(self) -> str:
        return self._rng.choices(list(_KINDS), list(_KINDS.values()))[0]

    def _annotate(self, connection: psycopg.Connection[Any], attempt: Attempt) -> None:
        attempt.context = {"actor": f"client {self._number}", "reason": str(attempt.xid)}
        annotate(connection, **attempt.context)

    def _done(self, attempt: Attempt, outcome: str, *, resolved: bool = False) -> None:
        if outcome == COMMITTED and attempt.kind != HIDDEN:
            self._keys.note(attempt.changes)
        self._journal.settle(attempt, outcome, resolved=resolved)
        self._open = None

    def _settle(self, connection: psycopg.Connection[Any]) -> None:
        """Find out what became of the transaction that lost its connection."""
        attempt = self._open
        if attempt is None:
            return
        if not self._committing:
            self._done(attempt, ABORTED)
            return
        if self._gid is not None:
            found = connection.execute("SELECT 1 FROM pg_prepared_xacts WHERE gid = %s", (self._gid,)).fetchone()
            if found:
                connection.execute(f"COMMIT PREPARED '{self._gid}'".encode())
        while True:
            row = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (str(attempt.xid),)).fetchone()
            status = None if row is None else row[0]
            if status in (COMMITTED, ABORTED):
                self._done(attempt, status, resolved=True)
                return
            threading.Event().wait(_DIAL_S)  # its backend has not noticed yet that the client is gone

    def end(self, connection: psycopg.Connection[Any], attempt: Attempt) -> None:
        """Commit, mostly."""
        chance = self._rng.random()
        if chance < _ROLLED_BACK:
            connection.execute("ROLLBACK")
            self._done(attempt, ABORTED)
            return
        self._journal.about_to_commit(attempt)
        if chance > 1 - _PREPARED:
            self._end_prepared(connection, attempt)
            return
        self.commit(connection, attempt)

    def commit(self, connection: psycopg.Connection[Any], attempt: Attempt) -> None:
        """Commit what is in the journal."""
        self._committing = True
        connection.execute("COMMIT")
        self._done(attempt, COMMITTED)

    def _end_prepared(self, connection: psycopg.Connection[Any], attempt: Attempt) -> None:
        gid = f"campaign-{uuid.UUID(int=self._rng.getrandbits(128))}"
        self._gid, self._committing = gid, True
        connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
        self._prepared = True
        if self._rng.random() < 0.3:
            connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())
            self._done(attempt, ABORTED)
        else:
            connection.execute(f"COMMIT PREPARED '{gid}'".encode())
            self._done(attempt, COMMITTED)

    def work(self, connection: psycopg.Connection[Any], attempt: Attempt, ending: threading.Event) -> None:
        """The statements of one transaction."""
        rng, steps = self._rng, Steps(connection, attempt.changes, self._keys, self._rng)
        made = rng.choice(self._types)
        if attempt.kind == "bulk":
            steps.update_many(made, rng.randint(10, _BULK_ROWS))
        elif attempt.kind == "copy":
            steps.copy(made, rng.randint(10, _BULK_ROWS))
        elif attempt.kind == "family":
            steps.family(made)
        elif attempt.kind == "truncate":
            steps.truncate(made)
        elif attempt.kind != "empty":
            for _ in range(rng.randint(1, 6)):
                with _savepoint(steps, kept=rng.random() > _SAVEPOINT):
                    steps.any(rng.choice(self._types), hot=attempt.kind == "hot")
                if self._number == 0:
                    ending.wait(rng.uniform(*_LONG_S))


@contextmanager
def _savepoint(steps: Steps, *, kept: bool) -> Iterator[None]:
    """What is done inside is taken back unless it is *kept*."""
    if kept:
        yield
        return
    count = len(steps.changes)
    steps.connection.execute("SAVEPOINT campaign")
    yield
    steps.connection.execute("ROLLBACK TO SAVEPOINT campaign")
    del steps.changes[count:]


class Steps:
    """The statements of one transaction; what they do is added to *changes*."""

    def __init__(
        self, connection: psycopg.Connection[Any], changes: list[RowChange], keys: KnownKeys, rng: random.Random
    ) -> None:
        self.connection, self.changes, self._keys, self._rng = connection, changes, keys, rng

    def any(self, made: Type, *, hot: bool) -> None:
        """One small change."""
        rng = self._rng
        found = [self._keys.hot(rng, made.name)] if hot else self._keys.sample(rng, made.name, 1)
        if not found or found[0] is None or (not hot and rng.random() < 0.35):
            self.upsert(made, self._keys.row(rng, made, fresh=rng.random() < 0.7))
            return
        key, row = found[0], self._keys.row(rng, made, fresh=False)
        kind = rng.choice(["some"] * 4 + ["same", "delete", "again", "key", "move"])
        if hot and kind in ("delete", "key"):
            kind = "some"
        if kind in ("delete", "again"):
            self.delete(made, key)
            if kind == "again":
                self.upsert(made, {**row, **dict(zip(made.key, key, strict=True))})
        elif kind == "key":
            self._move_key(made, key, self._keys.row(rng, made, fresh=True))
        elif kind == "same":
            self.update(made, [key], {}, f"{made.key[0]} = {made.key[0]}")
        elif kind == "move" and made.link:
            self.update(made, [key], {name: row[name] for name in made.link})
        else:
            names = [name for name in made.columns if name not in made.key and name not in made.link]
            self.update(made, [key], {name: row[name] for name in rng.sample(names, rng.randint(1, len(names)))})

    def update_many(self, made: Type, count: int) -> None:
        """One statement that changes many rows."""
        row = self._keys.row(self._rng, made, fresh=False)
        names = [name for name in made.columns if name not in made.key and name not in made.link]
        keys = self._keys.sample(self._rng, made.name, count)
        if keys:
            self.update(made, keys, {name: row[name] for name in self._rng.sample(names, 1)})

    def copy(self, made: Type, count: int) -> None:
        """COPY of many new rows."""
        rows = [self._keys.row(self._rng, made, fresh=True) for _ in range(count)]
        with (
            self.connection.cursor() as cursor,
            cursor.copy(f"COPY {made.name} ({', '.join(made.columns)}) FROM STDIN".encode()) as copy,
        ):
            for row in rows:
                copy.write_row([row[name] for name in made.columns])
        self.changes += [RowChange(made.name, None, row) for row in rows]

    def family(self, made: Type) -> None:
        """A chain of new rows from *made* up, children first: foreign keys are checked at COMMIT."""
        rows: list[tuple[Type, Row]] = []
        below: Type | None = made
        while below is not None:
            row = self._keys.row(self._rng, below, fresh=True)
            if rows:
                child, child_row = rows[-1]
                child_row.update(zip(child.link, key_of(below, row), strict=True))
            rows.append((below, row))
            below = below.parent if below.link else None
        for each, row in rows:
            self.upsert(each, row)

    def truncate(self, made: Type) -> None:
        """TRUNCATE, where neither a foreign key nor a hidden row forbids it."""
        if self._keys.hidden[made.name] or not self._keys.truncated:
            return
        if any(each.parent is made and each.name in self._keys.constrained for each in self._keys.types.values()):
            return
        self.connection.execute(f"LOCK TABLE {made.name} IN ACCESS EXCLUSIVE MODE".encode())
        keys = self.connection.execute(f"SELECT {', '.join(made.key)} FROM {made.name}".encode()).fetchall()
        self.connection.execute(f"TRUNCATE {made.name}".encode())
        self.changes += [RowChange(made.name, tuple(key), None) for key in keys]

    def upsert(self, made: Type, row: Row) -> None:
        """Insert *row*, or put it over the one with its key."""
        columns = ", ".join(made.columns)
        sets = ", ".join(f"{name} = excluded.{name}" for name in made.columns if name not in made.key)
        query = (
            f"INSERT INTO {made.name} ({columns}) VALUES ({', '.join(['%s'] * len(row))})"
            f" ON CONFLICT ({', '.join(made.key)}) DO UPDATE SET {sets} RETURNING {shown_columns(made)}"
        )
        self._returning(made, query, [row[name] for name in made.columns])

    def update(self, made: Type, keys: Sequence[tuple[Any, ...]], values: Row, sets: str = "") -> None:
        """Set *values*, or what *sets* says, in the rows with these keys."""
        sets = sets or ", ".join(f"{name} = %s" for name in values)
        each = "(" + ", ".join(["%s"] * len(made.key)) + ")"
        query = (
            f"UPDATE {made.name} SET {sets} WHERE ({', '.join(made.key)}) IN ({', '.join([each] * len(keys))})"
            f" RETURNING {shown_columns(made)}"
        )
        self._returning(made, query, [*values.values(), *(part for key in keys for part in key)])

    def _move_key(self, made: Type, key: tuple[Any, ...], row: Row) -> None:
        sets = ", ".join(f"{name} = %s" for name in made.key)
        where = " AND ".join(f"{name} = %s" for name in made.key)
        query = f"UPDATE {made.name} SET {sets} WHERE {where} RETURNING {shown_columns(made)}"
        for values in self.connection.execute(query.encode(), [*key_of(made, row), *key]).fetchall():
            self.changes.append(RowChange(made.name, key, as_row(made, values)))

    def delete(self, made: Type, key: tuple[Any, ...]) -> None:
        """Delete the row with this key, if it is there."""
        where = " AND ".join(f"{name} = %s" for name in made.key)
        if self.connection.execute(f"DELETE FROM {made.name} WHERE {where}".encode(), key).rowcount:
            self.changes.append(RowChange(made.name, key, None))

    def _returning(self, made: Type, query: str, parameters: Sequence[Any]) -> None:
        for values in self.connection.execute(query.encode(), parameters).fetchall():
            self.changes.append(RowChange(made.name, None, as_row(made, values)))
