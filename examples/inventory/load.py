"""
The live load: an open loop of transactions at a fixed rate, whatever the database or the pipeline do.

Transaction k is due at start + k / rate. Whichever client is free takes the next one, so that a slow COMMIT
holds back nobody else's schedule. The kind of each transaction is a function of seed and k alone.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass
from random import Random
from uuid import UUID

import psycopg

from examples.inventory import vocabulary
from examples.inventory.forest import Forest
from examples.inventory.ledger import CommittedTransaction, Ledger
from examples.inventory.published import Key, State
from examples.inventory.transactions import KINDS, Numbers, Work

ROLLED_BACK_SHARE = 0.1
CONTEXT_SHARE = 0.3
SHARED_INSTANCES = 3
_CONTEXT_PREFIX = "rowcast.context"


class LoadError(Exception):
    """The load broke off; what was committed is no longer known for certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """*rate* transactions a second for *seconds*, from *clients* connections, drawn by *seed*."""

    rate: float
    seconds: float
    seed: int
    clients: int = 8

    @property
    def total(self) -> int:
        """How many transactions are due in all."""
        return int(self.rate * self.seconds)

    def draw(self, number: int) -> Random:
        """The generator of transaction *number*; the same for the same seed."""
        return Random(self.seed * 1_000_003 + number)


class LiveLoad:
    """
    Drives *plan* against the database at *url* from threads of this process and notes it in *ledger*.

    *initial* are the published states at the start; nobody else may write to the inventory meanwhile.
    """

    def __init__(self, url: str, plan: LoadPlan, ledger: Ledger, initial: dict[Key, State]) -> None:
        self._url, self._plan, self._ledger = url, plan, ledger
        self._due = itertools.count()
        self._stop = threading.Event()
        self._errors: list[Exception] = []
        shared, self._forests = _share_out(initial, plan.clients)
        self._shared = tuple(shared)
        self._threads = [
            threading.Thread(target=self._run, args=(forest,), name=f"client-{place}", daemon=True)
            for place, forest in enumerate(self._forests)
        ]
        self.elapsed_s = 0.0
        self._last_end = 0.0
        self._started = 0.0
        self._numbers: Numbers | None = None
        self._connections: list[psycopg.Connection] = []

    def start(self) -> None:
        """Open all connections, then start the schedule."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._numbers = Numbers.after_existing(connection)
        self._connections = [psycopg.connect(self._url, application_name="inventory") for _ in self._threads]
        self._started = time.monotonic() + 0.05
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float) -> bool:
        """
        Wait up to *timeout_s* seconds and say whether the load is over.

        Raises:
            LoadError: a client failed.

        """
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._errors:
            self.stop()
            raise LoadError(f"a client of the live load failed: {self._errors[0]}") from self._errors[0]
        if any(thread.is_alive() for thread in self._threads):
            return False
        self.elapsed_s = max(self._last_end - self._started, self._plan.total / self._plan.rate)
        return True

    def stop(self) -> None:
        """Take no further transaction and wait for those that are under way."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(10)

    @property
    def rate_reached(self) -> float:
        """Transactions a second that were finished, committed or rolled back, once the load is over."""
        finished = self._ledger.committed_count + self._ledger.rolled_back
        return finished / self.elapsed_s if self.elapsed_s else 0.0

    def _run(self, forest: Forest) -> None:
        try:
            with self._connections[self._threads.index(threading.current_thread())] as connection:
                while not self._stop.is_set() and (number := next(self._due)) < self._plan.total:
                    if self._stop.wait(max(0.0, self._started + number / self._plan.rate - time.monotonic())):
                        return
                    self._transact(connection, forest, self._plan.draw(number))
                    self._last_end = max(self._last_end, time.monotonic())
        except Exception as error:  # noqa: BLE001 (handed to the thread that waits)
            self._errors.append(error)
            self._stop.set()

    def _transact(self, connection: psycopg.Connection, forest: Forest, rng: Random) -> None:
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        rolled_back = rng.random() < ROLLED_BACK_SHARE
        if self._numbers is None:
            raise LoadError("the load was not started")
        work = Work(connection=connection, rng=rng, forest=forest, shared=self._shared, numbers=self._numbers)
        kind(work)
        context = vocabulary.context(rng) if work.changes and rng.random() < CONTEXT_SHARE else None
        if context is not None:
            _attach(connection, context)
        if rolled_back or not work.changes:
            connection.rollback()
            self._ledger.record_rollback()
            return
        entry = self._commit(work, kind.__name__, context)
        self._ledger.record(entry)
        forest.follow({key: state for key, state in entry.states.items() if not self._is_shared(key)})

    def _commit(self, work: Work, kind: str, context: dict[str, str] | None) -> CommittedTransaction:
        states = work.read_back()
        row = work.connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        ticket = self._ledger.draw_ticket()
        work.connection.commit()
        committed_at = time.time()
        return CommittedTransaction(
            ticket=ticket,
            kind=kind,
            xid=str(row[0]) if row else "",
            committed_at=committed_at,
            changes=work.changes,
            context=context,
            states=states,
        )

    def _is_shared(self, key: Key) -> bool:
        return key.aggregate == "instance" and UUID(key.id_text) in self._shared


def _attach(connection: psycopg.Connection, context: dict[str, str]) -> None:
    connection.execute(
        "SELECT pg_logical_emit_message(true, %s, jsonb_build_object('actor', %s::text, 'reason', %s::text)::text)",
        (_CONTEXT_PREFIX, context["actor"], context["reason"]),
    )


def _share_out(initial: dict[Key, State], clients: int) -> tuple[list[UUID], list[Forest]]:
    """The instances that all clients share, and for each client the trees that it alone owns."""
    instances = sorted(key.id_text for key, state in initial.items() if key.aggregate == "instance" and state.after)
    shared = set(instances[:SHARED_INSTANCES])
    owner = {text: place % clients for place, text in enumerate(instances) if text not in shared}
    parts: list[dict[Key, State]] = [{} for _ in range(clients)]
    for key, state in initial.items():
        instance = key.id_text if key.aggregate == "instance" else state.ancestors["instance"][0]
        if instance not in shared:
            parts[owner[instance]][key] = state
    forests = [Forest() for _ in range(clients)]
    for forest, states in zip(forests, parts, strict=True):
        forest.follow(states)
    return [UUID(text) for text in sorted(shared)], forests
