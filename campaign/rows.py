"""Rows of random tables: how they are read, compared, and how a transaction changes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from campaign.random_schema import Row, Rows, Type

RowKey = tuple[str, tuple[Any, ...]]
_AS_TEXT = ("jsonb", "numeric(10,2)")


class RowChange(NamedTuple):
    """One changed row: the key that it had, if that key is gone now, and the row that is there now, if any."""

    table: str
    removed: tuple[Any, ...] | None
    row: Row | None


def shown_columns(made: Type) -> str:
    """The columns of a type's table as a SELECT or RETURNING list that gives the values of `random_schema`."""
    return ", ".join(f"{name}::text" if type_ in _AS_TEXT else name for name, type_ in made.columns.items())


def as_row(made: Type, values: Sequence[Any]) -> Row:
    """A row from the values of `shown_columns`."""
    return dict(zip(made.columns, values, strict=True))


def key_of(made: Type, row: Row) -> tuple[Any, ...]:
    """The primary key of *row*."""
    return tuple(row[name] for name in made.key)


def read_rows(connection: psycopg.Connection[Any], types: Iterable[Type]) -> Rows:
    """The rows of all tables as SELECT shows them."""
    rows = Rows()
    for made in types:
        for values in connection.execute(f"SELECT {shown_columns(made)} FROM {made.name}".encode()):
            row = as_row(made, values)
            rows[made.name, key_of(made, row)] = row
    return rows


def apply_changes(rows: Rows, changes: Iterable[RowChange], types: Mapping[str, Type]) -> None:
    """Change *rows* as a transaction did."""
    for change in changes:
        if change.removed is not None:
            rows.pop((change.table, change.removed), None)
        if change.row is not None:
            rows[change.table, key_of(types[change.table], change.row)] = change.row


def last_images(changes: Iterable[RowChange], types: Mapping[str, Type]) -> dict[RowKey, Row | None]:
    """The last state of each row that a transaction touched; None where it is gone."""
    images: dict[RowKey, Row | None] = {}
    for change in changes:
        if change.removed is not None:
            images[change.table, change.removed] = None
        if change.row is not None:
            images[change.table, key_of(types[change.table], change.row)] = change.row
    return images


def canonical(made: Type, row: Row) -> Row:
    """*row* with documents as values, so that their spelling does not count."""
    return {
        name: ("document", json.loads(value)) if made.columns[name] == "jsonb" and isinstance(value, str) else value
        for name, value in row.items()
    }
