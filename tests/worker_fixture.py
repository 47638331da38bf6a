"""Worker processes for tests, and an independent reader of the domain topics."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from confluent_kafka import Consumer, KafkaError, TopicPartition
from stack_fixture import TestProject, wait_until

from rowcast.event import DomainEvent, Record, decode
from rowcast.sources.connector import publication_name
from rowcast.topics import domain_topic

COMMAND = (sys.executable, "-m", "rowcast.cli.main")
TYPES = ("instance", "holdings", "item")


@dataclass
class Worker:
    """One `rowcast worker` process of a project."""

    project: TestProject
    log: Path
    process: subprocess.Popen[bytes]

    def wait_owned(self, timeout_s: float = 30) -> None:
        """Wait until this worker owns the project's source."""
        wait_until(lambda: b"owned as epoch" in self.log.read_bytes(), f"ownership in {self.text()}", timeout_s)

    def wait_ended(self, timeout_s: float = 30) -> int:
        """Wait until the process has ended; returns its exit code."""
        return self.process.wait(timeout_s)

    def wait_stopped(self, timeout_s: float = 30) -> None:
        """Wait until the process is frozen by SIGSTOP."""
        status = Path(f"/proc/{self.process.pid}/status")
        wait_until(lambda: "State:\tT" in status.read_text(), "the worker froze itself", timeout_s)

    def memory_mb(self, figure: str) -> float:
        """Resident memory in MiB as the kernel counts it: now (`VmRSS`), or its highest so far (`VmHWM`)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{figure}:")[2].split()[0]) / 1024

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait(10)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def text(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def url(self) -> str:
        """The address of its web server."""
        pattern = r"(http://127\.0\.0\.1:\d+)/health"
        found = wait_until(lambda: re.search(pattern, self.log.read_text(errors="replace")), "the web address")
        return found[1]

    def get(self, page: str) -> requests.Response:
        """One page of its web server, which listens a moment after its address is logged."""

        def answer() -> requests.Response | None:
            try:
                return requests.get(f"{self.url()}{page}", timeout=5)
            except requests.ConnectionError:
                return None

        response = wait_until(lambda: [found] if (found := answer()) is not None else None, f"an answer to {page}")
        assert response is not None
        return response[0]


@dataclass
class WorkerPool:
    """Starts workers of one project and ends what is left of them."""

    project: TestProject
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def start(self, failpoints: str = "", settings: Mapping[str, str] | None = None) -> Worker:
        """Start a worker, with *settings* by the name of their variables instead of the project's."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        environment = {**os.environ, "ROWCAST_FAILPOINTS": failpoints, **(settings or {})}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "--project", str(self.project.folder), "worker", "--web-port", "0"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.workers.append(Worker(self.project, log, process))
        return self.workers[-1]

    def end(self) -> None:
        """Kill whatever still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
            # Shown with a test that failed.
            print(f"{worker.log.name}:\n{worker.text()}")


@pytest.fixture
def workers(project: TestProject, tmp_path: Path) -> Iterator[WorkerPool]:
    """Workers of the test's project."""
    pool = WorkerPool(project, tmp_path)
    try:
        yield pool
    finally:
        pool.end()


def rowcast(project: TestProject, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One `rowcast` command on the project."""
    command = [*COMMAND, "--project", str(project.folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def read_topics(project: TestProject, types: Iterable[str] = TYPES, major: int = 1) -> list[Record]:
    """Every committed record of the domain topics of *types*, each partition in order, from the beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": project.stack.brokers,
            "group.id": f"test-{uuid.uuid4()}",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = [TopicPartition(domain_topic(project.name, each, major), n, 0) for each in types for n in range(3)]
    records: list[Record] = []
    try:
        consumer.assign(partitions)
        open_count = len(partitions)
        while open_count:
            message = consumer.poll(10)
            assert message is not None, "Kafka did not answer"
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                open_count -= 1
                continue
            headers = tuple(message.headers() or ())
            records.append(Record(message.topic(), message.key(), message.value(), headers))
    finally:
        consumer.close()
    return records


def read_events(project: TestProject, types: Iterable[str] = TYPES, major: int = 1) -> list[DomainEvent]:
    """The events of `read_topics`."""
    return [decode(*record) for record in read_topics(project, types, major)]


def histories(project: TestProject, types: Iterable[str] = TYPES, major: int = 1) -> dict[str, list[DomainEvent]]:
    """
    The events of each aggregate in log order.

    Fails unless every aggregate carries versions 1, 2, 3 … exactly once and in order, so that the last record
    of each key has the key's highest version.
    """
    by_identity: dict[str, list[DomainEvent]] = defaultdict(list)
    for event in read_events(project, types, major):
        by_identity[event.identity.text].append(event)
    for name, events in by_identity.items():
        versions = [event.version for event in events]
        assert versions == list(range(1, len(versions) + 1)), f"{name}: {versions}"
    return by_identity


def wait_published(project: TestProject, aggregate: str, version: int, count: int, timeout_s: float) -> None:
    """Wait until *count* aggregates of a type have *version*, and nothing is pending; asks the control database."""
    published = "SELECT count(*) FROM rowcast.aggregate WHERE source = %s AND aggregate = %s AND version = %s"
    pending = "SELECT count(*) FROM rowcast.pending WHERE source = %s"
    with project.control() as control:

        def counts() -> tuple[Any, Any]:
            (done,) = control.execute(published, (project.name, aggregate, version)).fetchone() or (0,)
            (left,) = control.execute(pending, (project.name,)).fetchone() or (0,)
            return done, left

        wait_until(lambda: counts() == (count, 0), f"{count} {aggregate} with version {version}", timeout_s)


def source_states(project: TestProject) -> dict[str, dict[str, Any]]:
    """What the source's tables hold now, by id: a few fields and the ancestors, from SELECT alone."""
    states: dict[str, dict[str, Any]] = {}
    for id_, title in project.execute("SELECT id::text, title FROM instance"):
        states[id_] = {"title": title, "ancestors": {}}
    for id_, place, instance in project.execute("SELECT id::text, permanent_location, instance_id::text FROM holdings"):
        states[id_] = {"permanent_location": place, "ancestors": {"instance": [instance]}}
    items = project.execute(
        "SELECT i.id::text, i.status, h.id::text, h.instance_id::text FROM item i"
        " JOIN holdings h ON h.id = i.holdings_id"
    )
    for id_, status, holdings, instance in items:
        states[id_] = {"status": status, "ancestors": {"holdings": [holdings], "instance": [instance]}}
    return states


def differences(project: TestProject) -> list[str]:
    """Where the last event of an aggregate disagrees with the source's tables."""
    return wrong_states(project, {name: events[-1] for name, events in histories(project).items()})


def wrong_states(project: TestProject, last_events: Mapping[str, DomainEvent]) -> list[str]:
    """Where *last_events*, by identity, disagree with the source's tables."""
    wrong = []
    truth = source_states(project)
    last = {event.identity.id_text: event for event in last_events.values()}
    for id_, state in truth.items():
        event = last.pop(id_, None)
        if event is None or event.after is None:
            wrong.append(f"{id_}: not published")
        elif {name: event.after[name] for name in state if name != "ancestors"} | {
            "ancestors": dict(event.ancestors)
        } != state:
            wrong.append(f"{id_}: published {event.after} {event.ancestors}, but is {state}")
    wrong += [f"{id_}: gone, but published" for id_, event in last.items() if event.after is not None]
    return wrong


def wait_agreement(project: TestProject, timeout_s: float = 40) -> None:
    """Wait until the topics say what the source's tables say; the source has to be quiet."""
    try:
        wait_until(lambda: not differences(project), "topics agree with the source", timeout_s)
    except pytest.fail.Exception as error:
        status = rowcast(project, "sources", "status")
        pytest.fail(f"{error}\n{differences(project)[:3]}\n{status.stdout}{status.stderr}")


@contextmanager
def unpublished(project: TestProject, tables: Iterable[str]) -> Iterator[None]:
    """One transaction: its changes of *tables* are not in the change log, nor is anything in the catalogue."""
    statement = f"ALTER PUBLICATION {publication_name(project.name)} {{}} TABLE {', '.join(tables)}"
    with project.connection.transaction():
        project.execute(statement.format("DROP"))
        yield
        project.execute(statement.format("ADD"))


class Load(threading.Thread):
    """Random committed work on the source, from *seed*, until `finish`."""

    def __init__(self, project: TestProject, seed: int, rate: float = 60.0) -> None:
        super().__init__(daemon=True)
        self._url = project.settings.database(project.name).url
        self._rng = random.Random(seed)
        self._pause_s = 1.0 / rate
        self._ending = threading.Event()
        self.transactions = 0
        self.error: Exception | None = None

    def run(self) -> None:
        """Commit one transaction after the other."""
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._ending.is_set():
                    commit_random(connection, self._rng)
                    self.transactions += 1
                    # Paces the load; nothing waits for it.
                    self._ending.wait(self._pause_s)
        except psycopg.Error as error:
            self.error = error

    def finish(self) -> int:
        """End the load and return the number of transactions; fails when it broke."""
        self._ending.set()
        self.join(30)
        assert self.error is None, self.error
        return self.transactions


def commit_random(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    """One transaction: creates, updates, moves or deletes a few rows of the three tables."""
    with connection.transaction():
        for _ in range(rng.randint(1, 3)):
            rng.choice([_create, _update, _update, _move, _move_holdings, _delete])(connection, rng)


def _create(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    ids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(3)]
    add_tree(connection, ids)


def add_tree(connection: psycopg.Connection[Any], ids: list[str], names: Mapping[str, str] | None = None) -> None:
    """An instance, its holdings and their item."""
    names = names or {}
    connection.execute(
        "INSERT INTO instance (id, hrid, title, source, instance_type) VALUES (%s, %s, %s, 'MARC', 'text')",
        (ids[0], ids[0], names.get("title", "A title")),
    )
    connection.execute(
        "INSERT INTO holdings (id, hrid, instance_id, permanent_location) VALUES (%s, %s, %s, 'Main')",
        (ids[1], ids[1], ids[0]),
    )
    connection.execute(
        "INSERT INTO item (id, hrid, holdings_id, material_type, status) VALUES (%s, %s, %s, 'book', 'Available')",
        (ids[2], ids[2], ids[1]),
    )


def _update(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    status = rng.choice(["Available", "Checked out", "Missing"])
    connection.execute(
        "UPDATE item SET status = %s, updated_at = clock_timestamp() WHERE id IN"
        " (SELECT id FROM item ORDER BY md5(id::text || %s) LIMIT 2)",
        (status, str(rng.random())),
    )


def _move(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    salt = str(rng.random())
    connection.execute(
        "UPDATE item SET holdings_id = (SELECT id FROM holdings ORDER BY md5(id::text || %s) LIMIT 1) WHERE id ="
        " (SELECT id FROM item ORDER BY md5(id::text || %s) LIMIT 1)",
        (salt, salt),
    )


def _move_holdings(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    salt = str(rng.random())
    connection.execute(
        "UPDATE holdings SET instance_id = (SELECT id FROM instance ORDER BY md5(id::text || %s) LIMIT 1) WHERE id ="
        " (SELECT id FROM holdings ORDER BY md5(id::text || %s) LIMIT 1)",
        (salt, salt),
    )


def _delete(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    connection.execute(
        "DELETE FROM item WHERE id = (SELECT id FROM item ORDER BY md5(id::text || %s) LIMIT 1)", (str(rng.random()),)
    )
