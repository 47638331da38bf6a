"""Aggregates of several tables against a model: rows in any order, moves, deletes by key alone, batches and crashes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch, run_with_crashes

from rowcast.event import decode
from rowcast.sources.definition import AggregateDefinition, ColumnDefinition, SourceDefinition, TableDefinition
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.field import ConditionDefinition, FieldDefinition
from stream_app.core.column import PLACEHOLDER
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.sequencing import split_truncates, types_below
from stream_app.core.state import Emptied, Key, Lookup, View
from stream_app.core.transaction import Assembler, Transaction

COLUMNS = {
    "order": {"id": "bigint", "note": "text", "state": "text"},
    "line": {"order_id": "bigint", "id": "bigint", "pos": "numeric", "label": "text", "gone": "boolean"},
    "option": {"id": "bigint", "line_order": "bigint", "line_id": "bigint", "name": "text"},
    "address": {"id": "bigint", "order_id": "bigint", "city": "text"},
}
KEYS = {"order": ("id",), "line": ("order_id", "id"), "option": ("id",), "address": ("id",)}


def fields(*names: str) -> dict[str, FieldDefinition]:
    return {name: FieldDefinition(place=name) for name in names}


def order_definition(*, held: bool) -> SourceDefinition:
    """An order with lines, which have options, and one address; with *held*, drafts are no orders."""
    options = EmbeddedDefinition(
        name="options", table="public.option", columns=("line_order", "line_id"), fields=fields("id", "name")
    )
    lines = EmbeddedDefinition(
        name="lines",
        table="public.line",
        columns=("order_id",),
        order=("pos",),
        fields={**fields("id", "pos"), "text": FieldDefinition(place="label")},
        soft_delete="gone",
        embedded=(options,),
    )
    address = EmbeddedDefinition(
        name="address", table="public.address", columns=("order_id",), one=True, fields=fields("city")
    )
    order = AggregateDefinition(
        name="order",
        table="public.order",
        id=("id",),
        parent=None,
        fields=fields("id", "note"),
        major=1,
        minor=0,
        entity_schema={},
        value_schema={},
        dataschema="urn:rowcast:schema:inventory.order:1.0",
        where=(ConditionDefinition(place="state", values=("draft",), negated=True),) if held else (),
        embedded=(lines, address),
    )
    tables = tuple(
        TableDefinition(
            name=f"public.{name}",
            columns=tuple(ColumnDefinition(name=c, type=t, nullable=True) for c, t in columns.items()),
            key=KEYS[name],
            replica_identity="d",
        )
        for name, columns in COLUMNS.items()
    )
    return replace(build_definition(), aggregates=(order,), tables=tables)


def order_mapping(*, held: bool) -> SourceMapping:
    definition = SourceDefinition.from_json(order_definition(held=held).to_json())
    return compile_mapping(definition, {"order": accept})


Rows = dict[tuple[str, tuple[int, ...]], dict[str, Any]]


def truth(rows: Rows, *, held: bool) -> dict[str, Any]:
    """What every order of *rows* should be published as, worked out from scratch; "refused" where it cannot be."""

    def below(table: str, **link: int) -> list[dict[str, Any]]:
        return [row for (name, _), row in rows.items() if name == table and link.items() <= row.items()]

    states: dict[str, Any] = {}
    for (table, (number, *_)), row in rows.items():
        if table != "order" or (held and row["state"] == "draft"):
            continue
        lines = [line for line in below("line", order_id=number) if not line["gone"]]
        lines.sort(key=lambda line: (line["pos"] is None, float(line["pos"] or 0), line["id"]))
        addresses = below("address", order_id=number)
        states[str(number)] = "refused" if len(addresses) > 1 else {
            "id": number,
            "note": row["note"],
            "lines": [
                {
                    "id": line["id"],
                    "pos": line["pos"],
                    "text": line["label"],
                    "options": [
                        {"id": option["id"], "name": option["name"]}
                        for option in sorted(
                            below("option", line_order=number, line_id=line["id"]), key=lambda option: option["id"]
                        )
                    ],
                }
                for line in lines
            ],
            "address": {"city": addresses[0]["city"]} if addresses else None,
        }  # fmt: skip
    return states


class Model:
    """The events that a history should give."""

    def __init__(self, *, held: bool) -> None:
        self.rows: Rows = {}
        self.held = held
        self.published: dict[str, Any] = {}

    def commit(self, lsn: int) -> list[tuple[str, int, str, Any]]:
        """Those of the transaction that has just been put, in order."""
        states = truth(self.rows, held=self.held)
        events: list[tuple[str, int, str, Any]] = []
        for id_text in sorted({*states, *self.published}):
            state, former = states.get(id_text), self.published.get(id_text)
            if state is None:
                events.append((id_text, lsn, "deleted", None))
                del self.published[id_text]
            elif state not in ("refused", former):
                events.append((id_text, lsn, "updated" if former else "created", state))
                self.published[id_text] = state
        return events


def random_row(rng: random.Random, table: str) -> dict[str, Any]:
    number = rng.randrange(1, 4)
    return {
        "order": {"id": number, "note": rng.choice("ab"), "state": rng.choice(["draft", "open", None])},
        "line": {
            "order_id": rng.randrange(1, 4),
            "id": number,
            "pos": rng.choice(["1.0", "2.5", "10", None]),
            "label": rng.choice("xy"),
            "gone": rng.choice([True, False, None]),
        },
        "option": {
            "id": rng.randrange(1, 6),
            "line_order": rng.choice([1, 2, 3, None]),
            "line_id": number,
            "name": rng.choice("pq"),
        },
        "address": {"id": number, "order_id": rng.choice([1, 2, 3, None]), "city": rng.choice("mn")},
    }[table]


def random_changes(rng: random.Random, rows: Rows) -> list[tuple[str, str, Any, Any]]:
    """Changes that PostgreSQL could have committed on top of *rows*, which follow."""
    changes: list[tuple[str, str, Any, Any]] = []
    for _ in range(rng.randint(1, 6)):
        table = rng.choice(["order", "line", "line", "option", "option", "address"])
        row = random_row(rng, table)
        key = (table, tuple(row[name] for name in KEYS[table]))
        # Under replica identity DEFAULT a delete has the key, and invented values for the rest.
        gone = ("d", table, {name: row[name] if name in KEYS[table] else None for name in row}, None)
        if key not in rows:
            changes.append(("c", table, None, row))
            rows[key] = row
        elif rng.random() < 0.3:
            changes.append(gone)
            del rows[key]
        elif table == "line" and rng.random() < 0.3:
            # Another primary key, and so another order; the text is untouched and not in the WAL.
            other = (table, (rng.randrange(1, 4), row["id"] + 10))
            if other not in rows:
                moved = {**rows.pop(key), "order_id": other[1][0], "id": other[1][1]}
                changes += [gone, ("c", table, None, {**moved, "label": PLACEHOLDER})]
                rows[other] = moved
        else:
            hidden = {"label": PLACEHOLDER} if table == "line" and rng.random() < 0.5 else {}
            changes.append(("u", table, None, {**row, **hidden}))
            rows[key] = {**row, **({"label": rows[key]["label"]} if hidden else {})}
    return changes


def build_history(seed: int, *, held: bool) -> tuple[ChangeLog, list[tuple[str, int, str, Any]]]:
    rng, log, model = random.Random(seed), ChangeLog(), Model(held=held)
    expected = []
    for _ in range(40):
        changes = random_changes(rng, model.rows)
        if changes:
            expected += model.commit(log.transaction(changes))
    return log, expected


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_one_event_of_the_root_with_all_its_rows(seed: int, held: bool) -> None:
    """Children before parents, moves, deletes, hidden values: exactly the expected events, in any batches."""
    log, expected = build_history(seed, held=held)
    events = [decode(*record) for record in run_with_crashes(order_mapping(held=held), log, seed)]

    got = [(each.identity.id_text, each.position, str(each.kind), each.after) for each in events]
    assert got == expected


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_crashes_and_batch_boundaries_never_change_a_byte(seed: int, held: bool) -> None:
    """Repeated batches are recognised: the topics hold the same bytes as without any crash."""
    log, _ = build_history(seed, held=held)

    crashed = run_with_crashes(order_mapping(held=held), log, seed + 1000, 0.4)
    assert crashed == run_with_crashes(order_mapping(held=held), log, seed)


def test_a_refused_aggregate_shows_the_rows_of_all_its_tables() -> None:
    """Two rows for a single object: refused with the reason, and what is there by table; mended by a row that goes."""
    store, mapping, log = MemoryStore(), order_mapping(held=False), ChangeLog()
    addresses = [{"id": number, "order_id": 1, "city": "m"} for number in (1, 2)]
    log.transaction(
        [
            ("c", "address", None, addresses[0]),
            ("c", "address", None, addresses[1]),
            ("c", "order", None, {"id": 1, "note": "a", "state": None}),
        ]
    )
    log.transaction([("d", "address", {"id": 2, "order_id": None, "city": None}, None)])
    middle = next(number for number, value in enumerate(log.values) if b"END" in value) + 1
    records, view = run_batch(mapping, store, log.records()[:middle])
    store.save(view)
    assert records == []
    refusal = store.aggregates[Key("order", "1")].refusal
    assert refusal is not None
    assert refusal.reason == "2 rows of public.address stand for 'address'"
    shown = json.loads(refusal.record)
    assert shown["public.address"] == addresses
    assert shown["public.order"] == [{"id": 1, "note": "a"}]
    records, view = run_batch(mapping, store, log.records(middle))
    assert [decode(*record).after for record in records] == [
        {"id": 1, "note": "a", "lines": [], "address": {"city": "m"}}
    ]


def test_a_truncated_embedded_table_touches_all_aggregates_of_its_type() -> None:
    """The rows before the TRUNCATE have no effect, those after it stand, and every order is looked at."""
    mapping, log = order_mapping(held=False), ChangeLog()
    line = {"order_id": 1, "id": 1, "pos": None, "label": "x", "gone": None}
    log.transaction([("c", "line", None, line), ("t", "line", None, None), ("c", "line", None, {**line, "id": 2})])
    (placed,) = Assembler(0, []).feed(log.records())
    assert isinstance(placed.unit, Transaction)
    types, rest = split_truncates(mapping, placed.unit)
    assert types == (Emptied("order.lines"),)
    assert types_below(mapping, [each.name for each in types]) == ["order"]
    assert [(row.after or {})["id"] for row in rest.rows] == [2]


def test_what_is_being_landed_lies_over_embedded_rows_that_are_loaded() -> None:
    """A row that a step under way gave to another order stands in that one."""
    mapping, store, log = order_mapping(held=False), MemoryStore(), ChangeLog()
    line = {"order_id": 1, "id": 1, "pos": None, "label": "x", "gone": None}
    log.transaction([("c", "line", None, line)])
    _, view = run_batch(mapping, store, log.records())
    store.save(view)
    newer = View()
    newer.note_row(Key("order.lines", "1,1"), line, "1")
    newer.put_held_row(Key("order.lines", "1,1"), None, None)
    newer.put_held_row(Key("order.lines", "1,2"), {**line, "id": 2}, "1")
    view, lookup = View(), Lookup(frozenset(), held=frozenset({Key("order.lines", "1")}))
    store.load(lookup, view)
    view.lay_over(newer, lookup)
    assert view.holders(Key("order.lines", "1")) == ["1,2"]
