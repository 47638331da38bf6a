"""
The workloads: what a client commits to the inventory, and how many rows and events have to come of it.

Every row and id follows from its number alone. The loop runs inside the server, one COMMIT after the other, so that
no client is slower than what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

_INSTANCE = """
INSERT INTO public.instance
    (id, hrid, title, source, instance_type, contributors, languages, published_year, updated_at)
SELECT md5('instance' || n)::uuid, 'in' || lpad(n::text, 11, '0'), 'The art of cataloguing, volume ' || n, 'MARC',
       'text', jsonb_build_array(jsonb_build_object('name', 'Panizzi, Antonio', 'primary', true),
                                 jsonb_build_object('name', 'Cutter, Charles', 'primary', false)),
       ARRAY['eng', 'ita'], 1800 + n % 200, timestamptz '2024-01-01 UTC' + n * interval '1 second'
"""
_HOLDINGS = """
INSERT INTO public.holdings (id, hrid, instance_id, permanent_location, call_number, updated_at)
SELECT md5('holdings' || 3 * n + m)::uuid, 'ho' || lpad((3 * n + m)::text, 11, '0'), md5('instance' || n)::uuid,
       'Main library', 'QA76.' || n, timestamptz '2024-01-01 UTC' + n * interval '1 second'
FROM generate_series(0, 2) AS m
"""
_ITEM = """
INSERT INTO public.item (id, hrid, holdings_id, barcode, material_type, status, price, updated_at)
SELECT md5('item' || 6 * n + m)::uuid, 'it' || lpad((6 * n + m)::text, 11, '0'),
       md5('holdings' || 3 * n + m / 2)::uuid, (30000000000000 + 6 * n + m)::text, 'book', 'Available', 24.90,
       timestamptz '2024-01-01 UTC' + n * interval '1 second'
FROM generate_series(0, 5) AS m
"""
_RENAME = "UPDATE public.instance SET title = title || ', revised' WHERE id = md5('instance' || n - {half})::uuid"
_THOUSAND = " FROM generate_series(1000 * (t - 1) + 1, 1000 * t) AS n"
_RENAME_THOUSAND = (
    "UPDATE public.instance SET title = title || ', revised' WHERE id = ANY(ARRAY("
    "SELECT md5('instance' || n)::uuid FROM generate_series(1000 * (t - {half} - 1) + 1, 1000 * (t - {half})) AS n))"
)
# The commits of a workload are not what is measured: they need not wait for the disk one by one.
_QUICK_COMMITS = "SET synchronous_commit = off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """
    *transactions* of *name*; *changes* counts its row changes by (table, operation as Debezium names it).

    *versions* is the version that every aggregate of a type has in the end: one event for each. *nested*: all tables
    make one aggregate, instead of one each. *initial*: it is committed before the source is applied, so the connector
    reads it as a snapshot, and not as *transactions*.
    """

    name: str
    transactions: int
    changes: Mapping[tuple[str, str], int]
    versions: Mapping[str, int]
    statement: sql.Composed
    nested: bool = False
    initial: bool = False

    @property
    def rows(self) -> int:
        """All row changes."""
        return sum(self.changes.values())

    def commit(self, url: str) -> None:
        """Commit it to the empty inventory at *url*; returns after its last COMMIT."""
        with psycopg.connect(url, autocommit=True, application_name="inventory") as connection:
            connection.execute(_QUICK_COMMITS)
            connection.execute(self.statement)


def bulk(rows: int) -> Workload:
    """One transaction that inserts *rows* titles with one statement."""
    statement = sql.SQL(_INSTANCE + "FROM generate_series(1, {}) AS n").format(sql.Literal(rows))
    return Workload(
        name="bulk",
        transactions=1,
        changes={("instance", "c"): rows},
        versions={"instance": 1},
        statement=statement,
    )


def large(rows: int) -> Workload:
    """As `bulk`, with so many rows that they fit into no worker's memory."""
    return replace(bulk(rows), name="large")


def plain(rows: int) -> Workload:
    """The rows of `bulk` in transactions of a thousand."""
    step = sql.SQL(_INSTANCE + _THOUSAND + ";")
    count = max(1, rows // 1000)
    return replace(bulk(1000 * count), name="plain", transactions=count, statement=_loop(count, step, "t"))


def snapshot(rows: int) -> Workload:
    """The rows of `plain`, which are there before the source is."""
    ordinary = plain(rows)
    changes = {("instance", "r"): ordinary.rows}
    return replace(ordinary, name="snapshot", transactions=0, changes=changes, initial=True)


def rows(transactions: int) -> Workload:
    """Transactions of one row: the first half inserts titles, the second half changes each of them once."""
    half = transactions // 2
    step = sql.SQL("IF n <= {half} THEN " + _INSTANCE + "; ELSE " + _RENAME + "; END IF;").format(
        half=sql.Literal(half)
    )
    return Workload(
        name="rows",
        transactions=2 * half,
        changes={("instance", "c"): half, ("instance", "u"): half},
        versions={"instance": 2},
        statement=_loop(2 * half, step),
    )


def trees(transactions: int) -> Workload:
    """Transactions of ten rows over three tables: a title with three holdings, each with two items."""
    return Workload(
        name="trees",
        transactions=transactions,
        changes={("instance", "c"): transactions, ("holdings", "c"): 3 * transactions, ("item", "c"): 6 * transactions},
        versions={"instance": 1, "holdings": 1, "item": 1},
        statement=_loop(transactions, sql.SQL(f"{_INSTANCE}; {_HOLDINGS}; {_ITEM};")),
    )


def nested(transactions: int) -> Workload:
    """The rows of `trees`, as one aggregate of ten rows for each transaction."""
    return replace(trees(transactions), name="nested", versions={"instance": 1}, nested=True)


def turnover(transactions: int) -> Workload:
    """Transactions of a thousand rows: the first half inserts titles, the second half changes each of them once."""
    half = transactions // 2
    step = sql.SQL("IF t <= {half} THEN " + _INSTANCE + _THOUSAND + "; ELSE " + _RENAME_THOUSAND + "; END IF;").format(
        half=sql.Literal(half)
    )
    return Workload(
        name="turnover",
        transactions=2 * half,
        changes={("instance", "c"): 1000 * half, ("instance", "u"): 1000 * half},
        versions={"instance": 2},
        statement=_loop(2 * half, step, "t"),
    )


def sized(name: str, scale: float) -> Workload:
    """The workload called *name* at *scale* times its full size."""
    make, size = SIZES[name]
    return make(max(2, round(size * scale)))


def _loop(count: int, step: sql.Composable, number: str = "n") -> sql.Composed:
    """One COMMIT after each *step*, which knows its *number*."""
    body = sql.SQL("DO $$ BEGIN FOR {number} IN 1..{count} LOOP {step} COMMIT; END LOOP; END $$")
    return body.format(number=sql.SQL(number), count=sql.Literal(count), step=step)


SIZES = {
    "bulk": (bulk, 200_000),
    "rows": (rows, 20_000),
    "trees": (trees, 5_000),
    "nested": (nested, 5_000),
    "turnover": (turnover, 2_000),
    "plain": (plain, 1_000_000),
    "large": (large, 1_000_000),
    "snapshot": (snapshot, 5_000_000),
}
# Measured unless others are named.
DEFAULT_WORKLOADS = ("bulk", "rows", "trees")
