"""
What other services may see of the inventory: each aggregate's published state, read from its tables.

This is the inventory's own account of the truth, in the JSON forms of its contracts: ids as text, numeric as
text, times as RFC 3339 in UTC. It knows nothing of the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg

AGGREGATES = ("instance", "holdings", "item")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "instance": (
        "id", "hrid", "title", "source", "instance_type", "contributors", "languages", "published_year",
        "discovery_suppress", "updated_at",
    ),
    "holdings": ("id", "hrid", "instance_id", "permanent_location", "call_number", "updated_at"),
    "item": ("id", "hrid", "holdings_id", "barcode", "material_type", "status", "price", "updated_at"),
}  # fmt: skip
# The joined column of each ancestor type, nearest first.
_ANCESTORS: Mapping[str, Mapping[str, str]] = {
    "instance": {},
    "holdings": {"instance": "x.instance_id"},
    "item": {"holdings": "x.holdings_id", "instance": "parent.instance_id"},
}
_JOIN = {"instance": "", "holdings": "", "item": " JOIN public.holdings parent ON parent.id = x.holdings_id"}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """An aggregate of the inventory: its type and id text."""

    aggregate: str
    id_text: str


@dataclass(frozen=True, slots=True)
class State:
    """
    The published state of one aggregate: *after* is the entity, None when there is no such row (any more).

    *ancestors* maps each ancestor type to its ids; empty when *after* is None.
    """

    after: Mapping[str, Any] | None
    ancestors: Mapping[str, list[str]]


GONE = State(None, {})


def read_states(connection: psycopg.Connection, aggregate: str, ids: Iterable[UUID] | None = None) -> dict[Key, State]:
    """
    The states of *aggregate* as the current transaction sees them: all, or exactly those of *ids*.

    An id without a row is `GONE`.
    """
    columns = ", ".join(f"x.{name}" for name in COLUMNS[aggregate])
    ancestors = "".join(f", {column}" for column in _ANCESTORS[aggregate].values())
    statement = f"SELECT {columns}{ancestors} FROM public.{aggregate} x{_JOIN[aggregate]}"
    if ids is None:
        return dict(_state(aggregate, row) for row in connection.execute(statement))
    wanted = list(ids)
    found = dict(_state(aggregate, row) for row in connection.execute(f"{statement} WHERE x.id = ANY(%s)", (wanted,)))
    return {key: found.get(key, GONE) for key in (Key(aggregate, str(identity)) for identity in wanted)}


def read_all_states(connection: psycopg.Connection) -> dict[Key, State]:
    """Every aggregate's state, in one snapshot of the database."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return {key: state for each in AGGREGATES for key, state in read_states(connection, each).items()}


def _state(aggregate: str, row: tuple[Any, ...]) -> tuple[Key, State]:
    names = COLUMNS[aggregate]
    after = {name: json_form(value) for name, value in zip(names, row, strict=False)}
    ancestors = {name: [str(value)] for name, value in zip(_ANCESTORS[aggregate], row[len(names) :], strict=True)}
    return Key(aggregate, after["id"]), State(after, ancestors)


def json_form(value: Any) -> Any:
    """*value* as the contracts write it."""
    match value:
        case UUID() | Decimal():
            return str(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case _:
            return value
