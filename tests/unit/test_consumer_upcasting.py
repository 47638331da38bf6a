"""Upcasters: a handler of a newer major on the topic of an older one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rowcast.consumer import Consumer, DomainEvent, EventKind
from rowcast.consumer.upcasting import Upcasting, chain
from rowcast.errors import ConfigurationError, MappingError
from rowcast.identity import Identity

ITEM = "inventory.item"


def split(entity: dict[str, Any]) -> dict[str, Any]:
    """1 → 2: the name becomes a list."""
    entity["names"] = entity.pop("name").split()
    return entity


def count(entity: dict[str, Any]) -> dict[str, Any]:
    """2 → 3: and its length."""
    return {**entity, "count": len(entity["names"])}


def event(kind: EventKind, after: Any, before: Any) -> DomainEvent:
    """One of major 1."""
    return DomainEvent(
        identity=Identity("inventory", "item", ("7",)),
        domain="inventory",
        kind=kind,
        major=1,
        version=4,
        position=1,
        time="2026-01-01T00:00:00.000000Z",
        source_uri="urn:x",
        dataschema="urn:rowcast:schema:inventory.item:1.0",
        after=after,
        before=before,
        ancestors={},
        context={},
    )


def turned(*told: Any) -> tuple[Any, Any]:
    """`after` and `before` of an event of major 1 in major 3."""
    upcast = chain(ITEM, (1, 3), {1: split, 2: count})
    assert upcast is not None
    found = upcast(event(*told))
    assert (found.major, found.version, found.dataschema[-3:]) == (3, 4, "1.0")
    return found.after, found.before


def test_what_a_service_stated_is_turned_too() -> None:
    """The entity takes the new form, its data stay, and nothing has changed."""
    upcast = chain(ITEM, (1, 3), {1: split, 2: count})
    assert upcast is not None

    found = upcast(replace(event(EventKind.UPDATED, {"id": "7", "name": "b c"}, {}), stated="lost", data={"n": 1}))

    assert (found.after, found.before) == ({"id": "7", "names": ["b", "c"], "count": 2}, {})
    assert (found.name, found.data, found.major) == ("lost", {"n": 1}, 3)


def test_what_changed_is_told_in_the_new_form() -> None:
    """The former entity is made whole, turned, and compared; what did not change is not in `before`."""
    new, old = {"id": "7", "names": ["b", "c"], "count": 2}, {"names": ["a"], "count": 1}

    assert turned(EventKind.CREATED, {"id": "7", "name": "b c"}, None) == (new, None)
    assert turned(EventKind.UPDATED, {"id": "7", "name": "b c"}, {"name": "a"}) == (new, old)
    assert turned(EventKind.UPDATED, {"id": "7", "name": "b c"}, {"name": "a d"}) == (new, {"names": ["a", "d"]})
    assert turned(EventKind.DELETED, None, {"id": "7", "name": "b c"}) == (None, new)


def test_former_ancestors_stay() -> None:
    """They are no part of the entity."""
    after, before = turned(EventKind.UPDATED, {"id": "7", "name": "b"}, {"ancestors": {"shelf": ["1"]}})

    assert after["names"] == ["b"]
    assert before == {"ancestors": {"shelf": ["1"]}}


def test_an_upcaster_does_not_change_what_was_read() -> None:
    """An event may be tried again."""
    read = event(EventKind.CREATED, {"id": "7", "name": "b", "tags": []}, None)

    def tag(entity: dict[str, Any]) -> dict[str, Any]:
        entity["tags"].append(1)
        return entity

    upcast = Upcasting(ITEM, 2, ((1, tag),))

    assert upcast(read).after == upcast(read).after == {"id": "7", "name": "b", "tags": [1]}


@pytest.mark.parametrize(("upcaster", "reason"), [(split, "KeyError: 'name'"), (lambda entity: [entity], "no dict")])
def test_a_failing_upcaster_is_named(upcaster: Any, reason: str) -> None:
    """Its event waits, as behind a handler that fails."""
    with pytest.raises(MappingError, match=rf"upcaster of inventory\.item from major 1.*{reason}"):
        Upcasting(ITEM, 2, ((1, upcaster),))(event(EventKind.CREATED, {}, None))


def a_consumer(major: int, reads: int | None, steps: tuple[int, ...]) -> Consumer:
    """With a handler, and an upcaster for each of *steps*; Kafka and database do not exist."""
    consumer = Consumer("orders", "postgresql:///orders", "127.0.0.1:1")
    consumer.on(ITEM, major=major, reads=reads)(lambda event, connection: None)
    for step in steps:
        consumer.upcaster(ITEM, major=step)(split)
    return consumer


@pytest.mark.parametrize(
    ("major", "reads", "steps", "message"),
    [
        (2, 1, (), "no upcaster leads from major 1 to 2"),
        (4, 1, (1, 3), "no upcaster leads from major 2 to 3"),
        (3, None, (1,), "no upcaster leads from major 2 to 3"),
        (2, 1, (1, 2), "the upcaster from major 2 leads beyond major 2"),
    ],
)
def test_a_chain_is_checked_before_anything_is_read(
    major: int, reads: int | None, steps: tuple[int, ...], message: str
) -> None:
    """A gap, or a step that leads nowhere, is an error of the set-up."""
    with pytest.raises(ConfigurationError, match=message):
        a_consumer(major, reads, steps).run()


def test_steps_are_registered_once_and_for_a_handler() -> None:
    """Two upcasters for one step, one for an unknown aggregate, or a handler older than what it reads, are refused."""
    consumer = a_consumer(2, 1, (1,))
    with pytest.raises(ConfigurationError, match="has an upcaster from major 1 already"):
        consumer.upcaster(ITEM, major=1)
    consumer.upcaster("inventory.shelf", major=1)(split)
    with pytest.raises(ConfigurationError, match=r"'inventory.shelf' has upcasters and no handler"):
        consumer.run()
    with pytest.raises(ConfigurationError, match="write the handler for major 3"):
        Consumer("orders", "postgresql:///orders", "127.0.0.1:1").on(ITEM, major=2, reads=3)
    with pytest.raises(ConfigurationError, match=r"domain\.aggregate"):
        consumer.upcaster("item", major=1)
