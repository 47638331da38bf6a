"""What the tests of sources share: a row to capture, and the change log's values by operation."""

from __future__ import annotations

from typing import Any

from stack_fixture import TestProject

from rowcast.connect import ConnectClient

ROW = (
    "INSERT INTO instance (id, hrid, title, source, instance_type)"
    " VALUES (gen_random_uuid(), %s, 'One', 'MARC', 'text')"
)


def connect(project: TestProject) -> ConnectClient:
    """A client of the stack's Connect; close it."""
    return ConnectClient(project.stack.connect_url)


def operations(values: list[dict[str, Any]]) -> list[str]:
    """The operations of the change log's *values* in order: rows, and messages other than heartbeats."""
    return [value["op"] for value in values if "op" in value and not is_beat(value)]


def is_beat(value: dict[str, Any]) -> bool:
    """Whether *value* is a heartbeat."""
    return bool(value.get("message", {}).get("prefix") == "rowcast.heartbeat")
