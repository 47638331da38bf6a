"""
Events as CloudEvents 1.0 in Kafka's binary content mode: the rules of the specification, and its own reader for Python.

Sources: CloudEvents 1.0.2, "Context Attributes", and its Kafka protocol binding, "Kafka Message Mapping".
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from urllib.parse import urlsplit

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from rowcast.event import EventForm, EventKind, EventMajor, Moment, Record, decode
from rowcast.identity import join_id_parts

# The most unusual that an event may hold: ids with every kind of character, the largest numbers, a trace.
IDS = ("1", join_id_parts(["a b/c,d", "ünïcode 𝄞", "%:"]), join_id_parts(["\0\n\t\r\u2028"]), "x" * 1_000)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
VALUE = {"after": {"name": "Größe 𝄞"}, "ancestors": {}, "before": None, "context": {}}
SOURCE = "https://shop.example.org/orders?part=1#x"


def record(id_text: str, kind: EventKind = EventKind.UPDATED, version: int = 2**63) -> Record:
    form = EventForm(
        source="shop",
        source_uri=SOURCE,
        of=EventMajor("shop", "order", 9999, "urn:rowcast:schema:shop.order:9999.0"),
    )
    moment = Moment(2**64 - 1, "2026-11-21T11:45:44.078828Z", TRACE)
    return form.record(kind, id_text, version, moment, json.dumps(VALUE).encode())


@pytest.fixture(params=[(each, kind) for each in IDS for kind in EventKind], ids=str)
def sent(request: pytest.FixtureRequest) -> Record:
    """A record of each kind with each id."""
    return record(*request.param)


def test_a_record_keeps_the_rules_of_the_binding(sent: Record) -> None:
    """Binary mode: data as the value, its type as `content-type`, each attribute once as `ce_…` in UTF-8."""
    names = [name for name, _ in sent.headers]
    attributes = {name.removeprefix("ce_"): raw.decode() for name, raw in sent.headers if name.startswith("ce_")}

    assert len(set(names)) == len(names)
    assert dict(sent.headers)["content-type"] == b"application/json"
    assert not dict(sent.headers)["content-type"].startswith(b"application/cloudevents"), (
        "that would be structured mode"
    )
    assert set(names) == {"content-type", *(f"ce_{name}" for name in attributes)}
    assert "datacontenttype" not in attributes
    assert json.loads(sent.value) == VALUE
    assert sent.value, "no value is a tombstone on a compacted topic"


def test_attributes_keep_the_rules_of_the_specification(sent: Record) -> None:
    """Required ones are there, names and values have their form, and source and id name one event."""
    attributes = {name.removeprefix("ce_"): raw.decode() for name, raw in sent.headers if name.startswith("ce_")}

    assert {"id", "source", "specversion", "type"} <= attributes.keys()
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in attributes)
    assert all(attributes.values()), "an attribute is not empty"
    assert attributes["specversion"] == "1.0"
    assert urlsplit(attributes["source"]).scheme
    assert urlsplit(attributes["dataschema"]).scheme, "an absolute URI"
    assert datetime.fromisoformat(attributes["time"]).utcoffset() is not None
    assert attributes["subject"] in attributes["id"]
    # Numbers beyond 32 bits are strings; the extension `sequence` is ordered as text.
    assert re.fullmatch(r"[0-9]{20}", attributes["sequence"])
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "".join(attributes.values())), (
        "characters no string may hold"
    )
    assert attributes["traceparent"] == TRACE


def test_ids_of_different_events_differ() -> None:
    """Source and id together are unique: another aggregate, version or part."""
    ids = {dict(record(id_text, version=version).headers)["ce_id"] for id_text in IDS for version in (1, 2)}
    assert len(ids) == 2 * len(IDS)


def test_the_reader_of_the_cloudevents_project_reads_it(sent: Record) -> None:
    """All attributes and the data; what it reads gives the event back."""
    message = KafkaMessage(headers=dict(sent.headers), key=sent.key, value=sent.value)
    event = from_binary(message, JSONFormat(), CloudEvent)
    ours = decode(*sent)

    assert (event.get_id(), event.get_source(), event.get_type()) == (ours.id, ours.source_uri, ours.type)
    assert (event.get_subject(), event.get_specversion()) == (ours.identity.id_text, "1.0")
    assert event.get_dataschema() == ours.dataschema
    assert event.get_time() == datetime.fromisoformat(ours.time)
    assert event.get_data() == VALUE == ours.value()
    assert int(event.get_extension("sequence")) == ours.version
    assert event.get_extension("traceparent") == ours.traceparent
