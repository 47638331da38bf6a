"""What has to be on the topics: one event per aggregate per transaction that changed its published state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from examples.inventory.ledger import CommittedTransaction
from examples.inventory.published import GONE, Key, State

_TIMES = frozenset({"updated_at"})


@dataclass(frozen=True, slots=True)
class ExpectedEvent:
    """*transaction* changed an aggregate from *former* to *state*."""

    former: State
    state: State
    transaction: CommittedTransaction

    @property
    def kind(self) -> str:
        """What the event has to call itself."""
        if self.state.after is None:
            return "deleted"
        return "created" if self.former.after is None else "updated"


def expected_events(
    initial: Mapping[Key, State], transactions: Iterable[CommittedTransaction]
) -> dict[Key, list[ExpectedEvent]]:
    """For each aggregate that a transaction really changed, its events in order of commit."""
    current = dict(initial)
    events: dict[Key, list[ExpectedEvent]] = {}
    for transaction in sorted(transactions, key=lambda entry: entry.ticket):
        for key, state in transaction.states.items():
            former = current.get(key, GONE)
            if state != former:
                events.setdefault(key, []).append(ExpectedEvent(former, state, transaction))
                current[key] = state
    return events


def final_states(initial: Mapping[Key, State], transactions: Iterable[CommittedTransaction]) -> dict[Key, State]:
    """What the source has to look like after *transactions*."""
    current = dict(initial)
    for transaction in sorted(transactions, key=lambda entry: entry.ticket):
        current |= transaction.states
    return {key: state for key, state in current.items() if state.after is not None}


def token(state: State) -> bytes:
    """A text that two states share exactly when they say the same; times are compared as instants."""
    if state.after is None:
        return b"gone"
    after = {name: _instant(value) if name in _TIMES else value for name, value in state.after.items()}
    return orjson.dumps([after, state.ancestors], option=orjson.OPT_SORT_KEYS)


def _instant(value: Any) -> Any:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value  # not a time: it differs from every time
    return moment.astimezone(UTC).isoformat() if moment.tzinfo else value
