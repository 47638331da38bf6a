"""Handlers that take all events of a transaction at once: order, duplicates, failures, gaps as with single events."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_fixture import Broker, Process, Run, Service, make_event, note, running, wait_until

from rowcast.consumer import Consumer, DomainEvent
from rowcast.errors import StopError
from rowcast.event import Record

NAME = "batches"
BatchHandler = Callable[[Sequence[DomainEvent], psycopg.Connection], None]


class Calls:
    """A batch handler that notes each event, and remembers how many it was called with; *fails* may raise."""

    def __init__(self, fails: Callable[[Sequence[DomainEvent], psycopg.Connection], None] | None = None) -> None:
        self.sizes: list[int] = []
        self.fails = fails

    def __call__(self, events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        """As the SDK calls it."""
        self.sizes.append(len(events))
        for event in events:
            note(event, connection)
        if self.fails is not None:
            self.fails(events, connection)


def consumer_of(broker: Broker, service: Service, handler: BatchHandler, **options: Any) -> Consumer:
    consumer = Consumer(NAME, service.url, broker.brokers, **options)
    consumer.on_batch(f"{broker.domain}.item", major=1)(handler)
    return consumer


def history(broker: Broker, ids: int, versions: int) -> list[DomainEvent]:
    return [broker.event(f"id-{number}", version) for version in range(1, versions + 1) for number in range(ids)]


def assert_exactly_once(broker: Broker, service: Service) -> None:
    effects = service.execute("SELECT event_id, id_text, version FROM effect ORDER BY seq")
    assert Counter(each[0] for each in effects) == Counter({event.id for event in broker.read_all(broker.topic())})
    last: dict[object, int] = {}
    for _, id_text, version in effects:
        assert version == last.get(id_text, 0) + 1
        last[id_text] = last.get(id_text, 0) + 1


def names(events: Sequence[DomainEvent]) -> set[str]:
    return {event.identity.id_text for event in events}


@pytest.mark.guarantee("Effects exactly once")
def test_events_come_at_once_and_in_order(broker: Broker, service: Service) -> None:
    """The events of a transaction come in one call, several versions of an aggregate among them, each once."""
    broker.create_topic()
    broker.publish(*history(broker, ids=20, versions=5))
    broker.publish(*history(broker, ids=5, versions=5))
    calls = Calls()
    with running(consumer_of(broker, service, calls)) as run:
        wait_until(lambda: service.effect_count() == 100)
        wait_until(lambda: run.consumer.status().skipped == 25)
        assert run.consumer.status().applied == 100
    assert max(calls.sizes) > 20
    assert sum(calls.sizes) == 100
    assert_exactly_once(broker, service)


def test_a_transaction_holds_no_more_than_it_may(broker: Broker, service: Service) -> None:
    """`batch_events` bounds a call."""
    broker.create_topic()
    broker.publish(*history(broker, ids=20, versions=3))
    calls = Calls()
    with running(consumer_of(broker, service, calls, batch_events=7)):
        wait_until(lambda: service.effect_count() == 60)
    assert max(calls.sizes) == 7


@pytest.mark.guarantee("Nothing committed is lost")
def test_one_bad_event_does_not_hold_its_neighbours(
    broker: Broker, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before it is applied, other partitions go on, it alone is named; mended, everything goes on."""
    broker.create_topic(partitions=2)
    broken = True

    def fails(events: Sequence[DomainEvent], _: psycopg.Connection) -> None:
        if broken and "id-7" in names(events):
            raise ValueError("cannot apply id-7")

    broker.publish(*history(broker, ids=40, versions=2))
    placed = broker.read_places(broker.topic())
    (bad,) = [(partition, offset) for partition, offset, event in placed if event.id == "item:id-7:1"]
    free = [event.id for partition, offset, event in placed if partition != bad[0] or offset < bad[1]]
    calls = Calls(fails)
    with running(consumer_of(broker, service, calls)) as run:
        wait_until(lambda: any(each.tries >= 3 for each in run.consumer.status().blocked))
        wait_until(lambda: service.effect_count() == len(free))
        (blocked,) = run.consumer.status().blocked
        assert (blocked.event_id, blocked.partition, blocked.offset) == ("item:id-7:1", *bad)
        assert sorted(str(row[0]) for row in service.execute("SELECT event_id FROM effect")) == sorted(free)
        calls.sizes.clear()
        broken = False
        wait_until(lambda: service.effect_count() == 80)
        assert max(calls.sizes) > 1
        assert run.consumer.status().blocked == ()
    told = [each.getMessage() for each in caplog.records if "trying them one by one" in each.getMessage()]
    assert len(told) == 1
    assert "cannot apply id-7" in told[0]
    assert_exactly_once(broker, service)


def test_a_handler_that_fails_only_with_several_events_goes_on_one_by_one(
    broker: Broker, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """An upsert that meets two versions of one row is refused by the database; singly, every event is applied."""
    broker.create_topic(partitions=1)
    service.execute("CREATE TABLE newest (id text PRIMARY KEY, version bigint)")

    def fails(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO newest SELECT * FROM unnest(%s::text[], %s::bigint[])"
            " ON CONFLICT (id) DO UPDATE SET version = excluded.version",
            ([event.identity.id_text for event in events], [event.version for event in events]),
        )

    broker.publish(*history(broker, ids=3, versions=4))
    with running(consumer_of(broker, service, Calls(fails))) as run:
        wait_until(lambda: service.effect_count() == 12)
        assert run.consumer.status().blocked == ()
    assert service.execute("SELECT DISTINCT version FROM newest") == [(4,)]
    told = [each.getMessage() for each in caplog.records if "trying them one by one" in each.getMessage()]
    assert len(told) == 1
    assert "cannot affect row a second time" in told[0]
    assert_exactly_once(broker, service)


def test_a_swallowed_database_error_names_its_event(broker: Broker, service: Service) -> None:
    """A handler that goes on after a failed statement keeps nothing of it, however many events it was given."""
    broker.create_topic(partitions=1)
    mended = False

    def fails(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        if "b" in names(events) and not mended:
            with contextlib.suppress(psycopg.Error):
                connection.execute("SELECT 1/0")

    broker.publish(*(broker.event(each, 1) for each in "abc"))
    with running(consumer_of(broker, service, Calls(fails))) as run:
        wait_until(lambda: run.consumer.status().blocked)
        assert run.consumer.status().blocked[0].event_id == "item:b:1"
        assert service.effects() == [("a", 1)]
        mended = True
        wait_until(lambda: service.effects() == [("a", 1), ("b", 1), ("c", 1)])


def test_an_error_at_commit_finds_its_event(broker: Broker, service: Service) -> None:
    """A deferred constraint fails at COMMIT: smaller batches apply what can be applied and block at the culprit."""
    broker.create_topic(partitions=1)
    service.execute(
        "CREATE TABLE parent (id text PRIMARY KEY);"
        "CREATE TABLE child (id text REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    service.execute("INSERT INTO parent SELECT 'id-' || n FROM generate_series(0, 9) AS n WHERE n <> 6")

    def fails(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        connection.execute("INSERT INTO child SELECT unnest(%s::text[])", ([each.identity.id_text for each in events],))

    broker.publish(*history(broker, ids=10, versions=1))
    with running(consumer_of(broker, service, Calls(fails))) as run:
        wait_until(lambda: run.consumer.status().blocked)
        assert run.consumer.status().blocked[0].event_id == "item:id-6:1"
        assert [id_text for id_text, _ in service.effects()] == [f"id-{number}" for number in range(6)]
        service.execute("INSERT INTO parent VALUES ('id-6')")
        wait_until(lambda: service.effect_count() == 10)


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_gap_ends_the_call_before_it(broker: Broker, service: Service) -> None:
    """What stands before a missing version is applied, nothing behind it, and the consumer stops."""
    broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), broker.event("b", 1), broker.event("a", 3), broker.event("b", 2))
    calls = Calls()
    run = Run(consumer_of(broker, service, calls))
    run.join()
    assert isinstance(run.error, StopError)
    assert run.error.code == "GAP"
    assert service.effects() == [("a", 1), ("b", 1)]
    assert calls.sizes == [2]


def test_a_malformed_record_blocks_its_partition(broker: Broker, service: Service) -> None:
    """The events before a record that is no event come at once; what is behind it waits."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("a", 1), broker.event("b", 1), Record(topic, b"c", b"not json", ()))
    broker.publish(broker.event("d", 1))
    with running(consumer_of(broker, service, Calls())) as run:
        wait_until(lambda: run.consumer.status().blocked)
        assert run.consumer.status().blocked[0].offset == 2
        assert service.effects() == [("a", 1), ("b", 1)]


def test_both_kinds_of_handlers_share_a_transaction(broker: Broker, service: Service) -> None:
    """Events of two aggregates, one with each kind of handler, are applied together; one that fails takes all along."""
    for aggregate in ("item", "holdings"):
        broker.create_topic(aggregate, partitions=1)
    broken = True

    def single(event: DomainEvent, connection: psycopg.Connection) -> None:
        note(event, connection)
        if broken and event.version == 3:
            raise ValueError("not yet")

    calls = Calls()
    consumer = consumer_of(broker, service, calls)
    consumer.on(f"{broker.domain}.holdings", major=1)(single)
    broker.publish(
        *(
            make_event(broker.domain, "a", version, aggregate=kind)
            for kind in ("item", "holdings")
            for version in (1, 2, 3)
        )
    )
    with running(consumer) as run:
        wait_until(lambda: run.consumer.status().blocked)
        wait_until(lambda: service.effect_count() == 5)
        assert run.consumer.status().blocked[0].event_id == "holdings:a:3"
        broken = False
        wait_until(lambda: service.effect_count() == 6)


@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize("step", ["after_lock", "in_commit", "after_commit"])
def test_a_consumer_killed_at_any_step_applies_everything_once(
    broker: Broker, service: Service, tmp_path: Path, step: str
) -> None:
    """Killed with many events under way, its successor goes on, and no effect is missing or doubled."""
    broker.create_topic()
    broker.publish(*history(broker, ids=40, versions=10))
    first = Process(broker, service, NAME, tmp_path / "first", ["--batch"], f"consumer.{step}=kill@3")
    try:
        assert first.wait() == -signal.SIGKILL
    finally:
        first.process.kill()
    with running(consumer_of(broker, service, Calls())):
        wait_until(lambda: service.effect_count() >= 400)
    assert_exactly_once(broker, service)


@pytest.mark.guarantee("Any instance may die")
def test_an_instance_frozen_in_a_pipeline_is_replaced(broker: Broker, service: Service, tmp_path: Path) -> None:
    """Between two statements of a pipeline no limit of the server counts: the other instance still goes on in 30 s."""
    broker.create_topic()
    freeze = tmp_path / "freeze"
    freeze.touch()
    broker.publish(*history(broker, ids=40, versions=2))
    first = Process(broker, service, NAME, tmp_path / "first", ["--batch", "--freeze", str(freeze)])
    try:
        wait_until(lambda: not freeze.exists(), what="the first instance freezes")
        with running(consumer_of(broker, service, Calls())):
            wait_until(lambda: service.effect_count() == 80, 30, "the second instance takes over")
            first.send(signal.SIGCONT)
            broker.publish(*(broker.event(f"id-{number}", 3) for number in range(40)))
            wait_until(lambda: service.effect_count() == 120)
    finally:
        first.process.kill()
        first.wait()
    assert_exactly_once(broker, service)
