"""
The live consumer of a round: ``python -m campaign.applier HOW DOMAIN AGGREGATE…``, HOW is `single` or `batch`.

Its tables hold the last state of each aggregate, and every effect. Nothing in them keeps a second or a late effect out:
what the inbox lets through shows. Calls of its handlers may fail now and then, before or after they have written. The
database and the brokers come in the environment, because a command line is for everybody to read.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Sequence

import orjson
import psycopg

from rowcast.consumer import Consumer, DomainEvent

CONSUMER = "campaign"
DATABASE, BROKERS, FAILING = "CAMPAIGN_DATABASE", "CAMPAIGN_BROKERS", "CAMPAIGN_FAILING"
SINGLE, BATCH = "single", "batch"
TABLES = """
CREATE TABLE effect (
    seq bigserial PRIMARY KEY, aggregate text NOT NULL, id_text text NOT NULL, version bigint NOT NULL,
    event_id text NOT NULL
);
CREATE TABLE mirror (
    aggregate text, id_text text, version bigint NOT NULL, after text NOT NULL, ancestors text NOT NULL,
    PRIMARY KEY (aggregate, id_text)
);
"""
_EFFECT = "INSERT INTO effect (aggregate, id_text, version, event_id) VALUES (%s, %s, %s, %s)"
_MIRROR = """
INSERT INTO mirror VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (aggregate, id_text) DO UPDATE
SET version = excluded.version, after = excluded.after, ancestors = excluded.ancestors
"""


def main(how: str, domain: str, *aggregates: str) -> None:
    """Apply all events of these aggregate types until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The members of the round before it, which were killed, are in a group of their own.
    consumer = Consumer(f"{CONSUMER}_{domain}", os.environ[DATABASE], os.environ[BROKERS], batch_events=100)
    for aggregate in aggregates:
        if how == BATCH:
            consumer.on_batch(f"{domain}.{aggregate}", major=1)(_apply_all)
        else:
            consumer.on(f"{domain}.{aggregate}", major=1)(_apply)
    consumer.run()


def _may_fail() -> None:
    # Half of them on each side of the writing.
    if random.random() < float(os.environ.get(FAILING, "0")) / 2:
        raise RuntimeError("the handler fails now and then")


def _apply(event: DomainEvent, connection: psycopg.Connection) -> None:
    _may_fail()
    _write(event, connection)
    _may_fail()


def _write(event: DomainEvent, connection: psycopg.Connection) -> None:
    identity = event.identity
    after, ancestors = (orjson.dumps(value).decode() for value in (event.after, event.ancestors))
    connection.execute(_EFFECT, (identity.aggregate, identity.id_text, event.version, event.id))
    connection.execute(_MIRROR, (identity.aggregate, identity.id_text, event.version, after, ancestors))


def _apply_all(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
    _may_fail()
    with connection.pipeline():
        for event in events:
            _write(event, connection)
    _may_fail()


if __name__ == "__main__":
    main(*sys.argv[1:])
