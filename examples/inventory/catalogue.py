"""
The starting catalogue: seeded, so that the same seed and size give the same rows, and loaded with COPY.

Every title has one to three holdings, and holdings have none to four items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from examples.inventory import vocabulary

_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
TABLES = ("instance", "holdings", "item")  # parents first
_CATALOGUE_LOCK = 0x496E7643  # any constant: two loads of one database wait for each other


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One row of *table*, by column."""

    table: str
    columns: Mapping[str, Any]


def create_schema(connection: psycopg.Connection) -> None:
    """Create the tables where they do not exist."""
    with connection.transaction():
        connection.execute(files("examples.inventory").joinpath("schema.sql").read_bytes())


def generate(instances: int, seed: int) -> Iterator[CatalogueRow]:
    """The rows of a catalogue with *instances* titles, each parent before its children."""
    rng = Random(seed)
    holdings_count = item_count = 0
    for number in range(1, instances + 1):
        instance = _row(rng, "instance", f"in{number:08d}", vocabulary.instance_fields(rng))
        yield instance
        for _ in range(rng.randint(1, 3)):
            holdings_count += 1
            fields = {"instance_id": instance.columns["id"], **vocabulary.holdings_fields(rng)}
            holdings = _row(rng, "holdings", f"ho{holdings_count:08d}", fields)
            yield holdings
            for _ in range(rng.randint(0, 4)):
                item_count += 1
                barcode = None if rng.random() < 0.05 else f"{30_000_000_000_000 + item_count}"
                fields = {"holdings_id": holdings.columns["id"], "barcode": barcode, **vocabulary.item_fields(rng)}
                yield _row(rng, "item", f"it{item_count:08d}", fields)


def load(connection: psycopg.Connection, rows: Iterable[CatalogueRow]) -> dict[str, int]:
    """
    Copy *rows* into empty tables, all in one transaction, and return how many each table has now.

    A database that already holds a catalogue is left as it is.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CATALOGUE_LOCK,))
        if not sum(count(connection).values()):
            _copy(connection, rows)
        return count(connection)


def count(connection: psycopg.Connection) -> dict[str, int]:
    """The number of rows of each table."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM public.instance), (SELECT count(*) FROM public.holdings),"
        " (SELECT count(*) FROM public.item)"
    ).fetchone()
    return dict(zip(TABLES, row or (0, 0, 0), strict=True))


def _row(rng: Random, table: str, hrid: str, fields: Mapping[str, Any]) -> CatalogueRow:
    identity = UUID(int=rng.getrandbits(128), version=4)
    updated_at = _EPOCH + timedelta(microseconds=rng.randrange(365 * 86_400 * 1_000_000))
    return CatalogueRow(table, {"id": identity, "hrid": hrid, **fields, "updated_at": updated_at})


def _copy(connection: psycopg.Connection, rows: Iterable[CatalogueRow]) -> None:
    by_table: dict[str, list[CatalogueRow]] = {table: [] for table in TABLES}
    for row in rows:
        by_table[row.table].append(row)
    for table, members in by_table.items():
        if not members:
            continue
        names = tuple(members[0].columns)
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY public.{table} ({', '.join(names)}) FROM STDIN") as copy,
        ):
            for member in members:
                copy.write_row([_copied(name, member.columns[name]) for name in names])
    connection.execute("ANALYZE public.instance, public.holdings, public.item")


def _copied(name: str, value: Any) -> Any:
    return Jsonb(value) if name == "contributors" else value
