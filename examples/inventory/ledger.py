"""
The load's own log of committed transactions: the truth that a verdict compares the pipeline with.

Each entry is written by the client that committed, from rows it read back inside its own transaction. Tickets
are drawn while the transaction still holds the locks of the rows that it touched, so for any one aggregate the
order of tickets is the order of commits.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from examples.inventory.published import GONE, Key, State


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedTransaction:
    """
    One committed transaction. *committed_at* is the Unix time at which COMMIT had returned to the client.

    *states* holds every aggregate that it touched, as it stood at the end of the transaction; *changes* counts
    the rows that it inserted, updated or deleted; *context* is what it attached, if anything.
    """

    ticket: int
    kind: str
    xid: str
    committed_at: float
    changes: int
    context: Mapping[str, str] | None
    states: Mapping[Key, State]


class Ledger:
    """
    Committed transactions, in memory and as JSON lines in *path*; safe to use from several threads.

    *initial* are the states before the load; they only serve `expected_events`, a running count for display.
    """

    def __init__(self, path: Path, initial: Mapping[Key, State]) -> None:
        self._file = path.open("wb")
        self._tickets = itertools.count(1)
        self._lock = threading.Lock()
        self._current = dict(initial)
        self._committed: list[CommittedTransaction] = []
        # (expected events so far, when the last of them was committed), for the lag on display.
        self._milestones: list[tuple[int, float]] = []
        self.rolled_back = 0
        self.expected_events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def draw_ticket(self) -> int:
        """The next number; to be drawn right before COMMIT, while the rows are locked."""
        return next(self._tickets)

    def record(self, entry: CommittedTransaction) -> None:
        """Note a transaction whose COMMIT has returned."""
        line = orjson.dumps(_document(entry), option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            self._committed.append(entry)
            self._file.write(line)
            for key, state in entry.states.items():
                if state != self._current.get(key, GONE):
                    self.expected_events += 1
                    self._current[key] = state
            self._milestones.append((self.expected_events, entry.committed_at))

    def record_rollback(self) -> None:
        """Count a transaction that was rolled back on purpose."""
        with self._lock:
            self.rolled_back += 1

    def waiting_since(self, applied: int) -> float | None:
        """About when the oldest transaction was committed whose events are not among the first *applied* ones."""
        with self._lock:
            place = bisect.bisect_right(self._milestones, applied, key=lambda entry: entry[0])
            return self._milestones[place][1] if place < len(self._milestones) else None

    @property
    def committed_count(self) -> int:
        """How many transactions have been committed so far."""
        return len(self._committed)

    def transactions(self) -> list[CommittedTransaction]:
        """All committed transactions by ticket."""
        with self._lock:
            self._file.flush()
            return sorted(self._committed, key=lambda entry: entry.ticket)


def _document(entry: CommittedTransaction) -> dict[str, object]:
    states = [
        {"aggregate": key.aggregate, "id": key.id_text, "after": state.after, "ancestors": state.ancestors}
        for key, state in entry.states.items()
    ]
    return {
        "ticket": entry.ticket,
        "kind": entry.kind,
        "xid": entry.xid,
        "committed_at": entry.committed_at,
        "changes": entry.changes,
        "context": entry.context,
        "states": states,
    }
