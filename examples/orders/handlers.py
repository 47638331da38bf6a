"""
What the orders service does with the events of the inventory service.

Each handler takes all events of its aggregate that one transaction holds, and writes them with a few statements.
Several of them may be of one aggregate: then the newest counts, because every event carries the whole entity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson
import psycopg
from psycopg.types.json import Jsonb

from rowcast.consumer import Consumer, DomainEvent

NAME = "orders"  # of the consumer and its group

_ITEMS = """
    INSERT INTO known_item (id, version, holdings_id, barcode, material_type, status)
    SELECT * FROM jsonb_to_recordset(%s)
        AS event (id uuid, version bigint, holdings_id uuid, barcode text, material_type text, status text)
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, deleted = false, holdings_id = excluded.holdings_id,
        barcode = excluded.barcode, material_type = excluded.material_type, status = excluded.status
"""
_DELETED_ITEMS = """
    INSERT INTO known_item (id, version, deleted)
    SELECT id, version, true FROM jsonb_to_recordset(%s) AS event (id uuid, version bigint)
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, deleted = true
"""
_HOLDINGS = """
    INSERT INTO known_holdings (id, version, instance_id, call_number, location)
    SELECT * FROM jsonb_to_recordset(%s)
        AS event (id uuid, version bigint, instance_id uuid, call_number text, permanent_location text)
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, instance_id = excluded.instance_id,
        call_number = excluded.call_number, location = excluded.location
"""
_INSTANCES = """
    INSERT INTO known_instance (id, version, title)
    SELECT * FROM jsonb_to_recordset(%s) AS event (id uuid, version bigint, title text)
    ON CONFLICT (id) DO UPDATE SET version = excluded.version, title = excluded.title
"""
# %b: psycopg makes the binary form of an array much faster than its text.
_APPLIED = """
    INSERT INTO applied_event (event_id, aggregate, id_text, version, kind)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::text[])
"""


def orders_consumer(database: str, brokers: str, security: Mapping[str, object] | None = None) -> Consumer:
    """The consumer of the orders service, ready to run."""
    consumer = Consumer(NAME, database, brokers, security=security)
    consumer.on_batch("inventory.item", major=1)(items_changed)
    consumer.on_batch("inventory.holdings", major=1)(holdings_changed)
    consumer.on_batch("inventory.instance", major=1)(instances_changed)
    return consumer


def items_changed(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
    """Keeps the items' fields and their place; a deleted item stays, flagged, with what was known of it last."""
    if known := _newest(event for event in events if event.after is not None):
        connection.execute(_ITEMS, (_rows(known, "holdings_id", "barcode", "material_type", "status"),))
    if deleted := [event for event in _newest(events) if event.after is None]:
        connection.execute(_DELETED_ITEMS, (_rows(deleted),))
    _note(events, connection)


def holdings_changed(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
    """Keeps call number and location, and follows holdings that move to another instance."""
    newest = _newest(events)
    if known := [event for event in newest if event.after is not None]:
        connection.execute(_HOLDINGS, (_rows(known, "instance_id", "call_number", "permanent_location"),))
    if deleted := [_id(event) for event in newest if event.after is None]:
        connection.execute("DELETE FROM known_holdings WHERE id = ANY(%s::uuid[])", (deleted,))
    _note(events, connection)


def instances_changed(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
    """Keeps the title."""
    newest = _newest(events)
    if known := [event for event in newest if event.after is not None]:
        connection.execute(_INSTANCES, (_rows(known, "title"),))
    if deleted := [_id(event) for event in newest if event.after is None]:
        connection.execute("DELETE FROM known_instance WHERE id = ANY(%s::uuid[])", (deleted,))
    _note(events, connection)


def _newest(events: Iterable[DomainEvent]) -> list[DomainEvent]:
    """The last event of each aggregate: events of one aggregate come in the order of their versions."""
    return list({_id(event): event for event in events}.values())


def _id(event: DomainEvent) -> str:
    return event.identity.parts[0]


def _rows(events: Iterable[DomainEvent], *fields: str) -> Jsonb:
    """Id, version and *fields* of each entity, for `jsonb_to_recordset`."""
    return Jsonb(
        [
            {"id": _id(event), "version": event.version, **{name: (event.after or {}).get(name) for name in fields}}
            for event in events
        ],
        dumps=orjson.dumps,
    )


def _note(events: Sequence[DomainEvent], connection: psycopg.Connection) -> None:
    """The witness: one row for each time that an event takes effect, in the order of the effects."""
    rows = [(each.id, each.identity.aggregate, each.identity.id_text, each.version, each.kind.value) for each in events]
    connection.execute(_APPLIED, [list(column) for column in zip(*rows, strict=True)])
