"""Aggregates with several parents, bound by a link table, against a model: random histories, batches and crashes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch, run_with_crashes

from rowcast.event import decode
from rowcast.sources.definition import (
    ColumnDefinition,
    ParentDefinition,
    SourceDefinition,
    TableDefinition,
    ThroughDefinition,
)
from rowcast.sources.field import FieldDefinition
from stream_app.core.emission import Emitted
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.sequencing import sequence, split_truncates, types_below
from stream_app.core.state import Emptied, Key, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, Transaction

TABLES = {
    "instance": ("id", "note"),
    "holdings": ("id", "instance_id"),
    "item": ("id", "note"),
    "part": ("id", "item_id"),
    "bound": ("id", "item_id", "holdings_id"),
}
ORDER = ["instance", "holdings", "item", "part"]


def linked_definition() -> SourceDefinition:
    """Parts of items, which are bound with any number of holdings, each of one instance."""
    plain = build_definition()
    parents = {
        "holdings": ParentDefinition(aggregate="instance", columns=("instance_id",)),
        "item": ParentDefinition(
            aggregate="holdings",
            columns=("holdings_id",),
            through=ThroughDefinition(table="public.bound", columns=("item_id",)),
        ),
        "part": ParentDefinition(aggregate="item", columns=("item_id",)),
    }
    aggregates = tuple(
        replace(
            plain.aggregates[0],
            name=name,
            table=f"public.{name}",
            parent=parents.get(name),
            fields={each: FieldDefinition(place=each) for each in TABLES[name]},
        )
        for name in ORDER
    )
    tables = tuple(
        TableDefinition(
            name=f"public.{name}",
            columns=tuple(ColumnDefinition(name=each, type="text", nullable=True) for each in columns),
            key=("id",),
            replica_identity="d",
        )
        for name, columns in TABLES.items()
    )
    return replace(plain, aggregates=aggregates, tables=tables)


def linked_mapping() -> SourceMapping:
    definition = SourceDefinition.from_json(linked_definition().to_json())
    return compile_mapping(definition, {each.name: accept for each in definition.aggregates})


Rows = dict[tuple[str, str], dict[str, Any]]


def truth(rows: Rows) -> dict[tuple[str, str], Any]:
    """Entity and ancestors of every aggregate, worked out from scratch."""

    def parents(table: str, id_: str) -> set[str]:
        if table == "item":
            found = {row["holdings_id"] for (name, _), row in rows.items() if name == "bound" and row["item_id"] == id_}
        else:
            found = {rows[table, id_]["instance_id" if table == "holdings" else "item_id"]}
        return found - {None}

    def ancestors(table: str, id_: str) -> dict[str, list[str] | None]:
        levels: dict[str, list[str] | None] = {}
        above: list[str] | None = [id_]
        while table != "instance":
            upper = {"part": "item", "item": "holdings", "holdings": "instance"}[table]
            if above:
                ids = set().union(*(parents(table, each) for each in above))
                above = sorted(ids) if all((upper, each) in rows for each in ids) else None
            levels[upper] = above
            table = upper
        return levels

    return {key: (row, ancestors(*key)) for key, row in rows.items() if key[0] != "bound"}


def random_changes(rng: random.Random, rows: Rows) -> list[tuple[str, str, Any, Any]]:
    changes: list[tuple[str, str, Any, Any]] = []
    for _ in range(rng.randint(1, 5)):
        table = rng.choice(["instance", "holdings", "item", "part", "bound", "bound", "bound"])
        id_ = f"{table[:1]}{rng.randrange(5 if table == 'bound' else 3)}"
        row = {
            name: id_
            if name == "id"
            else rng.choice("xy")
            if name == "note"
            else rng.choice([None, *(f"{name[:1]}{number}" for number in range(3))])
            for name in TABLES[table]
        }
        if (table, id_) not in rows:
            changes.append(("c", table, None, row))
            rows[table, id_] = row
        elif rng.random() < 0.3:
            changes.append(("d", table, {name: id_ if name == "id" else None for name in row}, None))
            del rows[table, id_]
        else:
            changes.append(("u", table, None, row))
            rows[table, id_] = row
    return changes


def expected_events(history: list[tuple[int, Rows]]) -> list[tuple[str, str, int, str, Any]]:
    events = []
    before: dict[tuple[str, str], Any] = {}
    for lsn, rows in history:
        after = truth(rows)
        for key in sorted({*before, *after}, key=lambda each: (ORDER.index(each[0]), each[1])):
            one, other = before.get(key), after.get(key)
            if one != other:
                kind = "created" if one is None else "deleted" if other is None else "updated"
                events.append((*key, lsn, kind, other or (None, one[1])))
        before = after
    return events


def build_history(seed: int) -> tuple[ChangeLog, list[tuple[int, Rows]]]:
    rng, log, rows = random.Random(seed), ChangeLog(), {}
    history = []
    for _ in range(40):
        lsn = log.transaction(random_changes(rng, rows))
        history.append((lsn, dict(rows)))
    return log, history


@pytest.mark.parametrize("seed", range(40))
def test_ancestors_are_those_of_all_parents(seed: int) -> None:
    """Links and parents that come, move and go in any order: exactly the expected events, in any batches."""
    log, history = build_history(seed)
    events = [decode(*record) for record in run_with_crashes(linked_mapping(), log, seed)]

    got = [
        (each.identity.aggregate, each.identity.id_text, each.position, str(each.kind), (each.after, each.ancestors))
        for each in events
    ]
    assert json.loads(json.dumps(got)) == json.loads(json.dumps(expected_events(history)))


@pytest.mark.parametrize("seed", range(10))
def test_crashes_and_batch_boundaries_never_change_a_byte(seed: int) -> None:
    """Repeated batches are recognised: the topics hold the same bytes as without any crash."""
    log, _ = build_history(seed)

    assert run_with_crashes(linked_mapping(), log, seed + 1000, 0.4) == run_with_crashes(linked_mapping(), log, seed)


def test_a_truncated_link_table_leaves_the_links_that_come_after_it() -> None:
    """Of what it touches, and of all types below, every aggregate is looked at."""
    mapping, store, log = linked_mapping(), MemoryStore(), ChangeLog()
    log.transaction(
        [
            ("c", "holdings", None, {"id": "h0", "instance_id": None}),
            ("c", "item", None, {"id": "i0", "note": "x"}),
            ("c", "bound", None, {"id": "b0", "item_id": "i0", "holdings_id": "h0"}),
        ]
    )
    records, view = run_batch(mapping, store, log.records())
    store.save(view)
    assert [decode(*each).ancestors for each in records][-1] == {"holdings": ["h0"], "instance": []}
    assert store.aggregates[Key("item", "i0")].parent_id_text == "h0"
    start = len(log.values)
    log.transaction([("t", "bound", None, None), ("c", "part", None, {"id": "p0", "item_id": "i0"})])
    (placed,) = Assembler(0, []).feed(log.records(start))
    assert isinstance(placed.unit, Transaction)
    types, rest = split_truncates(mapping, placed.unit)
    assert types == (Emptied("item.ancestors"),)
    assert types_below(mapping, [each.name for each in types]) == ["item", "part"]
    assert [row.table for row in rest.rows] == ["public.part"]


def test_a_truncated_aggregate_is_gone_also_where_a_link_of_it_comes_after() -> None:
    """The link is kept for a row that may come; the aggregate is not there, whatever the state said before."""
    mapping, store, log = linked_mapping(), MemoryStore(), ChangeLog()
    log.transaction(
        [("c", "item", None, {"id": "i0", "note": "x"}), ("c", "holdings", None, {"id": "h0", "instance_id": None})]
    )
    _, view = run_batch(mapping, store, log.records())
    store.save(view)
    start = len(log.values)
    log.transaction(
        [("t", "item", None, None), ("c", "bound", None, {"id": "b0", "item_id": "i0", "holdings_id": "h0"})]
    )
    (placed,) = Assembler(0, []).feed(log.records(start))
    assert isinstance(placed.unit, Transaction)
    types, rest = split_truncates(mapping, placed.unit)
    view = View(emptied=frozenset(types))
    for lookup in sequence(mapping, view, [rest], frozenset(mapping.by_type), (Emitted(), Tail())):
        store.load(lookup, view)
    state = view.aggregates[Key("item", "i0")]
    assert (state.present, state.parent_id_text) == (False, "h0")
    assert view.rows[Key("item", "i0")] is None
    assert Key("item", "i0") not in view.stored_rows
