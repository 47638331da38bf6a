"""Commands: what operators ask the owner of a source to do, as rows that it executes in order."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping
from typing import Any

import psycopg


def ask(connection: psycopg.Connection, source: str, verb: str, arguments: Mapping[str, Any]) -> int:
    """Ask the owner of *source*; returns the command's number."""
    row = connection.execute(
        "INSERT INTO rowcast.command (source, verb, arguments, asked_by) VALUES (%s, %s, %s, %s) RETURNING number",
        (source, verb, json.dumps(arguments), getpass.getuser()),
    ).fetchone()
    assert row is not None, "an insert returns its row"
    return int(row[0])


def wait_outcome(connection: psycopg.Connection, number: int, timeout_s: float) -> str | None:
    """What came of a command; None when no owner has executed it within *timeout_s*."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        row = connection.execute("SELECT outcome FROM rowcast.command WHERE number = %s", (number,)).fetchone()
        if row is not None and row[0] is not None:
            return str(row[0])
        if time.monotonic() > deadline_s:
            return None
        time.sleep(0.2)
