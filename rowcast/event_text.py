"""Events as lines: for people, safe in a terminal, and as JSON documents. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rowcast.consumer.partitions import Delivery
from rowcast.errors import MalformedEventError


def event_document(delivery: Delivery) -> dict[str, Any]:
    """What `--json` prints of a record: the event, or why it is none, and where it stands."""
    appended = delivery.appended_ms
    place = {
        "topic": delivery.partition.topic,
        "partition": delivery.partition.number,
        "offset": delivery.offset,
        "appended_at": None if appended is None else _instant(appended),
    }
    event = delivery.content
    if isinstance(event, MalformedEventError):
        return {"error": str(event), **place}
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source_uri,
        "subject": event.identity.id_text,
        "version": event.version,
        "time": event.time,
        "dataschema": event.dataschema,
        "position": event.position,
        "traceparent": event.traceparent,
        **event.value(),
        **place,
    }


def event_line(delivery: Delivery) -> str:
    """One line for a person: when, what, whose, which version; then what it is and what it was."""
    event = delivery.content
    if isinstance(event, MalformedEventError):
        return printable(f"{delivery.partition} offset {delivery.offset}: not an event: {event}")
    parts = [event.time, event.type, event.identity.id_text, f"version {event.version}"]
    value = event.value()
    values = {name: value.get(name) for name in ("after", "data", "before", "ancestors", "context")}
    parts += [f"{name} {_text(value)}" for name, value in values.items() if value or name == "after"]
    return "  ".join(printable(part) for part in parts)


def printable(text: str) -> str:
    """*text* with everything escaped that a terminal could take for a command, or that hides what is there."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _instant(milliseconds: int) -> str:
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
