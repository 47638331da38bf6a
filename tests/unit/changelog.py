"""Change-log records as Debezium writes them, and a control database in memory, for tests of the pure core."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rowcast.event import Record
from rowcast.sources.definition import (
    AggregateDefinition,
    ColumnDefinition,
    ParentDefinition,
    SourceDefinition,
    StatedEventDefinition,
    TableDefinition,
)
from rowcast.sources.field import FieldDefinition
from stream_app.core.emission import Emitted
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.sequencing import sequence
from stream_app.core.state import ABSENT, AggregateState, Key, Lookup, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, Skipped

COLUMNS = {
    "instance": {"id": "uuid", "title": "text", "tags": "jsonb", "secret": "text"},
    "holdings": {"id": "uuid", "instance_id": "uuid", "place": "text"},
    "item": {"id": "uuid", "holdings_id": "uuid", "status": "text", "price": "numeric(10,2)"},
}
PARENTS = {"holdings": ("instance", "instance_id"), "item": ("holdings", "holdings_id")}
FIELDS = {
    "instance": ("id", "title", "tags"),
    "holdings": ("id", "instance_id", "place"),
    "item": ("id", "holdings_id", "status", "price"),
}

NO_EVENTS: dict[str, Sequence[str]] = {}


def build_definition(
    fields: Mapping[str, Sequence[str]] = FIELDS, events: Mapping[str, Sequence[str]] = NO_EVENTS
) -> SourceDefinition:
    """A source with three levels: instance, holdings, item."""
    return SourceDefinition(
        source="inventory",
        domain="inventory",
        uri="urn:rowcast:source:inventory",
        partitions=3,
        replication_factor=1,
        events_window_ms=604_800_000,
        change_log_window_ms=604_800_000,
        refused_share_max=1.0,
        aggregates=tuple(
            AggregateDefinition(
                name=name,
                table=f"public.{name}",
                id=("id",),
                parent=ParentDefinition(aggregate=PARENTS[name][0], columns=(PARENTS[name][1],))
                if name in PARENTS
                else None,
                fields={each: FieldDefinition(place=each) for each in fields[name]},
                major=1,
                minor=0,
                entity_schema={},
                value_schema={},
                dataschema=f"urn:rowcast:schema:inventory.{name}:1.0",
                events=tuple(
                    StatedEventDefinition(name=event, value_schema={}, dataschema=f"urn:test:{event}")
                    for event in events.get(name, ())
                ),
            )
            for name in COLUMNS
        ),
        tables=tuple(
            TableDefinition(
                name=f"public.{name}",
                columns=tuple(ColumnDefinition(name=c, type=t, nullable=c != "id") for c, t in columns.items()),
                key=("id",),
                replica_identity="d",
            )
            for name, columns in COLUMNS.items()
        ),
    )


def accept(value: Mapping[str, Any]) -> None:
    """A validator that accepts every value."""


def build_mapping(definition: SourceDefinition | None = None) -> SourceMapping:
    """The compiled mapping of `build_definition`, without schemas."""
    definition = definition or build_definition()
    names = [each.name for each in definition.aggregates]
    names += [f"{each.name}.{event.name}" for each in definition.aggregates for event in each.events]
    return compile_mapping(definition, dict.fromkeys(names, accept))


@dataclass
class ChangeLog:
    """Writes change-log values with rising offsets, LSNs and transaction ids."""

    lsn: int = 1000
    xid: int = 700
    values: list[bytes] = field(default_factory=list)

    def append(self, value: Mapping[str, Any]) -> None:
        """One record."""
        self.values.append(json.dumps(value).encode())

    def transaction(
        self, changes: Sequence[tuple[str, str, Any, Any]], messages: Sequence[tuple[str, Any]] = ()
    ) -> int:
        """
        A committed transaction of (operation, table, before, after); returns its commit LSN.

        With the operation `m` it is a message: prefix and content instead of table and before.
        """
        self.xid += 1
        begin = f"{self.xid}:{self.lsn}"
        self.append({"status": "BEGIN", "id": begin, "event_count": None, "data_collections": None, "ts_ms": 1})
        order = 0
        for prefix, content in messages:
            order += 1
            self.append(self._message(prefix, content, order))
        for operation, table, before, after in changes:
            order += 1
            self.lsn += 8
            message = operation == "m"
            self.append(
                self._message(table, before, order) if message else self.row(operation, table, before, after, order)
            )
        self.lsn += 8
        end = {"status": "END", "id": f"{self.xid}:{self.lsn}", "event_count": order, "data_collections": []}
        self.append({**end, "ts_ms": self.lsn})
        return self.lsn

    def row(self, operation: str, table: str, before: Any, after: Any, order: int | None) -> dict[str, Any]:
        """A row change record."""
        transaction = (
            None
            if order is None
            else {"id": f"{self.xid}:{self.lsn}", "total_order": order, "data_collection_order": 1}
        )
        return {
            "op": operation,
            "before": before,
            "after": after,
            "source": {
                "schema": "public",
                "table": table,
                "lsn": self.lsn,
                "txId": self.xid,
                "ts_ms": self.xid,
                "ts_us": self.xid * 1000,
                "snapshot": "true" if operation == "r" else "false",
            },
            "transaction": transaction,
            "ts_ms": 1,
        }

    def _message(self, prefix: str, content: Any, order: int) -> dict[str, Any]:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        return {
            "op": "m",
            "source": {"schema": "", "table": "", "lsn": self.lsn, "ts_ms": self.xid, "ts_us": self.xid * 1000},
            "transaction": {"id": f"{self.xid}:{self.lsn}", "total_order": order, "data_collection_order": 1},
            "message": {"prefix": prefix, "content": base64.b64encode(raw).decode()},
            "ts_ms": 1,
        }

    def records(self, start: int = 0) -> list[tuple[int, bytes]]:
        """All records from offset *start* on."""
        return list(enumerate(self.values))[start:]


@dataclass
class MemoryStore:
    """What the control database would hold."""

    aggregates: dict[Key, AggregateState] = field(default_factory=dict)
    rows: dict[Key, Any] = field(default_factory=dict)
    owners: dict[Key, str | None] = field(default_factory=dict)
    next_offset: int = 0
    commit_lsn: int = 0
    processed: list[tuple[int, int, int]] = field(default_factory=list)

    def load(self, lookup: Lookup, view: View) -> None:
        """Answer a lookup."""
        view.stored |= (lookup.aggregates | lookup.held) & self.aggregates.keys()
        for key in lookup.aggregates:
            view.aggregates[key] = self.aggregates.get(key, ABSENT)
            view.rows[key] = self.rows.get(key)
        for key in lookup.held:
            view.aggregates[key] = self.aggregates.get(key, ABSENT)
            view.candidates.setdefault(key, set())
            for row, owner in self.owners.items():
                if row.aggregate == key.aggregate and owner == key.id_text:
                    view.note_holder(key, row.id_text, self.rows[row])
        for row in lookup.rows:
            view.note_row(row, self.rows.get(row), self.owners.get(row))
        for child, parent in lookup.children:
            view.children[child, parent] = {
                key.id_text
                for key, state in self.aggregates.items()
                if key.aggregate == child and state.parent_id_text == parent
            }
        for (child, parent), index in lookup.indexes.items():
            bound = (self.rows[row] for row, owner in self.owners.items() if (row.aggregate, owner) == (index, parent))
            view.children[child, parent] |= {row["child"] for row in bound if row is not None}

    def save(self, view: View) -> None:
        """Write a view back."""
        for key in view.dirty:
            self.aggregates[key] = view.aggregates[key]
        for key in view.dirty_rows:
            self.rows[key] = view.rows[key]
            self.owners[key] = view.owners.get(key)


def run_batch(
    mapping: SourceMapping,
    store: MemoryStore,
    records: Sequence[tuple[int, bytes]],
    tail: Tail | None = None,
    reading: frozenset[str] = frozenset(),
    emitted: Emitted | None = None,
) -> tuple[list[Record], View]:
    """One batch through assembler and core; returns what is to be published and the state not yet saved."""
    assembler = Assembler(store.commit_lsn, store.processed, shield=mapping.shield)
    placed = list(assembler.feed(records))
    units = [each.unit for each in placed if not isinstance(each.unit, Skipped)]
    view, emitted = View(), emitted or Emitted()
    for lookup in sequence(mapping, view, units, reading, (emitted, tail or Tail())):
        store.load(lookup, view)
    if placed:
        store.next_offset = placed[-1].next_offset
        store.commit_lsn = assembler.commit_lsn
        store.processed += [(u.lsn, u.xid, u.change_count) for u in units if hasattr(u, "xid")]
    return emitted.records, view


def run_with_crashes(mapping: SourceMapping, log: ChangeLog, seed: int, crash_share: float = 0.0) -> list[Record]:
    """All records that reach the topics, in batches of random size, with crashes between publish and commit."""
    rng, store = random.Random(seed), MemoryStore()
    topic: list[Record] = []
    committed, tail = 0, Tail()
    while store.next_offset < len(log.values):
        start = store.next_offset
        batch = log.records(start)[: rng.randint(1, 60)]
        former = (store.next_offset, store.commit_lsn, list(store.processed))
        records, view = run_batch(mapping, store, batch, tail)
        topic += records
        if rng.random() < crash_share:
            store.next_offset, store.commit_lsn, store.processed = former
            tail = Tail(topic[committed:])
        elif store.next_offset != start:
            store.save(view)
            committed = committed if tail else len(topic)
    return topic
