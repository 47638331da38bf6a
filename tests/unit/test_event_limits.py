"""What is too large, too deep or ambiguous: refused where it is made, and where it is read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch

from rowcast.errors import MalformedEventError
from rowcast.event import EventForm, EventKind, EventMajor, Moment, Record, decode
from stream_app.core.mapping import compile_mapping
from stream_app.core.state import Key

FORM = EventForm(
    source="shop",
    source_uri="urn:shop",
    of=EventMajor("shop", "order", 1, "urn:schema:shop.order:1.0"),
)
VALUE = {"after": {"id": 1}, "ancestors": {}, "before": None, "context": {}}
SECRET = "a secret"


def record(value: bytes) -> Record:
    return FORM.record(EventKind.CREATED, "1", 1, Moment(1, "2026-01-01T00:00:00Z"), value)


def raw(**changes: Any) -> bytes:
    return json.dumps({**VALUE, **changes}).encode()


def nested(levels: int) -> Any:
    value: Any = SECRET
    for _ in range(levels):
        value = [value]
    return value


REFUSED = {
    "too large": (raw(after={"text": SECRET * 200_000}), "more than 1000000"),
    "too deep": (raw(after={"inner": nested(70)}), "nested deeper than 64 levels"),
    "much too deep": (b'{"after":' + b"[" * 100_000, "no JSON at character"),
    "NaN": (b'{"after":{"id":NaN},"ancestors":{},"before":null,"context":{}}', "no JSON at character 15"),
    "a name twice": (
        b'{"after":{"id":1,"id":"a secret"},"ancestors":{},"before":null,"context":{}}',
        "a name stands twice in one object",
    ),
    "not UTF-8": (b'{"after":{"id":"\xff a secret"}}', "no JSON"),
    "no value": (b"", "no JSON"),
    "no object": (b"[1]", "the value is not an event"),
    "a part is missing": (b'{"after":{},"ancestors":{},"before":null}', "the value is not an event"),
    "a text for the entity": (raw(after=SECRET), "the value is not an event"),
    "a list for the former values": (raw(before=[SECRET]), "the value is not an event"),
    "no ancestors": (raw(ancestors=None), "the value is not an event"),
    "a text for the context": (raw(context=SECRET), "the value is not an event"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_consumer_refuses_a_value_that_readers_may_differ_about(case: str) -> None:
    """Or that no producer may write; the message holds nothing of it."""
    value, message = REFUSED[case]
    with pytest.raises(MalformedEventError, match=message) as refused:
        decode(*record(value))
    assert SECRET not in str(refused.value)


def test_what_is_within_the_limits_is_read() -> None:
    """Also where somebody else wrote it, with blanks and in another order."""
    value = json.dumps({**VALUE, "after": {"inner": nested(60)}, "more": None}, indent=1).encode()
    assert decode(*record(value)).after == {"inner": nested(60)}


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ("t" * 2_000_000, r"the event has 2\d{6} bytes; at most 1000000 can be published"),
        (nested(70), "the event is nested deeper than 64 levels"),
    ],
)
def test_an_event_that_no_consumer_would_take_is_a_visible_refusal(tags: Any, reason: str) -> None:
    """The next valid row is published; nothing else waits."""
    definition = build_definition()
    mapping = compile_mapping(definition, {each.name: accept for each in definition.aggregates})
    log, store = ChangeLog(), MemoryStore()
    sent = []
    for each in (tags, "short"):
        start = len(log.values)
        log.transaction([("c", "instance", None, {"id": "1", "title": "t", "tags": json.dumps(each)})])
        records, view = run_batch(mapping, store, log.records(start))
        store.save(view)
        sent.append(len(records))
        refusal = store.aggregates[Key("instance", "1")].refusal
        if not records:
            assert refusal is not None
            assert re.fullmatch(reason, refusal.reason)
    assert sent == [0, 1]
    assert refusal is None
