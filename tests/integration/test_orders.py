from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_fixture import Broker, Run, make_event, new_database, wait_until

from examples.orders.handlers import holdings_changed, instances_changed, items_changed
from examples.orders.lines import create_tables, place_order
from rowcast.consumer import Consumer, DomainEvent, EventKind

LINE = (
    "SELECT barcode, material_type, item_status, item_deleted, call_number, location, title, item_version"
    " FROM po_line_current WHERE item_id = %s"
)


class Orders:
    """The orders service over topics of its own; versions are counted here."""

    def __init__(self, broker: Broker, url: str) -> None:
        self.broker, self.url = broker, url
        self.connection = psycopg.connect(url, autocommit=True)
        create_tables(self.connection)
        create_tables(self.connection)
        self.versions: dict[str, int] = {}
        self.sent: list[str] = []

    def consumer(self) -> Consumer:
        """The service's handlers on this test's topics."""
        consumer = Consumer("orders", self.url, self.broker.brokers)
        consumer.on_batch(f"{self.broker.domain}.item", major=1)(items_changed)
        consumer.on_batch(f"{self.broker.domain}.holdings", major=1)(holdings_changed)
        consumer.on_batch(f"{self.broker.domain}.instance", major=1)(instances_changed)
        return consumer

    def send(self, aggregate: str, id_text: str, **fields: object) -> None:
        """Publishes the next version of an aggregate; without fields it is deleted."""
        version = self.versions[id_text] = self.versions.get(id_text, 0) + 1
        kind = None if fields else EventKind.DELETED
        event = make_event(
            self.broker.domain, id_text, version, kind, aggregate=aggregate, after={"id": id_text, **fields}
        )
        self.sent.append(event.id)
        self.broker.publish(event)

    def item(self, id_text: str, holdings_id: str, barcode: str = "b1", status: str = "available") -> None:
        """An item event."""
        self.send("item", id_text, holdings_id=holdings_id, barcode=barcode, material_type="book", status=status)

    def holdings(self, id_text: str, instance_id: str, call_number: str) -> None:
        """A holdings event."""
        self.send(
            "holdings", id_text, instance_id=instance_id, call_number=call_number, permanent_location="Main Library"
        )

    def line(self, item_id: str) -> tuple[Any, ...]:
        """The fields of the item's line."""
        row = self.connection.execute(LINE, (item_id,)).fetchone()
        assert row is not None
        return row

    def applied(self) -> list[str]:
        """Ids of the events that took effect."""
        return [row[0] for row in self.connection.execute("SELECT event_id FROM applied_event ORDER BY seq")]

    def settle(self) -> None:
        """Waits until everything sent has been applied, once."""
        wait_until(lambda: len(self.applied()) >= len(self.sent), what="all events are applied")
        assert sorted(self.applied()) == sorted(self.sent)


@pytest.fixture
def orders(stack: Any) -> Iterator[Orders]:
    broker = Broker(stack.brokers)
    with new_database(stack.settings) as url:
        for aggregate in ("item", "holdings", "instance"):
            broker.create_topic(aggregate)
        orders = Orders(broker, url)
        run = Run(orders.consumer())
        try:
            yield orders
        finally:
            orders.connection.close()
            run.stop()


def ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def test_a_line_is_filled_in_whatever_order_its_aggregates_arrive(orders: Orders) -> None:
    """An item known before its holdings, and holdings before their instance, fill the line as they come."""
    item, holdings, instance = ids(3)
    place_order(orders.connection, [item])
    assert orders.line(item) == (None, None, None, False, None, None, None, None)
    orders.item(item, holdings)
    orders.settle()
    assert orders.line(item) == ("b1", "book", "available", False, None, None, None, 1)
    orders.holdings(holdings, instance, "QA 76")
    orders.settle()
    assert orders.line(item) == ("b1", "book", "available", False, "QA 76", "Main Library", None, 1)
    orders.send("instance", instance, title="Dune")
    orders.settle()
    assert orders.line(item) == ("b1", "book", "available", False, "QA 76", "Main Library", "Dune", 1)


def test_lines_follow_every_later_change(orders: Orders) -> None:
    """Changes of item, holdings and instance reach lines that were placed before and after them."""
    item, holdings, instance = ids(3)
    orders.send("instance", instance, title="Dune")
    orders.holdings(holdings, instance, "QA 76")
    orders.item(item, holdings)
    orders.settle()
    place_order(orders.connection, [item, item])
    assert orders.line(item)[4:7] == ("QA 76", "Main Library", "Dune")
    orders.item(item, holdings, barcode="b2", status="checked out")
    orders.holdings(holdings, instance, "QA 77")
    orders.send("instance", instance, title="Dune, revised")
    orders.settle()
    lines = orders.connection.execute(LINE, (item,)).fetchall()
    assert lines == [("b2", "book", "checked out", False, "QA 77", "Main Library", "Dune, revised", 2)] * 2


def test_an_item_that_moves_is_followed(orders: Orders) -> None:
    """An item moved to holdings of another instance shows their call number and title; moved holdings do too."""
    item, old, new, dune, emma = ids(5)
    orders.send("instance", dune, title="Dune")
    orders.send("instance", emma, title="Emma")
    orders.holdings(old, dune, "QA 76")
    orders.holdings(new, emma, "PR 40")
    orders.item(item, old)
    place_order(orders.connection, [item])
    orders.settle()
    assert orders.line(item)[4:7] == ("QA 76", "Main Library", "Dune")
    orders.item(item, new)
    orders.settle()
    assert orders.line(item)[4:7] == ("PR 40", "Main Library", "Emma")
    orders.holdings(new, dune, "PR 41")
    orders.settle()
    assert orders.line(item)[4:7] == ("PR 41", "Main Library", "Dune")


def test_a_deleted_item_is_flagged(orders: Orders) -> None:
    """The line stays, flagged, with what was known last; an item that comes back is no longer flagged."""
    item, holdings = ids(2)
    orders.item(item, holdings)
    place_order(orders.connection, [item])
    orders.send("item", item)
    orders.settle()
    assert orders.line(item) == ("b1", "book", "available", True, None, None, None, 2)
    orders.item(item, holdings, barcode="b9")
    orders.settle()
    assert orders.line(item) == ("b9", "book", "available", False, None, None, None, 3)


def test_deleted_holdings_and_instances_leave_no_old_data(orders: Orders) -> None:
    """What no longer exists is no longer shown."""
    item, holdings, instance = ids(3)
    orders.send("instance", instance, title="Dune")
    orders.holdings(holdings, instance, "QA 76")
    orders.item(item, holdings)
    place_order(orders.connection, [item])
    orders.send("instance", instance)
    orders.settle()
    assert orders.line(item)[4:7] == ("QA 76", "Main Library", None)
    orders.send("holdings", holdings)
    orders.settle()
    assert orders.line(item)[4:7] == (None, None, None)


def test_the_witness_would_show_a_double_effect(orders: Orders) -> None:
    """Table applied_event has no unique constraint: the same event handled twice leaves two rows."""
    item, holdings = ids(2)
    event: DomainEvent = make_event(
        orders.broker.domain,
        item,
        1,
        after={"id": item, "holdings_id": holdings, "barcode": "b", "material_type": "book", "status": "available"},
    )
    with psycopg.connect(orders.url) as connection:
        items_changed([event, event], connection)
    assert orders.applied() == [event.id, event.id]


def test_the_program_starts_and_stops(stack: Any, tmp_path: Path) -> None:
    """`python -m examples.orders` creates its tables, runs, and ends with exit code 0 on SIGTERM."""
    with new_database(stack.settings) as url:
        command = [sys.executable, "-m", "examples.orders", "--project", str(tmp_path)]
        options = ["--database", url, "--brokers", stack.brokers]
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                command + options, cwd=Path(__file__).parents[2], stderr=log, env={**os.environ, "PYTHONPATH": "."}
            )
        try:
            with psycopg.connect(url, autocommit=True) as connection:

                def migrated() -> bool:
                    query = "SELECT to_regclass('applied_event'), to_regclass('rowcast_inbox.mark')"
                    return None not in (connection.execute(query).fetchone() or (None,))

                wait_until(migrated, what="tables and inbox exist")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()


def test_the_program_names_what_is_missing(tmp_path: Path) -> None:
    """Without a stack and without options the program ends with exit code 2 and says what to set."""
    answer = subprocess.run(
        [sys.executable, "-m", "examples.orders", "--project", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "ROWCAST_DATABASE_ORDERS" in answer.stderr
