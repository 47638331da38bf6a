"""What the consumer's tests share: databases, domain topics, a transactional publisher, running consumers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import confluent_kafka
import psycopg
import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from psycopg import sql
from stack_fixture import SharedStack

from rowcast.consumer import Consumer, DomainEvent, EventKind
from rowcast.event import Record, decode
from rowcast.identity import Identity
from rowcast.settings import Settings
from rowcast.topics import domain_topic

WEEK_MS = 7 * 24 * 3600 * 1000
SERVICE = Path(__file__).with_name("consumer_service.py")

EFFECTS = """
    CREATE TABLE effect (
        seq bigserial PRIMARY KEY, event_id text NOT NULL, id_text text NOT NULL, version bigint NOT NULL,
        kind text NOT NULL, payload text, applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""


def wait_until(condition: Callable[[], object], timeout_s: float = 30, what: str = "") -> None:
    """Returns as soon as *condition* is true; fails after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.02)


def make_event(
    domain: str,
    id_text: str,
    version: int,
    kind: EventKind | None = None,
    *,
    aggregate: str = "item",
    after: dict[str, object] | None = None,
) -> DomainEvent:
    """An event of *domain*; version 1 is `created`, later ones `updated`, unless *kind* says otherwise."""
    kind = kind or (EventKind.CREATED if version == 1 else EventKind.UPDATED)
    return DomainEvent(
        identity=Identity("shop", aggregate, (id_text,)),
        domain=domain,
        kind=kind,
        major=1,
        version=version,
        position=version,
        time="2026-01-01T00:00:00Z",
        source_uri="/shop",
        dataschema="urn:test",
        after=None if kind is EventKind.DELETED else (after or {"id": id_text, "n": version}),
        before=None,
        ancestors={},
        context={},
    )


class Broker:
    """Domain topics of one broker, with names of their own for each test."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self.domain = f"t{uuid.uuid4().hex[:10]}"
        self._producer: confluent_kafka.Producer | None = None

    def topic(self, aggregate: str = "item") -> str:
        """The name of a topic of this test."""
        return domain_topic(self.domain, aggregate, 1)

    def create_topic(self, aggregate: str = "item", partitions: int = 2, window_ms: int = WEEK_MS) -> str:
        """A topic as the project creates them: compacted, with a minimum lag, by append time."""
        name = self.topic(aggregate)
        configuration = {
            "cleanup.policy": "compact",
            "min.compaction.lag.ms": str(window_ms),
            "message.timestamp.type": "LogAppendTime",
        }
        with self.admin() as admin:
            admin.create_topics(
                [NewTopic(name=name, num_partitions=partitions, replication_factor=1, topic_configs=configuration)]
            )
            admin.wait_for_topics([name])
        return name

    def set_window(self, topic: str, window_ms: int) -> None:
        """Changes the topic's compaction lag."""
        with self.admin() as admin:
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"min.compaction.lag.ms": str(window_ms)})
            admin.alter_configs([resource])

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Makes *offset* the first one of the log."""
        with self.admin() as admin:
            policy = ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": "compact,delete"})
            admin.alter_configs([policy])
            admin.delete_records({TopicPartition(topic, partition): offset})

    @contextlib.contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """An admin client."""
        admin = KafkaAdminClient(bootstrap_servers=self.brokers)
        try:
            yield admin
        finally:
            admin.close()

    def event(self, id_text: str, version: int, kind: EventKind | None = None) -> DomainEvent:
        """An event of this test's item topic."""
        return make_event(self.domain, id_text, version, kind)

    def publish(self, *events: DomainEvent | Record, commit: bool = True) -> None:
        """Publishes in one transaction, which is aborted unless *commit*."""
        if self._producer is None:
            self._producer = confluent_kafka.Producer(
                {
                    "bootstrap.servers": self.brokers,
                    "transactional.id": f"test-{self.domain}",
                    "partitioner": "murmur2_random",
                }
            )
            self._producer.init_transactions(30)
        self._producer.begin_transaction()
        for event in events:
            record = event.encode() if isinstance(event, DomainEvent) else event
            self._producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
        self._producer.flush(30)
        if commit:
            self._producer.commit_transaction(30)
        else:
            self._producer.abort_transaction(30)

    def read_all(self, *topics: str) -> list[DomainEvent]:
        """Every committed event of *topics* by a reader that has nothing in common with the SDK's."""
        return [event for _, _, event in self.read_places(*topics)]

    def read_places(self, *topics: str) -> list[tuple[int, int, DomainEvent]]:
        """The same, each with its partition and offset."""
        reader = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        events: list[tuple[int, int, DomainEvent]] = []
        try:
            metadata = reader.list_topics(timeout=10)
            wanted = [
                confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING)
                for topic in topics
                for number in metadata.topics[topic].partitions
            ]
            reader.assign(wanted)
            ended = 0
            while ended < len(wanted):
                message = reader.poll(10)
                assert message is not None, "the broker does not answer"
                if message.error():
                    assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                    ended += 1
                else:
                    event = decode(message.topic(), message.key(), message.value(), message.headers())
                    events.append((message.partition(), message.offset(), event))
        finally:
            reader.close()
        return events


class Service:
    """A consumer's own database, and its effects."""

    def __init__(self, url: str) -> None:
        self.url = url

    def execute(self, statement: str, parameters: object = None) -> list[tuple[object, ...]]:
        """Runs one statement in a transaction of its own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def effects(self) -> list[tuple[str, int]]:
        """(id, version) of each effect, in the order of the handlers' calls."""
        return self.execute("SELECT id_text, version FROM effect ORDER BY seq")  # type: ignore[return-value]

    def effect_count(self) -> int:
        """How many effects there are."""
        return int(self.execute("SELECT count(*) FROM effect")[0][0])  # type: ignore[call-overload]

    def offsets(self, consumer: str) -> dict[tuple[str, int], tuple[int, int]]:
        """(generation, next offset) by (topic, partition)."""
        rows = self.execute(
            "SELECT topic, partition, generation, next_offset FROM rowcast_inbox.offset_position WHERE consumer = %s",
            (consumer,),
        )
        return {(str(row[0]), int(row[1])): (int(row[2]), int(row[3])) for row in rows}  # type: ignore[call-overload]


@contextlib.contextmanager
def new_database(settings: Settings) -> Iterator[str]:
    """The url of a new, empty database on the stack's PostgreSQL, dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:10]}"
    server, identifier = settings.database("postgres").url, sql.Identifier(name)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
    try:
        yield settings.database(name).url
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def note(event: DomainEvent, connection: psycopg.Connection) -> None:
    """The plain handler: one row for each call."""
    connection.execute(
        "INSERT INTO effect (event_id, id_text, version, kind, payload) VALUES (%s, %s, %s, %s, %s)",
        (event.id, event.identity.id_text, event.version, event.kind.value, json.dumps(event.after)),
    )


@pytest.fixture
def broker(stack: SharedStack) -> Broker:
    """The stack's broker, with topics of this test's own."""
    return Broker(stack.brokers)


@pytest.fixture
def service(stack: SharedStack) -> Iterator[Service]:
    """A consumer's database with the table of effects."""
    with new_database(stack.settings) as url:
        made = Service(url)
        made.execute(EFFECTS)
        yield made


class Run:
    """A consumer that runs in a thread; *error* is what `run` raised."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.consumer.run()
        # Passed on to the test's own thread.
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def join(self, timeout_s: float = 30) -> None:
        """Waits for the end of `run`."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"still running after {timeout_s} s"

    def stop(self) -> None:
        """Stops, and passes on what `run` raised."""
        self.consumer.stop()
        self.join()
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def running(consumer: Consumer) -> Iterator[Run]:
    """Runs *consumer* in a thread for the time of the block; an error of `run` fails the test."""
    run = Run(consumer)
    try:
        yield run
    except BaseException as failure:
        consumer.stop()
        run.join()
        raise run.error or failure from failure
    run.stop()


class Process:
    """A consumer in a process of its own: ``consumer_service.py``."""

    def __init__(
        self,
        broker: Broker,
        service: Service,
        name: str,
        log: Path,
        options: Sequence[str] = (),
        failpoints: str = "",
    ) -> None:
        self.log = log
        environment = {**os.environ, "ROWCAST_FAILPOINTS": failpoints}
        command = [sys.executable, str(SERVICE), service.url, broker.brokers, broker.domain, name, *options]
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stderr=output, stdout=output, env=environment)

    def send(self, number: int) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)


@pytest.fixture
def consumers(broker: Broker, service: Service, tmp_path: Path) -> Iterator[ConsumerPool]:
    """Consumer processes; what is left of them is killed."""
    pool = ConsumerPool(broker, service, tmp_path)
    try:
        yield pool
    finally:
        pool.end()


class ConsumerPool:
    """Starts consumer processes of one name."""

    def __init__(self, broker: Broker, service: Service, folder: Path) -> None:
        self.processes: list[Process] = []
        self.options: Sequence[str] = ()
        self._broker, self._service, self._folder = broker, service, folder

    def start(self, failpoints: str = "", name: str = "pool") -> Process:
        """Start one more."""
        log = self._folder / f"consumer-{len(self.processes)}.log"
        self.processes.append(Process(self._broker, self._service, name, log, self.options, failpoints))
        return self.processes[-1]

    def end(self) -> None:
        """Kill whatever still runs, and show what it said with a test that failed."""
        for each in self.processes:
            each.process.kill()
            each.wait()
            print(f"{each.log.name}:\n{each.log.read_text(errors='replace')[-3000:]}")
