"""
The verdict on a run with faults: nothing lost, nothing twice, in order, nothing too old.

It compares what the generator committed, the source's tables, a fresh reader of the topics and the consumer's effects,
and never reads a mark, a position or a counter of the pipeline.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from dataclasses import dataclass, field

import orjson
import psycopg
import pytest
from consumer_fixture import Service
from stack_fixture import TestProject, wait_until
from worker_fixture import commit_random, histories, read_events, wait_agreement

FRESH_S = 300
# Recovery is promised within 30 s of a part being back. Where processes of tests share the cores, each with a stack of
# its own, servers alone may need that long to start; that no event gets older than `FRESH_S` holds there all the same.
SHARED_S = 45 if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1 else 0
BACK_S = 30 + SHARED_S
_MARKS = 20  # enough that every partition has one
_DIAL_S = 0.5
_ON_THEIR_WAY = 2_000


@dataclass(frozen=True, slots=True)
class Mark:
    """The generator's note in an item's barcode: the *number* of its transaction, and when COMMIT had returned."""

    number: int
    committed_at: float


@dataclass
class Journal:
    """What the generator committed: for each item its marks in the order of the commits, and all *numbers*."""

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)

    def note(self, item: str, number: int) -> None:
        """The transaction of *number* is committed and left its mark in *item*."""
        self.marks.setdefault(item, []).append(Mark(number, time.time()))
        self.numbers.append(number)


class MarkedLoad(threading.Thread):
    """
    Random committed work on the source, from *seed*, until `finish`; each transaction leaves its mark in an item.

    A source that is away is waited for; whether a COMMIT without an answer happened is read from the source itself.
    """

    def __init__(self, project: TestProject, seed: int, rate: float = 20.0) -> None:
        super().__init__(name="load", daemon=True)
        self.journal = Journal()
        self._project = project
        self._url = project.settings.database(project.name).url
        self._rng = random.Random(seed)
        self._pause_s = 1.0 / rate
        self._ending = threading.Event()
        self._numbers = itertools.count(1)
        self._open: tuple[str, int] | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Commit one transaction after the other."""
        try:
            while not self._ending.is_set():
                try:
                    with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
                        self._settle(connection)
                        self._work(connection)
                except psycopg.OperationalError:
                    self._ending.wait(_DIAL_S)
        # Raised where the test waits for the load.
        except Exception as error:  # noqa: BLE001
            self.error = error

    def end(self) -> None:
        """End the load, whatever became of it."""
        self._ending.set()
        self.join(30)

    def finish(self) -> Journal:
        """End the load; fails when it broke."""
        self.end()
        assert self.error is None, self.error
        assert self._open is None, "the outcome of the last transaction is not known"
        return self.journal

    def published_marks(self) -> set[int]:
        """The marks in the topics, for whoever has to explain why effects do not come."""
        barcodes = [(event.after or {}).get("barcode") for event in read_events(self._project)]
        return {int(str(barcode)) for barcode in barcodes if barcode is not None}

    def _work(self, connection: psycopg.Connection) -> None:
        while not self._ending.is_set():
            with connection.transaction():
                commit_random(connection, self._rng)
                self._leave_mark(connection)
            if self._open is not None:
                self.journal.note(*self._open)
                self._open = None
            # Paces the load; nothing waits for it.
            self._ending.wait(self._pause_s)

    def _leave_mark(self, connection: psycopg.Connection) -> None:
        number = next(self._numbers)
        row = connection.execute(
            "UPDATE item SET barcode = %s WHERE id = (SELECT id FROM item ORDER BY md5(id::text || %s) LIMIT 1)"
            " RETURNING id::text",
            (str(number), str(number)),
        ).fetchone()
        self._open = None if row is None else (row[0], number)

    def _settle(self, connection: psycopg.Connection) -> None:
        """Find out whether the transaction that lost its connection was committed; nobody else writes."""
        if self._open is None:
            return
        if connection.execute("SELECT 1 FROM item WHERE barcode = %s", (str(self._open[1]),)).fetchone():
            self.journal.note(*self._open)
        self._open = None


def wait_flowing(load: MarkedLoad, service: Service, what: str, within_s: float = BACK_S) -> float:
    """
    Wait until everything committed in the next moment has its effect; the seconds that it took.

    *load* has to run, and goes on.
    """
    started_s, since, before = time.monotonic(), len(load.journal.numbers), newest_effect(service)
    wait_until(lambda: len(load.journal.numbers) >= since + _MARKS, f"the load goes on: {what}", within_s)
    wanted = set(load.journal.numbers[since : since + _MARKS])
    try:
        wait_until(lambda: not wanted - applied_marks(service, before), f"effects go on: {what}", within_s)
    except pytest.fail.Exception as error:
        missing = wanted - applied_marks(service, before)
        pytest.fail(f"{error}; of {sorted(missing)}, not published either: {sorted(missing - load.published_marks())}")
    took_s = time.monotonic() - started_s
    print(f"{what}: everything flows after {took_s:.1f} s")
    return took_s


def newest_effect(service: Service) -> int:
    """The number of the newest effect."""
    return int(str(service.execute("SELECT coalesce(max(seq), 0) FROM effect")[0][0]))


def applied_marks(service: Service, after: int) -> set[int]:
    """The marks of the effects behind number *after*."""
    rows = service.execute(
        "SELECT DISTINCT (payload::json ->> 'barcode')::int FROM effect WHERE payload <> 'null' AND seq > %s",
        # Some with a lower number may have been on their way.
        (after - _ON_THEIR_WAY,),
    )
    return {int(str(row[0])) for row in rows if row[0] is not None}


def pass_verdict(project: TestProject, service: Service, load: MarkedLoad, within_s: float = 60) -> float:
    """
    End *load* and judge the run; the age in seconds of the oldest event when it was applied.

    Fails when an event is missing, has an effect twice, comes out of order, or was older than `FRESH_S`.
    """
    journal = load.finish()
    assert len(journal.numbers) > 50, "nothing was tested"
    wait_agreement(project, within_s)
    published = {
        events[0].identity.id_text: [event.version for event in events]
        for events in histories(project).values()
        if events[0].identity.aggregate == "item"
    }
    count = sum(map(len, published.values()))
    wait_until(lambda: service.effect_count() >= count, f"{count} effects", within_s)
    effects = _effects(service)
    assert {item: [each[0] for each in found] for item, found in effects.items()} == published
    seen = {item: [each[1:] for each in found if each[1] is not None] for item, found in effects.items()}
    ages = []
    for item, marks in journal.marks.items():
        firsts = [next(group) for _, group in itertools.groupby(seen[item], lambda each: each[0])]
        assert [number for number, _ in firsts] == [mark.number for mark in marks], item
        ages += [applied_at - mark.committed_at for (_, applied_at), mark in zip(firsts, marks, strict=True)]
    oldest_s = max(ages)
    print(f"verdict: {len(ages)} marks in {count} events of items, the oldest {oldest_s:.1f} s old when applied")
    assert oldest_s < FRESH_S
    return oldest_s


def _effects(service: Service) -> dict[str, list[tuple[int, int | None, float]]]:
    """By item, in the order of the effects: version, mark, and when the effect was committed."""
    found: dict[str, list[tuple[int, int | None, float]]] = {}
    rows = service.execute(
        "SELECT id_text, version, payload, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
        " FROM effect ORDER BY seq"
    )
    for id_text, version, payload, applied_at in rows:
        barcode = (orjson.loads(str(payload)) or {}).get("barcode")
        number = None if barcode is None else int(barcode)
        found.setdefault(str(id_text), []).append((int(str(version)), number, float(str(applied_at))))
    return found
