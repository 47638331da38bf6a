"""
A consumer process for tests: notes each event in table ``effect``.

usage: consumer_service.py DATABASE BROKERS DOMAIN NAME [--freeze FILE] [--slow SECONDS] [--batch]

With --freeze, the process stops itself (SIGSTOP) inside the transaction of the first event that it handles while
FILE exists, and removes FILE. With --batch, the events of a transaction come at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from consumer_fixture import note

from rowcast.consumer import Consumer, DomainEvent


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("database", "brokers", "domain", "name"):
        parser.add_argument(name)
    parser.add_argument("--freeze", type=Path)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--batch", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    consumer = Consumer(options.name, options.database, options.brokers, batch_events=50)

    def item_changed(event: DomainEvent, connection: psycopg.Connection) -> None:
        note(event, connection)
        if options.freeze and options.freeze.exists():
            options.freeze.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(options.slow)

    def items_changed(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
        with connection.pipeline():
            for event in events:
                item_changed(event, connection)

    item = f"{options.domain}.item"
    if options.batch:
        consumer.on_batch(item, major=1)(items_changed)
    else:
        consumer.on(item, major=1)(item_changed)
    consumer.run()


if __name__ == "__main__":
    main()
