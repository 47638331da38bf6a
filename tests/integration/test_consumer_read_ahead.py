"""What a reader knows beyond the events it hands out: those read ahead, and positions where no event comes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import psycopg
import pytest
from consumer_fixture import Broker, Service, note, running, wait_until
from kafka import KafkaConsumer, TopicPartition

from rowcast.consumer import Consumer, DomainEvent
from rowcast.consumer.connection import client_options
from rowcast.consumer.partitions import Partition
from rowcast.consumer.reader import Reader

NAME = "ahead"
EVENTS = 400


class Handler:
    """Notes each event; *bad* fails until it is mended."""

    def __init__(self, bad: str = "", pause_s: float = 0.0) -> None:
        self.bad, self.pause_s = bad, pause_s

    def __call__(self, events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        """As the SDK calls it."""
        for event in events:
            note(event, connection)
            if event.identity.id_text == self.bad:
                raise ValueError("not yet")
        time.sleep(self.pause_s)


def consumer_of(broker: Broker, service: Service, handler: Handler) -> Consumer:
    consumer = Consumer(NAME, service.url, broker.brokers, batch_events=5)
    consumer.on_batch(f"{broker.domain}.item", major=1)(handler)
    return consumer


def fill(broker: Broker) -> None:
    broker.create_topic(partitions=1)
    broker.publish(*(broker.event(f"id-{number}", 1) for number in range(EVENTS)))


def effects_in_order(service: Service) -> list[str]:
    return [str(row[0]) for row in service.execute("SELECT id_text FROM effect ORDER BY seq")]


@pytest.mark.guarantee("Effects exactly once")
def test_a_rewind_forgets_what_was_read_ahead(broker: Broker, service: Service) -> None:
    """Set back in the middle of a long topic, the consumer skips what it did, and misses nothing."""
    fill(broker)
    with running(consumer_of(broker, service, Handler(pause_s=0.01))) as run:
        for goal in (50, 150):
            wait_until(lambda goal=goal: service.effect_count() >= goal)  # type: ignore[misc]
            service.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 0, generation = generation + 1")
        wait_until(lambda: service.effect_count() == EVENTS)
        assert run.consumer.status().skipped >= 200
    assert effects_in_order(service) == [f"id-{number}" for number in range(EVENTS)]


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_was_read_ahead_is_not_passed(broker: Broker, service: Service) -> None:
    """While an event blocks, the stored position stays at it, whatever has been read behind it and however long."""
    fill(broker)
    handler = Handler(bad="id-42")
    with running(consumer_of(broker, service, handler)) as run:
        wait_until(lambda: any(each.tries >= 5 for each in run.consumer.status().blocked))
        assert service.offsets(NAME)[broker.topic(), 0][1] == 42
        assert effects_in_order(service) == [f"id-{number}" for number in range(42)]
        handler.bad = ""
        wait_until(lambda: service.effect_count() == EVENTS)
    assert effects_in_order(service) == [f"id-{number}" for number in range(EVENTS)]


@pytest.mark.guarantee("Effects exactly once")
def test_a_broken_connection_costs_nothing_that_was_read_ahead(broker: Broker, service: Service) -> None:
    """Database sessions killed while the next events are being read: each event still has one effect, in order."""
    fill(broker)
    with running(consumer_of(broker, service, Handler(pause_s=0.005))):
        for goal in (20, 80, 140, 200):
            wait_until(lambda goal=goal: service.effect_count() >= goal)  # type: ignore[misc]
            service.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'rowcast%'"
            )
        wait_until(lambda: service.effect_count() >= EVENTS)
    assert Counter(effects_in_order(service)) == Counter(f"id-{number}" for number in range(EVENTS))
    assert effects_in_order(service) == [f"id-{number}" for number in range(EVENTS)]


def test_a_reader_that_is_ahead_hands_out_what_was_asked_for(broker: Broker) -> None:
    """Its position is not known before what it read ahead is handed out; a seek or another assignment forgets that."""
    fill(broker)
    place = Partition(broker.topic(), 0)
    reader = Reader(client_options(broker.brokers, {}), max_records=5)

    def offsets(expected: list[int]) -> bool:
        return [each.offset for each in reader.poll(1.0, [])] == expected

    try:
        reader.assign([place])
        reader.seek(place, 0)
        wait_until(lambda: offsets([0, 1, 2, 3, 4]))
        reader.read_ahead([])
        assert reader.position(place) is None
        assert offsets([5, 6, 7, 8, 9])
        assert reader.position(place) == 10
        reader.read_ahead([])
        reader.seek(place, 3)
        wait_until(lambda: offsets([3, 4, 5, 6, 7]))
        reader.read_ahead([])
        reader.assign([])
        reader.assign([place])
        reader.seek(place, 8)
        wait_until(lambda: offsets([8, 9, 10, 11, 12]))
    finally:
        reader.close()


def test_positions_past_markers_are_told_in_turns(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many partitions each has its turn, however short the time; none is asked for that holds nothing more."""
    count = 30
    topic = broker.create_topic(partitions=count)
    broker.publish(*(broker.event(f"id-{number}", 1) for number in range(count)), commit=False)
    places = {Partition(topic, number) for number in range(count)}
    reader = Reader(client_options(broker.brokers, {}), max_records=5)
    asked: list[Partition] = []

    def position(self: KafkaConsumer, place: TopicPartition, timeout_ms: int | None = None) -> int | None:
        asked.append(Partition(place.topic, place.partition))
        return ask(self, place, timeout_ms)

    ask = KafkaConsumer.position
    monkeypatch.setattr(KafkaConsumer, "position", position)
    try:
        ends = {each: end for each, (_, end) in reader.ranges(places).items()}
        written = {each for each, end in ends.items() if end}
        assert 1 < len(written) < count
        reader.assign(places)
        for place in places:
            reader.seek(place, 0)
        fetched = dict.fromkeys(places, 0)

        def all_told() -> bool:
            assert reader.poll(0.1, []) == []
            before = len(asked)
            fetched.update(reader.passed(fetched, within_s=0))
            assert len(asked) - before <= 1
            return fetched == ends

        wait_until(all_told)
        assert set(asked) == written
        asked.clear()
        assert reader.passed(fetched, within_s=1) == {}
        assert not asked
    finally:
        reader.close()
