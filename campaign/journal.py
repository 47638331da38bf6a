"""
The generator's own log: every transaction that a client tried, its row changes and how it ended. Append-only.

A client whose COMMIT got no answer notes that it does not know, and asks the source for the outcome later.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from campaign.rows import RowChange

COMMITTED, ABORTED = "committed", "aborted"


@dataclass(slots=True)
class Attempt:
    """
    One transaction of client *client*; times are Unix times.

    *outcome* is None until it is known; *ended_at* is when the client heard of it, or found out (*resolved*).
    *context* is what it attached to the transaction.
    """

    client: int
    kind: str
    began_at: float
    xid: int = 0
    changes: list[RowChange] = field(default_factory=list)
    outcome: str | None = None
    ended_at: float | None = None
    resolved: bool = False
    context: dict[str, str] = field(default_factory=dict)


class Journal:
    """The log in *path*, and what it says; for several threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self.attempts: list[Attempt] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def begin(self, client: int, kind: str) -> Attempt:
        """A transaction is begun."""
        attempt = Attempt(client, kind, time.time())
        with self._lock:
            self.attempts.append(attempt)
        return attempt

    def about_to_commit(self, attempt: Attempt) -> None:
        """Its COMMIT, or PREPARE, is sent after this returns."""
        self._write(
            {
                "xid": attempt.xid,
                "client": attempt.client,
                "kind": attempt.kind,
                "began_at": attempt.began_at,
                "changes": attempt.changes,
                "context": attempt.context,
            }
        )

    def settle(self, attempt: Attempt, outcome: str, *, resolved: bool = False) -> None:
        """Its *outcome* is known."""
        attempt.ended_at, attempt.resolved, attempt.outcome = time.time(), resolved, outcome
        self._write({"xid": attempt.xid, "outcome": outcome, "at": attempt.ended_at, "resolved": resolved})

    def in_flight(self) -> int:
        """How many transactions are open at this moment, or have an unknown outcome."""
        with self._lock:
            return sum(attempt.outcome is None for attempt in self.attempts[-200:])

    def committed(self) -> dict[int, Attempt]:
        """The committed transactions that changed something, by xid."""
        with self._lock:
            found = [each for each in self.attempts if each.outcome == COMMITTED and each.changes]
        return {each.xid: each for each in found}

    def counts(self) -> dict[str, int]:
        """How many transactions ended how."""
        with self._lock:
            attempts = list(self.attempts)
        return {
            "transactions": sum(each.outcome == COMMITTED for each in attempts),
            "rolled_back": sum(each.outcome == ABORTED for each in attempts),
            "outcome_asked": sum(each.resolved for each in attempts),
            "changes": sum(len(each.changes) for each in attempts if each.outcome == COMMITTED),
        }

    def _write(self, entry: dict[str, object]) -> None:
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()


def unsettled(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Those whose outcome nobody knows."""
    return [each for each in attempts if each.outcome is None]
