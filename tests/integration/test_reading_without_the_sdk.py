"""A client in another language, which follows the documented rules, comes to what the SDK comes to."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from consumer_fixture import Broker, Service, note, running, wait_until
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError
from node_fixture import Reader

from rowcast.consumer import Consumer
from rowcast.event import DomainEvent, EventKind, Record
from rowcast.topics import PROGRESS_TOPIC

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/node_reader"
AT = "2026-03-02T07:15:00.000000Z"


def publish_progress(broker: Broker, ends: dict[str, int], at: str = AT) -> None:
    """Say that the topic was written up to *ends* when it was *at*."""
    with broker.admin() as admin:
        try:
            configuration = {"cleanup.policy": "compact"}
            topic = NewTopic(name=PROGRESS_TOPIC, num_partitions=1, replication_factor=1, topic_configs=configuration)
            admin.create_topics([topic])
        except TopicAlreadyExistsError:
            pass
    value = {"source": "shop", "heartbeat_at": at, "end_offsets": {broker.topic(): ends}}
    broker.publish(Record(PROGRESS_TOPIC, broker.domain.encode(), orjson.dumps(value), ()))


def history(broker: Broker) -> list[DomainEvent]:
    """Versions in order, some sent again, one that comes back, hostile ids, and a gap that a snapshot closes."""
    events = [broker.event(id_text, version) for version in (1, 2, 3) for id_text in ("1", "a,b/ü", "~", "0")]
    again = [broker.event("1", 2), broker.event("1", 1), broker.event("1", 3)]
    ended = [broker.event("0", 4, EventKind.DELETED), broker.event("0", 5, EventKind.CREATED)]
    return [*events, *again, *ended, broker.event("~", 9, EventKind.SNAPSHOT), broker.event("~", 10)]


@pytest.mark.guarantee("Low coupling")
def test_a_client_of_another_language_applies_what_the_sdk_applies(
    broker: Broker, service: Service, node_reader: Reader
) -> None:
    """The same events, each once, each aggregate's in order; of an aborted transaction nothing."""
    topic = broker.create_topic(partitions=3)
    broker.publish(*history(broker))
    broker.publish(broker.event("1", 4), commit=False)
    consumer = Consumer("sdk", service.url, broker.brokers)
    consumer.on(f"{broker.domain}.item", major=1)(note)
    expected = [event.id for event in history(broker)[:12]] + [event.id for event in history(broker)[15:]]
    with running(consumer):
        wait_until(lambda: service.effect_count() == len(expected))
    applied = [str(row[0]) for row in service.execute("SELECT event_id FROM effect ORDER BY seq")]
    ends: dict[str, int] = {}
    for partition, offset, _event in broker.read_places(topic):
        ends[str(partition)] = offset + 1
    publish_progress(broker, ends)

    read = node_reader(broker.brokers, topic, "168", AT)
    assert read.returncode == 0, read.stderr
    rows = [line.split(" ", 1) for line in read.stdout.splitlines()]
    assert sorted(name for name, _value in rows) == sorted(applied) == sorted(expected)
    for id_text in ("1", "~", "0", "a%2Cb%2F%C3%BC"):
        mine = [int(name.rpartition(":")[2]) for name, _value in rows if name.startswith(f"item:{id_text}:")]
        assert mine == sorted(mine)
    assert {"after", "before", "ancestors", "context"} <= json.loads(rows[0][1]).keys()


def test_a_gap_is_loss_unless_it_is_older_than_the_window(broker: Broker, node_reader: Reader) -> None:
    """The reader stops with the aggregate's name; with the window over, the same gap is compaction."""
    topic = broker.create_topic(partitions=1)
    broker.publish(broker.event("1", 1), broker.event("1", 3))
    publish_progress(broker, {"0": 2})
    lost = node_reader(broker.brokers, topic, "168", AT)
    assert (lost.returncode, lost.stdout.count("\n")) == (1, 1)
    assert "shop/1: version 3 follows 1: an event is lost" in lost.stderr
    compacted = node_reader(broker.brokers, topic, "0", AT)
    assert (compacted.returncode, compacted.stdout.count("\n")) == (0, 2), compacted.stderr
    broker.publish(Record(topic, b"1", b"{}", ()))
    assert "1: not an event" in node_reader(broker.brokers, topic, "0", "2999").stderr


def test_the_reader_is_as_small_as_it_says_and_its_packages_are_pinned() -> None:
    """At most 60 lines, as many as the page says; a lock file with checksums and without download addresses."""
    lines = len((EXAMPLE / "reader.js").read_text().splitlines())
    page = (EXAMPLE.parents[1] / "docs/reference/reading-without-the-sdk.md").read_text()
    assert lines <= 60
    assert f"in {lines} lines" in page
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    packages = [entry for name, entry in lock["packages"].items() if name]
    assert all(each["integrity"].startswith("sha512-") and "resolved" not in each for each in packages)
