from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rowcast.consumer
from rowcast.consumer import Consumer
from rowcast.errors import ConfigurationError

DOCUMENTED = Path(__file__).parents[2] / "docs/reference/consumer.md"


def a_consumer() -> Consumer:
    return Consumer("orders", "postgresql:///orders", "127.0.0.1:9092")


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", "x" * 201])
def test_an_unusable_name_is_refused(name: str) -> None:
    """A consumer's name is a consumer group's name: letters, digits, dot, underscore, hyphen."""
    with pytest.raises(ConfigurationError, match="consumer name"):
        Consumer(name, "postgresql:///orders", "127.0.0.1:9092")


@pytest.mark.parametrize("bounds", [{"batch_events": 0}, {"batch_s": 0}])
def test_bounds_must_be_positive(bounds: dict[str, int]) -> None:
    """A batch holds at least one event and has some time."""
    with pytest.raises(ConfigurationError, match="positive"):
        Consumer("orders", "postgresql:///orders", "127.0.0.1:9092", **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("aggregate", "major"),
    [("item", 1), ("", 1), (".item", 1), ("inventory.", 1), ("a.b.c", 1), ("inventory.item", 0)],
)
def test_a_handler_needs_domain_and_aggregate(aggregate: str, major: int) -> None:
    """The name is domain.aggregate, the major counts from 1."""
    with pytest.raises(ConfigurationError, match=r"domain\.aggregate"):
        a_consumer().on(aggregate, major=major)


@pytest.mark.parametrize("major", [1, 2])
def test_a_second_handler_is_refused(major: int) -> None:
    """One handler for each aggregate, whatever the major: a mark counts over all majors."""
    consumer = a_consumer()
    consumer.on("inventory.item", major=1)(lambda event, connection: None)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        consumer.on("inventory.item", major=major)


@pytest.mark.parametrize("major", [1, 2])
def test_a_handler_of_batches_is_a_handler_too(major: int) -> None:
    """An aggregate has a handler of single events or one of batches, never both."""
    consumer = a_consumer()
    consumer.on_batch("inventory.item", major=1)(lambda events, connection: None)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        consumer.on("inventory.item", major=major)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        consumer.on_batch("inventory.item", major=major)
    with pytest.raises(ConfigurationError, match=r"domain\.aggregate"):
        consumer.on_batch("item", major=major)


def test_a_consumer_without_handlers_does_not_run() -> None:
    """There would be nothing to do."""
    with pytest.raises(ConfigurationError, match="no handler"):
        a_consumer().run()


def test_an_unknown_security_option_is_refused() -> None:
    """Only options that say how to reach the brokers can be given: the others are the SDK's."""
    consumer = Consumer("orders", "postgresql:///o", "127.0.0.1:9092", security={"auto_offset_reset": "latest"})
    consumer.on("inventory.item", major=1)(lambda event, connection: None)
    with pytest.raises(ConfigurationError, match="auto_offset_reset"):
        consumer.run()


def test_the_decorator_returns_the_handler() -> None:
    """A handler can still be called directly, in the service's own tests."""

    def handler(event: object, connection: object) -> None: ...

    assert a_consumer().on("inventory.item", major=1)(handler) is handler
    assert a_consumer().on_batch("inventory.item", major=1)(handler) is handler


def test_importing_the_sdk_loads_neither_faust_nor_librdkafka() -> None:
    """The SDK stays light: the worker's libraries are not touched."""
    program = "import sys, rowcast.consumer; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"faust", "mode", "aiokafka", "confluent_kafka", "jsonschema_rs", "jsonschema", "stream_app"}
    assert heavy.isdisjoint(eval(answer.stdout))  # noqa: S307 (the output of our own program)


def test_the_public_names_are_the_documented_ones() -> None:
    """Each name of __all__ has a heading in the reference page, and nothing else has one."""
    names = re.findall(r"^## `(\w+)", DOCUMENTED.read_text(), re.MULTILINE)
    assert sorted(names) == rowcast.consumer.__all__


def test_a_service_that_imports_the_sdk_waits_for_no_driver() -> None:
    """Handlers are declared, and can be tested, without Kafka and database; both are loaded by `run`."""
    code = "import sys, rowcast.consumer; print(sorted({'kafka', 'psycopg', 'jsonschema_rs'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
