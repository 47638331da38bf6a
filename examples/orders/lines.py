"""Purchase order lines: placing them, and bringing them up to date with what is known of the catalogue."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files

import psycopg
from psycopg import sql

# A line joins three topics. Whoever refreshes lines holds this lock until the end of the transaction, so the next
# one sees everything that the one before wrote: no line keeps what two writers each saw half of.
_ONE_AT_A_TIME = "LOCK TABLE po_line IN SHARE ROW EXCLUSIVE MODE"
_REFRESH = sql.SQL(
    """
    UPDATE po_line AS line
    SET item_version = i.version, barcode = i.barcode, material_type = i.material_type, item_status = i.status,
        item_deleted = i.deleted, holdings_id = i.holdings_id, call_number = h.call_number, location = h.location,
        instance_id = h.instance_id, title = n.title
    FROM known_item AS i
    LEFT JOIN known_holdings AS h ON h.id = i.holdings_id
    LEFT JOIN known_instance AS n ON n.id = h.instance_id
    WHERE line.item_id = i.id AND {lines}
    """
)
OF_ITEM = _REFRESH.format(lines=sql.SQL("i.id = %(id)s"))
OF_HOLDINGS = _REFRESH.format(lines=sql.SQL("i.holdings_id = %(id)s"))
OF_INSTANCE = _REFRESH.format(lines=sql.SQL("h.instance_id = %(id)s"))
_OF_ORDER = _REFRESH.format(lines=sql.SQL("line.purchase_order_id = %(id)s"))


def create_tables(connection: psycopg.Connection) -> None:
    """Creates the service's tables where they are missing; callers at the same time wait for each other."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('examples.orders'))")
        connection.execute(files("examples.orders").joinpath("schema.sql").read_bytes())


def refresh(connection: psycopg.Connection, lines: sql.Composed, parameters: Mapping[str, object]) -> None:
    """Brings the lines that *lines* selects up to date, within the caller's transaction."""
    connection.execute(_ONE_AT_A_TIME)
    connection.execute(lines, parameters)


def place_order(
    connection: psycopg.Connection, item_ids: Sequence[uuid.UUID | str], vendor: str = "Demo Books Ltd"
) -> uuid.UUID:
    """A new purchase order with one line for each of *item_ids*, known or not; its id."""
    order_id = uuid.uuid4()
    with connection.transaction():
        connection.execute("INSERT INTO purchase_order (id, vendor) VALUES (%s, %s)", (order_id, vendor))
        connection.execute(_ONE_AT_A_TIME)
        connection.execute(
            "INSERT INTO po_line (purchase_order_id, item_id) SELECT %s, unnest(%s::uuid[])",
            (order_id, [str(each) for each in item_ids]),
        )
        connection.execute(_OF_ORDER, {"id": order_id})
    return order_id
