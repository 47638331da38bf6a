"""Published events as lines and documents, and finding their topic and partition."""

from __future__ import annotations

import json

import pytest
from consumer_fixture import make_event

from rowcast.consumer.partitions import Delivery, Partition
from rowcast.errors import MalformedEventError
from rowcast.event_log import _newest, partition_of
from rowcast.event_text import event_document, event_line

PLACE = Partition("shop.item.v1", 3)


def test_a_line_holds_nothing_that_a_terminal_obeys() -> None:
    """Escape sequences, line feeds and characters that turn the direction are shown, not sent."""
    event = make_event("shop", "1", 1, after={"note": "\x1b[2J\n\x9b5m\u202etxt ü€"})
    line = event_line(Delivery(PLACE, 7, 0, event))
    assert line.isprintable()
    assert "\\u001b[2J\\n\\u009b5m\\u202etxt ü€" in line
    assert line.startswith("2026-01-01T00:00:00Z  shop.item.created.v1  1  version 1  after {")


def test_a_document_holds_the_event_and_its_place() -> None:
    """All that headers, value and broker say of it; JSON on one line."""
    event = make_event("shop", "a b", 2)
    document = json.loads(json.dumps(event_document(Delivery(PLACE, 7, 1_500, event))))
    assert (document["id"], document["subject"], document["version"]) == ("item:a%20b:2", "a%20b", 2)
    assert document["after"] == {"id": "a b", "n": 2}
    assert {name: document[name] for name in ("topic", "partition", "offset", "appended_at")} == {
        "topic": "shop.item.v1",
        "partition": 3,
        "offset": 7,
        "appended_at": "1970-01-01T00:00:01.500Z",
    }


def test_a_record_that_is_no_event_is_told() -> None:
    """Line and document say why, and where it stands."""
    delivery = Delivery(PLACE, 7, None, MalformedEventError("header ce_id is missing\x1b"))
    assert event_line(delivery) == "shop.item.v1[3] offset 7: not an event: header ce_id is missing\\u001b"
    assert event_document(delivery)["error"].startswith("header ce_id")
    assert event_document(delivery)["appended_at"] is None


@pytest.mark.parametrize(
    ("name", "topic"),
    [("a.b", "a.b.v10"), ("a.b.v2", "a.b.v2"), ("a.b.v3", None), ("a.c", None), ("a", None), ("", None)],
)
def test_a_name_without_major_means_the_newest(name: str, topic: str | None) -> None:
    """Majors are compared as numbers; a whole topic means itself."""
    assert _newest(name, ["a.b.v2", "a.b.v10", "a.b.v9", "a.bb.v11"]) == topic


def test_a_key_s_partition_is_that_of_every_other_client() -> None:
    """Murmur2 as Java's client has it: known answers of its tests, whatever the order of the partitions."""
    partitions = [Partition("t", number) for number in (2, 0, 1)]
    assert [partition_of(key, partitions).number for key in ("21", "foobar", "a-little-bit-long-string")] == [
        (-973932308 & 0x7FFFFFFF) % 3,
        (-790332482 & 0x7FFFFFFF) % 3,
        (-985981536 & 0x7FFFFFFF) % 3,
    ]
