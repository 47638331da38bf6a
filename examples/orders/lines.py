"""Purchase order lines: the service's tables, and placing an order."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from importlib.resources import files

import psycopg


def create_tables(connection: psycopg.Connection) -> None:
    """Creates the service's tables where they are missing; callers at the same time wait for each other."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('examples.orders'))")
        connection.execute(files("examples.orders").joinpath("schema.sql").read_bytes())


def place_order(
    connection: psycopg.Connection, item_ids: Sequence[uuid.UUID | str], vendor: str = "Demo Books Ltd"
) -> uuid.UUID:
    """A new purchase order with one line for each of *item_ids*, known or not; its id."""
    order_id = uuid.uuid4()
    with connection.transaction():
        connection.execute("INSERT INTO purchase_order (id, vendor) VALUES (%s, %s)", (order_id, vendor))
        connection.execute(
            "INSERT INTO po_line (purchase_order_id, item_id) SELECT %s, unnest(%s::uuid[])",
            (order_id, [str(each) for each in item_ids]),
        )
    return order_id
