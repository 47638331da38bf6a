"""
Random schemas and random transactions through the core, against the oracle of `random_schema`.

A seed makes everything.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest
from changelog import ChangeLog, accept, run_with_crashes
from random_schema import DOCUMENT, Row, Rows, Table, Type, expected, random_row, random_schema

from rowcast.event import DomainEvent, decode
from rowcast.sources.definition import (
    AggregateDefinition,
    ColumnDefinition,
    SourceDefinition,
    TableDefinition,
)
from stream_app.core.column import PLACEHOLDER
from stream_app.core.mapping import compile_mapping

TRANSACTIONS = 15


def compiled(types: list[Type]) -> Any:
    """The mapping of a random schema."""
    definition = SourceDefinition(
        source="inventory",
        domain="inventory",
        uri="urn:rowcast:source:inventory",
        partitions=3,
        replication_factor=1,
        events_window_ms=1,
        change_log_window_ms=1,
        refused_share_max=1.0,
        aggregates=tuple(
            AggregateDefinition(
                name=each.name,
                table=f"public.{each.name}",
                id=each.id,
                parent=each.definition(),
                fields=each.fields,
                major=1,
                minor=0,
                entity_schema={},
                value_schema={},
                dataschema="urn:test",
                where=each.where,
                soft_delete=each.soft_delete,
                embedded=tuple(below.definition() for below in each.embedded),
            )
            for each in types
        ),
        tables=tuple(
            TableDefinition(
                name=f"public.{each.name}",
                columns=tuple(
                    ColumnDefinition(name=c, type=t, nullable=c not in each.key) for c, t in each.columns.items()
                ),
                key=each.key,
                replica_identity="d",
            )
            for made in types
            for each in made.all_tables()
        ),
    )
    return compile_mapping(definition, {each.name: accept for each in types})


class Writer:
    """Random changes on top of the rows, as the connector would tell of them."""

    def __init__(self, rng: random.Random, types: list[Type]) -> None:
        self.rng, self.rows = rng, Rows()
        self.tables = [each for made in types for each in made.all_tables()]
        self.changes: list[tuple[str, str, Any, Any]] = []

    def transaction(self) -> list[tuple[str, str, Any, Any]]:
        """Some changes; the rows follow."""
        self.changes = []
        for _ in range(self.rng.randint(1, 6)):
            made = self.rng.choice(self.tables)
            row = random_row(self.rng, made)
            present = [key for key in self.rows if key[0] == made.name]
            if present and self.rng.random() < 0.6:
                self._change(made, self.rng.choice(present), row)
            else:
                self._insert(made, row)
        return self.changes

    def _insert(self, made: Table, row: Row) -> None:
        key = (made.name, made.key_of(row))
        if key in self.rows:
            self._change(made, key, row)
            return
        self.changes.append(("c", made.name, None, row))
        self.rows[key] = row

    def _change(self, made: Table, key: tuple[str, tuple[Any, ...]], row: Row) -> None:
        old = self.rows[key]
        kind = self.rng.choice(["delete", "update", "same", "hidden", "key", "again"])
        other = (made.name, made.key_of(row))
        if kind == "delete":
            self._delete(made, key)
        elif kind == "same":
            self.changes.append(("u", made.name, None, dict(old)))
        elif kind == "key" and other not in self.rows:
            # The connector writes a changed key as a deletion directly followed by an insert, which lacks large values.
            own = [name for name in made.columns if name[0] == "c" or name == DOCUMENT]
            large = [name for name in own if made.columns[name] in ("text", "jsonb")]
            kept = {name: old[name] for name in large if old[name] is not None}
            self._delete(made, key)
            self.changes.append(("c", made.name, None, {**row, **dict.fromkeys(kept, PLACEHOLDER)}))
            self.rows[other] = {**row, **kept}
        elif kind == "again":
            self._delete(made, key)
            self.rows[key] = new = {**row, **{name: old[name] for name in made.key}}
            self.changes.append(("c", made.name, None, new))
        else:
            new = {**row, **{name: old[name] for name in made.key}}
            hidden = [name for name, type_ in made.columns.items() if type_ == "jsonb" and old[name] is not None]
            if kind != "hidden":
                hidden = []
            self.rows[key] = {**new, **{name: old[name] for name in hidden}}
            self.changes.append(("u", made.name, None, {**new, **dict.fromkeys(hidden, PLACEHOLDER)}))

    def _delete(self, made: Table, key: tuple[str, tuple[Any, ...]]) -> None:
        old = self.rows.pop(key)
        before = dict(old) if self.rng.random() < 0.5 else {name: old[name] for name in made.key}
        self.changes.append(("d", made.name, before, None))


def build(seed: int) -> tuple[list[Type], ChangeLog, list[tuple[int, Rows]]]:
    rng = random.Random(seed)
    types = random_schema(rng)
    writer, log, history = Writer(rng, types), ChangeLog(), []
    for _ in range(TRANSACTIONS):
        changes = writer.transaction()
        history.append((log.transaction(changes), dict(writer.rows)))
    return types, log, history


def check(seed: int) -> None:
    """Everything that a seed makes, without and with crashes."""
    types, log, history = build(seed)
    mapping = compiled(types)
    records = run_with_crashes(mapping, log, seed)
    events = [decode(*record) for record in records]
    got = [
        (e.identity.aggregate, e.identity.id_text, e.position, str(e.kind), e.after, dict(e.ancestors)) for e in events
    ]
    assert got == expected(types, history), f"seed {seed}"
    check_former(events)
    assert run_with_crashes(mapping, log, seed + 1, 0.4) == records, f"seed {seed}"


def check_former(events: list[DomainEvent]) -> None:
    """Versions are dense, and `before` leads back to the version before."""
    known: dict[str, tuple[int, Any, Any]] = defaultdict(lambda: (0, None, None))
    for event in events:
        version, after, above = known[event.identity.text]
        assert event.version == version + 1
        if str(event.kind) == "updated":
            assert event.after is not None
            assert event.before is not None
            former = {name: value for name, value in event.before.items() if name != "ancestors"}
            assert {**event.after, **former} == after
            assert event.before.get("ancestors", dict(event.ancestors)) == above
            assert all(json.dumps(event.after[name]) != json.dumps(value) for name, value in former.items())
        else:
            assert event.before == (after if str(event.kind) == "deleted" else None)
        known[event.identity.text] = (event.version, event.after and dict(event.after), dict(event.ancestors))


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("block", range(10))
def test_random_schemas_give_what_the_oracle_says(block: int) -> None:
    """
    Composite keys, moved keys, TOAST, no-op rewrites, filters, soft deletes, chains of parents, embedded tables, link
    tables, ids in documents; any crash.
    """
    for seed in range(block * 25, block * 25 + 25):
        check(seed)


@pytest.mark.matrix
@pytest.mark.parametrize("block", range(40))
def test_thousands_of_random_schemas(block: int) -> None:
    """The same with other seeds."""
    for seed in range(10_000 + block * 100, 10_100 + block * 100):
        check(seed)
