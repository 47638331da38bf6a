"""
A consumer process for the benchmark: ``python -m benchmarks.applier HANDLER DOMAIN``.

HANDLER is `orders`, the orders example's handlers; `upsert`, one row for each aggregate, written event by event; or
`upsert_batch`, the same rows with one call for the events of a transaction. The database and the brokers come in the
environment, because a command line is for everybody to read.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

import orjson
import psycopg
from psycopg.types.json import Jsonb

from examples.orders.handlers import holdings_changed, instances_changed, items_changed
from examples.orders.lines import create_tables
from rowcast.consumer import Consumer, DomainEvent

CONSUMER = "bench"
DATABASE, BROKERS = "BENCH_DATABASE", "BENCH_BROKERS"
ORDERS, UPSERT, UPSERT_BATCH = "orders", "upsert", "upsert_batch"
_AGGREGATES = ("instance", "holdings", "item")
_ENTITY = """
CREATE TABLE IF NOT EXISTS entity (
    aggregate text, id_text text, version bigint NOT NULL, content jsonb, PRIMARY KEY (aggregate, id_text)
)
"""
_UPSERT = """
INSERT INTO entity (aggregate, id_text, version, content) VALUES (%s, %s, %s, %s)
ON CONFLICT (aggregate, id_text) DO UPDATE SET version = excluded.version, content = excluded.content
"""


def main(handler: str, domain: str) -> None:
    """Apply all events of *domain* until told to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    database = os.environ[DATABASE]
    with psycopg.connect(database, autocommit=True) as connection:
        if handler == ORDERS:
            create_tables(connection)
        else:
            connection.execute(_ENTITY)
    consumer = Consumer(CONSUMER, database, os.environ[BROKERS])
    together = {UPSERT_BATCH: dict.fromkeys(_AGGREGATES, _upsert_batch), ORDERS: _ORDERS_HANDLERS}
    for aggregate in _AGGREGATES:
        if handler in together:
            consumer.on_batch(f"{domain}.{aggregate}", major=1)(together[handler][aggregate])
        else:
            consumer.on(f"{domain}.{aggregate}", major=1)(_upsert)
    consumer.run()


def _upsert(event: DomainEvent, connection: psycopg.Connection) -> None:
    connection.execute(_UPSERT, _row(event))


def _upsert_batch(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(_UPSERT, map(_row, events))


def _row(event: DomainEvent) -> tuple[object, ...]:
    identity = event.identity
    content = None if event.after is None else Jsonb(event.after, dumps=orjson.dumps)
    return identity.aggregate, identity.id_text, event.version, content


_ORDERS_HANDLERS = {"instance": instances_changed, "holdings": holdings_changed, "item": items_changed}


if __name__ == "__main__":
    main(*sys.argv[1:])
