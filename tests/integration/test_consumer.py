from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_fixture import Broker, Process, Run, Service, make_event, note, running, wait_until

from rowcast.consumer import Consumer, DomainEvent, EventKind
from rowcast.errors import StopError
from rowcast.event import Record

NAME = "test-service"
CONSUMER_PAGE = Path(__file__).parents[2] / "docs/reference/consumer.md"


def consumer_of(broker: Broker, service: Service, handler: Any = note, **options: Any) -> Consumer:
    consumer = Consumer(NAME, service.url, broker.brokers, **options)
    consumer.on(f"{broker.domain}.item", major=1)(handler)
    return consumer


def history(broker: Broker, ids: int, versions: int) -> list[DomainEvent]:
    return [broker.event(f"id-{number}", version) for version in range(1, versions + 1) for number in range(ids)]


def assert_exactly_once(broker: Broker, service: Service) -> None:
    """Every event of the topic has one effect, and effects of one aggregate came in the order of its versions."""
    events = broker.read_all(broker.topic())
    effects = service.execute("SELECT event_id, id_text, version FROM effect ORDER BY seq")
    counts = Counter(event_id for event_id, _, _ in effects)
    assert counts == Counter({event.id for event in events})
    last: dict[object, int] = {}
    for _, id_text, version in effects:
        assert isinstance(version, int)
        assert version == last.get(id_text, 0) + 1
        last[id_text] = version


@pytest.mark.guarantee("Effects exactly once")
def test_first_start_reads_from_the_beginning_in_order(broker: Broker, service: Service) -> None:
    """A new consumer applies everything the topic holds, each aggregate's versions in order."""
    broker.create_topic()
    broker.publish(*history(broker, ids=20, versions=5))
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effect_count() == 100)
        broker.publish(broker.event("id-0", 6))
        wait_until(lambda: service.effect_count() == 101)
    assert_exactly_once(broker, service)


def test_a_topic_that_is_created_later_is_picked_up(
    broker: Broker, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer that starts before its topics exist says what it waits for, once, and picks them up."""
    with running(consumer_of(broker, service)) as run:
        wait_until(lambda: run.consumer.status().absent == (broker.topic(),))
        broker.create_topic()
        broker.publish(broker.event("a", 1))
        wait_until(lambda: service.effect_count() == 1)
        wait_until(lambda: run.consumer.status().absent == ())
    lines = [record.getMessage() for record in caplog.records if record.name == "rowcast.consumer"]
    lines = [line for line in lines if not line.startswith("assigned")]
    assert lines == [f"topic {broker.topic()} does not exist; waiting (is the name or the major right?)"]


def test_joining_takes_longer_than_one_poll(broker: Broker, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebalance that only changed metadata asks for completes, however short the polls of the group client."""
    monkeypatch.setattr("rowcast.consumer.membership._POLL_S", 0.005)
    topic = broker.create_topic(partitions=1)
    with running(consumer_of(broker, service)) as run:
        for version in range(1, 41):
            broker.publish(broker.event("a", version))
            wait_until(lambda count=version: service.effect_count() == count, 5)  # type: ignore[misc]
        with broker.admin() as admin:
            admin.create_partitions({topic: 3})
        wait_until(lambda: len(run.consumer.status().positions) == 3)


@pytest.mark.guarantee("Effects exactly once")
def test_events_delivered_again_have_no_second_effect(broker: Broker, service: Service) -> None:
    """Records that are on the topic twice, and offsets that are rewound, are recognised by the marks."""
    broker.create_topic()
    broker.publish(*history(broker, ids=5, versions=3))
    broker.publish(*history(broker, ids=5, versions=3))
    with running(consumer_of(broker, service)) as run:
        wait_until(lambda: run.consumer.status().skipped == 15)
    service.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 0")
    with running(consumer_of(broker, service)) as run:
        wait_until(lambda: run.consumer.status().skipped == 30)
        assert run.consumer.status().applied == 0
    assert_exactly_once(broker, service)


@pytest.mark.guarantee("Effects exactly once")
def test_a_rewind_under_a_running_consumer_is_noticed(broker: Broker, service: Service) -> None:
    """Offsets set back by another session (a restored database) make the running consumer read again."""
    broker.create_topic(partitions=1)
    broker.publish(*history(broker, ids=5, versions=2))
    with running(consumer_of(broker, service)) as run:
        wait_until(lambda: service.effect_count() == 10)
        service.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 0, generation = generation + 1")
        broker.publish(broker.event("id-0", 3))
        wait_until(lambda: service.effect_count() == 11)
        wait_until(lambda: run.consumer.status().skipped == 10)
    assert_exactly_once(broker, service)


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_gap_stops_the_consumer_behind_the_events_before_it(broker: Broker, service: Service) -> None:
    """A missing version inside the window is loss: what is before is applied, the error names the event."""
    broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), broker.event("b", 1), broker.event("a", 3), broker.event("b", 2))
    run = Run(consumer_of(broker, service))
    run.join()
    assert isinstance(run.error, StopError)
    assert run.error.code == "GAP"
    assert "item:a:3" in str(run.error)
    assert "version 1" in str(run.error)
    assert service.effects() == [("a", 1), ("b", 1)]
    assert service.offsets(NAME)[broker.topic(), 0][1] == 2


def test_a_gap_is_left_behind_by_raising_the_mark(broker: Broker, service: Service) -> None:
    """What the consumer page says to do when the loss is accepted: the event behind the gap is applied next."""
    (statement,) = re.findall(r"```sql\n(INSERT INTO rowcast_inbox\.mark .*?)```", CONSUMER_PAGE.read_text(), re.DOTALL)
    broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), broker.event("a", 3), broker.event("a", 4))
    stopped = Run(consumer_of(broker, service))
    stopped.join()
    assert isinstance(stopped.error, StopError)
    assert "aggregate shop/item/a is at version 1, this is version 3" in str(stopped.error)
    for name, value in (("mail", NAME), ("shop/customer/1", "shop/item/a"), ("57", "2")):
        statement = statement.replace(name, value)
    service.execute(statement)
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effects() == [("a", 1), ("a", 3), ("a", 4)])


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_first_version_that_is_missing_is_a_gap(broker: Broker, service: Service) -> None:
    """An aggregate without a mark has to begin with version 1, inside the window."""
    broker.create_topic()
    broker.publish(broker.event("a", 2))
    run = Run(consumer_of(broker, service))
    run.join()
    assert isinstance(run.error, StopError)
    assert run.error.code == "GAP"
    assert service.effects() == []


def test_a_gap_older_than_the_window_is_compaction(broker: Broker, service: Service) -> None:
    """Where the broker may have compacted, the event behind the gap is applied."""
    broker.create_topic(partitions=1, window_ms=1000)
    broker.publish(broker.event("a", 4))
    time_of_publish = time.monotonic()
    wait_until(lambda: time.monotonic() > time_of_publish + 1.5)
    broker.publish(broker.event("b", 1))
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effects() == [("a", 4), ("b", 1)])


def test_a_window_that_was_shortened_counts(broker: Broker, service: Service) -> None:
    """The window is read again before a gap is called loss."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1))
    with running(consumer_of(broker, service)) as run:
        wait_until(lambda: service.effect_count() == 1)
        broker.set_window(topic, 0)
        broker.publish(broker.event("a", 3))
        wait_until(lambda: service.effect_count() == 2)
        assert run.error is None


def test_a_snapshot_closes_a_gap(broker: Broker, service: Service) -> None:
    """A snapshot event is applied over any gap, and the versions after it count on from it."""
    broker.create_topic()
    broker.publish(broker.event("a", 7, EventKind.SNAPSHOT), broker.event("a", 8))
    broker.publish(broker.event("a", 20, EventKind.SNAPSHOT))
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effects() == [("a", 7), ("a", 8), ("a", 20)])


@pytest.mark.guarantee("Effects exactly once")
def test_events_of_aborted_transactions_are_not_seen(broker: Broker, service: Service) -> None:
    """Only committed transactions of the publisher are read; positions pass the others and the markers."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), commit=False)
    broker.publish(broker.event("b", 1))
    broker.publish(broker.event("c", 1), commit=False)
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effects() == [("b", 1)])
        # Three records and three markers: the stored position is the fetch position.
        wait_until(lambda: service.offsets(NAME)[topic, 0][1] == 6)


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_failing_handler_blocks_and_goes_on_once_mended(
    broker: Broker, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Events before the failing one are applied, it is named once, nothing behind it in its partition is applied."""
    broker.create_topic(partitions=1)
    broken = True

    def handler(event: DomainEvent, connection: psycopg.Connection) -> None:
        note(event, connection)
        if broken and event.id == "item:b:1":
            raise ValueError("cannot apply b")

    broker.publish(*(broker.event(each, 1) for each in "abcd"))
    with caplog.at_level(logging.INFO, "rowcast.consumer"), running(consumer_of(broker, service, handler)) as run:
        wait_until(lambda: any(each.tries >= 3 for each in run.consumer.status().blocked))
        assert service.effects() == [("a", 1)]
        (blocked,) = run.consumer.status().blocked
        assert (blocked.event_id, blocked.topic, blocked.partition, blocked.offset) == (
            "item:b:1",
            broker.topic(),
            0,
            1,
        )
        told = [each.getMessage() for each in caplog.records if "blocks its partition" in each.getMessage()]
        assert len(told) == 1
        assert f"item:b:1 at {broker.topic()}[0] offset 1" in told[0]
        assert "cannot apply b" in told[0]
        broken = False
        wait_until(lambda: service.effects() == [(each, 1) for each in "abcd"])
        assert run.consumer.status().blocked == ()


def test_a_blocked_partition_does_not_hold_the_others(broker: Broker, service: Service) -> None:
    """Events of other partitions are applied while one partition waits for a failing event."""
    broker.create_topic(partitions=2)

    def handler(event: DomainEvent, connection: psycopg.Connection) -> None:
        if event.identity.id_text == "id-0":
            raise ValueError("never")
        note(event, connection)

    with running(consumer_of(broker, service, handler)) as run:
        broker.publish(broker.event("id-0", 1))
        wait_until(lambda: run.consumer.status().blocked)
        partition = run.consumer.status().blocked[0].partition
        broker.publish(*(broker.event(f"other-{number}", 1) for number in range(40)))
        wait_until(lambda: service.effect_count() > 5)
        positions = run.consumer.status().positions
        assert positions[broker.topic(), partition] == 0
        assert positions[broker.topic(), 1 - partition] > 5


@pytest.mark.guarantee("Contracts hold")
@pytest.mark.parametrize("at_once", [False, True])
def test_an_event_against_its_contract_blocks_before_a_handler_sees_it(
    broker: Broker, service: Service, tmp_path: Path, *, at_once: bool
) -> None:
    """Those before it are applied; what is said of it holds no value."""
    topic = broker.create_topic(partitions=1)
    folder = tmp_path / broker.domain / "item"
    folder.mkdir(parents=True)
    number = {"type": "integer", "maximum": 5}
    entity = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "n": number}}
    (folder / "v1.0.json").write_text(json.dumps(entity))
    consumer = Consumer(NAME, service.url, broker.brokers)
    consumer.check_against(tmp_path)

    def one_by_one(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        for each in events:
            note(each, connection)

    if at_once:
        consumer.on_batch(f"{broker.domain}.item", major=1)(one_by_one)
    else:
        consumer.on(f"{broker.domain}.item", major=1)(note)
    wrong = make_event(broker.domain, "b", 1, after={"id": "b", "n": 471108})
    broker.publish(broker.event("a", 1), wrong, broker.event("c", 1))

    with running(consumer) as run:
        wait_until(lambda: run.consumer.status().blocked)
        (blocked,) = run.consumer.status().blocked
        assert (blocked.event_id, blocked.topic, blocked.offset) == ("item:b:1", topic, 1)
        assert "/after/n" in blocked.reason
        assert "471108" not in blocked.reason
        wait_until(lambda: service.effects() == [("a", 1)])


def test_a_failed_statement_does_not_leak_into_other_events(broker: Broker, service: Service) -> None:
    """A handler that swallows a database error blocks its event; nothing of it, and all before it, is kept."""
    broker.create_topic(partitions=1)
    mended = False

    def handler(event: DomainEvent, connection: psycopg.Connection) -> None:
        note(event, connection)
        if event.identity.id_text == "b" and not mended:
            with contextlib.suppress(psycopg.Error):
                connection.execute("SELECT 1/0")

    broker.publish(*(broker.event(each, 1) for each in "abc"))
    with running(consumer_of(broker, service, handler)) as run:
        wait_until(lambda: run.consumer.status().blocked)
        assert service.effects() == [("a", 1)]
        mended = True
        wait_until(lambda: service.effects() == [("a", 1), ("b", 1), ("c", 1)])


@pytest.mark.parametrize("way", ["method", "statement"])
def test_a_handler_cannot_end_the_transaction(broker: Broker, service: Service, way: str) -> None:
    """commit() in a handler is refused, a COMMIT statement is noticed: the event blocks either way."""
    broker.create_topic(partitions=1)

    def handler(event: DomainEvent, connection: psycopg.Connection) -> None:
        if way == "method":
            connection.commit()
        else:
            connection.execute("COMMIT")

    broker.publish(broker.event("a", 1))
    with running(consumer_of(broker, service, handler)) as run:
        wait_until(lambda: run.consumer.status().blocked)
        assert service.offsets(NAME)[broker.topic(), 0][1] == 0


def test_an_error_at_commit_finds_its_event(broker: Broker, service: Service) -> None:
    """A deferred constraint fails at COMMIT: smaller batches apply what can be applied and block at the culprit."""
    broker.create_topic(partitions=1)
    service.execute(
        "CREATE TABLE parent (id text PRIMARY KEY);"
        "CREATE TABLE child (id text REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    service.execute("INSERT INTO parent SELECT 'id-' || n FROM generate_series(0, 9) AS n WHERE n <> 6")

    def handler(event: DomainEvent, connection: psycopg.Connection) -> None:
        connection.execute("INSERT INTO child VALUES (%s)", (event.identity.id_text,))
        note(event, connection)

    broker.publish(*history(broker, ids=10, versions=1))
    with running(consumer_of(broker, service, handler)) as run:
        wait_until(lambda: run.consumer.status().blocked)
        assert run.consumer.status().blocked[0].event_id == "item:id-6:1"
        assert [id_text for id_text, _ in service.effects()] == [f"id-{number}" for number in range(6)]
        service.execute("INSERT INTO parent VALUES ('id-6')")
        wait_until(lambda: service.effect_count() == 10)


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_malformed_record_blocks_its_partition(broker: Broker, service: Service) -> None:
    """A record that is no event is never skipped: what is before it is applied, what is behind it waits."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), Record(topic, b"b", b"not json", ()), broker.event("c", 1))
    with running(consumer_of(broker, service)) as run:
        wait_until(lambda: run.consumer.status().blocked)
        (blocked,) = run.consumer.status().blocked
        assert (blocked.event_id, blocked.offset) == (None, 1)
        assert service.effects() == [("a", 1)]


@pytest.mark.guarantee("Effects exactly once")
def test_cut_database_connections_are_survived(broker: Broker, service: Service) -> None:
    """Sessions killed at random, under load, cost neither an event nor a second effect."""
    broker.create_topic()
    seed = random.Random(7)
    with running(consumer_of(broker, service, batch_events=10)):
        for version in range(1, 31):
            broker.publish(*(broker.event(f"id-{number}", version) for number in range(20)))
            if seed.random() < 0.5:
                service.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'rowcast%'"
                )
        wait_until(lambda: service.effect_count() >= 600)
    assert_exactly_once(broker, service)


def test_a_recreated_topic_stops_the_consumer(broker: Broker, service: Service) -> None:
    """A stored offset behind the end of the log, or of a topic of another id, is not read on from."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1))
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effect_count() == 1)
    service.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 100")
    run = Run(consumer_of(broker, service))
    run.join()
    assert isinstance(run.error, StopError)
    assert run.error.code == "TOPIC_RECREATED"
    service.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 1, topic_id = 'another'")
    run = Run(consumer_of(broker, service))
    run.join()
    assert isinstance(run.error, StopError)
    assert topic in str(run.error)


def test_a_position_before_the_start_of_the_log_moves_to_it(broker: Broker, service: Service) -> None:
    """Records deleted by the broker are passed; the marks say whether anything is missing."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), broker.event("a", 2), broker.event("b", 1))
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effect_count() == 3)
    service.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 1")
    broker.delete_before(topic, 0, 2)
    broker.publish(broker.event("a", 3))
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effects()[3:] == [("a", 3)])


def test_stop_is_orderly_and_fast(broker: Broker, service: Service, tmp_path: Path) -> None:
    """SIGTERM ends the process within 10 s with exit code 0, and what it applied is committed."""
    broker.create_topic()
    broker.publish(*history(broker, ids=50, versions=20))
    process = Process(broker, service, NAME, tmp_path / "log", ["--slow", "0.005"])
    wait_until(lambda: service.effect_count() > 100)
    process.send(signal.SIGTERM)
    assert process.wait(10) == 0
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effect_count() == 1000)
    assert_exactly_once(broker, service)


def test_stop_during_backoff_is_immediate(broker: Broker, service: Service) -> None:
    """A consumer whose event fails again and again stops as fast as any other."""
    broker.create_topic(partitions=1)

    def handler(event: DomainEvent, connection: psycopg.Connection) -> None:
        raise ValueError("never")

    broker.publish(broker.event("a", 1))
    with running(consumer_of(broker, service, handler)) as run:
        wait_until(lambda: any(each.tries >= 4 for each in run.consumer.status().blocked))
        run.consumer.stop()
        run.join(5)


@pytest.mark.guarantee("Any instance may die")
@pytest.mark.matrix
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_nine_at_random_moments(broker: Broker, service: Service, tmp_path: Path, seed: int) -> None:
    """A consumer killed and started again, many times under load, leaves every effect exactly once."""
    broker.create_topic()
    chance = random.Random(seed)
    version = 0
    for _ in range(3):
        process = Process(broker, service, NAME, tmp_path / "log", ["--slow", "0.001"])
        try:
            before = service.effect_count()
            for _ in range(10):
                version += 1
                broker.publish(*(broker.event(f"id-{number}", version) for number in range(40)))
            goal = before + chance.randrange(1, 300)
            wait_until(lambda goal=goal: service.effect_count() >= goal)  # type: ignore[misc]
        finally:
            process.process.kill()
            process.wait()
    with running(consumer_of(broker, service)):
        wait_until(lambda: service.effect_count() >= version * 40)
    assert_exactly_once(broker, service)


@pytest.mark.guarantee("Any instance may die")
def test_a_frozen_instance_does_no_harm(broker: Broker, service: Service, tmp_path: Path) -> None:
    """One of two instances freezes in a transaction: the other takes over in 30 s, the woken one does no harm."""
    broker.create_topic(partitions=4)
    freeze = tmp_path / "freeze"
    first = Process(broker, service, NAME, tmp_path / "first", ["--freeze", str(freeze)])
    second = Process(broker, service, NAME, tmp_path / "second")
    try:

        def shared() -> bool:
            rows = service.execute("SELECT DISTINCT instance FROM rowcast_inbox.offset_position")
            return len(rows) == 2

        wait_until(lambda: service.execute("SELECT to_regclass('rowcast_inbox.offset_position')")[0][0])
        wait_until(shared, what="both instances own partitions")
        freeze.touch()
        broker.publish(*history(broker, ids=40, versions=3))
        wait_until(lambda: not freeze.exists(), what="the first instance freezes")
        wait_until(lambda: service.effect_count() == 120, 30, "the second instance takes over")
        first.send(signal.SIGCONT)
        broker.publish(*(broker.event(f"id-{number}", 4) for number in range(40)))
        wait_until(lambda: service.effect_count() == 160)
        wait_until(shared, what="the woken instance is back at work")
        broker.publish(*(broker.event(f"id-{number}", 5) for number in range(40)))
        wait_until(lambda: service.effect_count() == 200)
        for process in (first, second):
            process.send(signal.SIGTERM)
        assert (first.wait(10), second.wait(10)) == (0, 0)
    finally:
        for process in (first, second):
            process.process.kill()
            process.wait()
    assert_exactly_once(broker, service)


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("part", ["kafka", "postgres"])
def test_an_outage_is_waited_for(stack: Any, broker: Broker, service: Service, part: str) -> None:
    """Broker or database away for longer than every timeout in use: the consumer goes on by itself."""
    broker.create_topic()
    with running(consumer_of(broker, service)):
        broker.publish(*history(broker, ids=20, versions=1))
        wait_until(lambda: service.effect_count() == 20)
        stack.stack.stop(part)
        stopped_at = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped_at + 15, 20)
        stack.stack.start(part)
        broker.publish(*(broker.event(f"id-{number}", 2) for number in range(20)))
        wait_until(lambda: service.effect_count() == 40)
    assert_exactly_once(broker, service)
