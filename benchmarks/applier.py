"""
A consumer process for the benchmark: ``python -m benchmarks.applier HANDLER DOMAIN``.

HANDLER is `orders`, the orders example's handlers, or `upsert`, one row for each aggregate. The database and the
brokers come in the environment, because a command line is for everybody to read.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping

import psycopg
from psycopg.types.json import Jsonb

from examples.orders.handlers import holdings_changed, instance_changed, item_changed
from examples.orders.lines import create_tables
from rowcast.consumer import Consumer, DomainEvent

CONSUMER = "bench"
DATABASE, BROKERS = "BENCH_DATABASE", "BENCH_BROKERS"
ORDERS, UPSERT = "orders", "upsert"
_ENTITY = """
CREATE TABLE IF NOT EXISTS entity (
    aggregate text, id_text text, version bigint NOT NULL, content jsonb, PRIMARY KEY (aggregate, id_text)
)
"""
_UPSERT = """
INSERT INTO entity (aggregate, id_text, version, content) VALUES (%s, %s, %s, %s)
ON CONFLICT (aggregate, id_text) DO UPDATE SET version = excluded.version, content = excluded.content
"""
Handlers = Mapping[str, Callable[[DomainEvent, psycopg.Connection], None]]


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
    for aggregate, function in _handlers(handler).items():
        consumer.on(f"{domain}.{aggregate}", major=1)(function)
    consumer.run()


def _handlers(name: str) -> Handlers:
    if name == ORDERS:
        return {"instance": instance_changed, "holdings": holdings_changed, "item": item_changed}
    return dict.fromkeys(("instance", "holdings", "item"), _upsert)


def _upsert(event: DomainEvent, connection: psycopg.Connection) -> None:
    identity = event.identity
    content = None if event.after is None else Jsonb(event.after)
    connection.execute(_UPSERT, (identity.aggregate, identity.id_text, event.version, content))


if __name__ == "__main__":
    main(*sys.argv[1:])
