"""What the orders service does with each event of the inventory service."""

from __future__ import annotations

import psycopg

from examples.orders.lines import OF_HOLDINGS, OF_INSTANCE, OF_ITEM, refresh
from rowcast.consumer import Consumer, DomainEvent, EventKind


def orders_consumer(database: str, brokers: str) -> Consumer:
    """The consumer of the orders service, ready to run."""
    consumer = Consumer("orders", database, brokers)
    consumer.on("inventory.item", major=1)(item_changed)
    consumer.on("inventory.holdings", major=1)(holdings_changed)
    consumer.on("inventory.instance", major=1)(instance_changed)
    return consumer


def item_changed(event: DomainEvent, connection: psycopg.Connection) -> None:
    """Keeps the item's fields, its place and its deletion on every line that orders it."""
    row = _row(event)
    with connection.pipeline():  # one round trip for all statements
        if event.kind is EventKind.DELETED:
            connection.execute(
                "INSERT INTO known_item (id, version, deleted) VALUES (%(id)s, %(version)s, true)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version, deleted = true",
                row,
            )
        else:
            connection.execute(
                "INSERT INTO known_item (id, version, holdings_id, barcode, material_type, status) VALUES"
                " (%(id)s, %(version)s, %(holdings_id)s, %(barcode)s, %(material_type)s, %(status)s)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version, deleted = false,"
                " holdings_id = excluded.holdings_id, barcode = excluded.barcode,"
                " material_type = excluded.material_type, status = excluded.status",
                row,
            )
        refresh(connection, OF_ITEM, row)
        _note(event, connection)


def holdings_changed(event: DomainEvent, connection: psycopg.Connection) -> None:
    """Keeps call number and location, and follows holdings that move to another instance."""
    row = _row(event)
    with connection.pipeline():
        if event.kind is EventKind.DELETED:
            connection.execute("DELETE FROM known_holdings WHERE id = %(id)s", row)
        else:
            connection.execute(
                "INSERT INTO known_holdings (id, version, instance_id, call_number, location) VALUES"
                " (%(id)s, %(version)s, %(instance_id)s, %(call_number)s, %(permanent_location)s)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version, instance_id = excluded.instance_id,"
                " call_number = excluded.call_number, location = excluded.location",
                row,
            )
        refresh(connection, OF_HOLDINGS, row)
        _note(event, connection)


def instance_changed(event: DomainEvent, connection: psycopg.Connection) -> None:
    """Keeps the title."""
    row = _row(event)
    with connection.pipeline():
        if event.kind is EventKind.DELETED:
            connection.execute("DELETE FROM known_instance WHERE id = %(id)s", row)
        else:
            connection.execute(
                "INSERT INTO known_instance (id, version, title) VALUES (%(id)s, %(version)s, %(title)s)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version, title = excluded.title",
                row,
            )
        refresh(connection, OF_INSTANCE, row)
        _note(event, connection)


def _row(event: DomainEvent) -> dict[str, object]:
    """The entity's fields, with the id and version that a `deleted` event has too."""
    return {**(event.after or {}), "id": event.identity.parts[0], "version": event.version}


def _note(event: DomainEvent, connection: psycopg.Connection) -> None:
    """The witness: one row for each time that an event takes effect."""
    connection.execute(
        "INSERT INTO applied_event (event_id, aggregate, id_text, version, kind) VALUES (%s, %s, %s, %s, %s)",
        (event.id, event.identity.aggregate, event.identity.id_text, event.version, event.kind.value),
    )
