"""Runs the orders consumer: ``python -m examples.orders``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from examples.orders.handlers import NAME, orders_consumer
from examples.orders.lines import create_tables
from rowcast.brokers import Brokers
from rowcast.database import connect
from rowcast.errors import RowcastError, StopError
from rowcast.settings import Settings, load_settings

DATABASE = "orders"


def main() -> int:
    """Exit code 0: stopped when asked; 1: stopped by a fault; 2: wrong settings or environment."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders",
        description="Keep purchase order lines current by the events of the inventory service.",
        epilog="example: python -m examples.orders --database postgresql://orders@127.0.0.1/orders",
    )
    parser.add_argument("--project", type=Path, default=Path(), help="project folder (default: the current one)")
    parser.add_argument(
        "--database", metavar="URL", help="the service's own database (default: the project's 'orders')"
    )
    parser.add_argument("--brokers", metavar="HOST:PORT", help="bootstrap servers (default: the project's)")
    parser.add_argument(
        "--check", action="store_true", help="only say whether an instance is a member of the group (exit code 0 or 1)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)  # its states are ours to tell
    try:
        settings = load_settings(options.project)
        if options.check:
            return 0 if _has_members(_kafka(options.brokers, settings)) else 1
        database = options.database or settings.database(DATABASE).url
        with connect(database, application=DATABASE) as connection:
            create_tables(connection)
        kafka = _kafka(options.brokers, settings)
        orders_consumer(database, kafka.servers, kafka.security).run()
    except RowcastError as error:
        print(f"orders: {error}", file=sys.stderr)
        return 1 if isinstance(error, StopError) else 2
    return 0


def _kafka(brokers: str | None, settings: Settings) -> Brokers:
    return Brokers(brokers) if brokers else settings.kafka()


def _has_members(kafka: Brokers) -> bool:
    try:
        with KafkaAdminClient(**kafka.kafka_python(), bootstrap_timeout_ms=5000, request_timeout_ms=5000) as client:
            return bool(client.describe_groups([NAME])[NAME]["members"])
    except (KafkaError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(main())
