"""Values looked up in reference tables, and what follows when a row of one changes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import orjson
import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition

from rowcast.event import decode
from rowcast.sources.definition import ColumnDefinition, ReferenceDefinition, TableDefinition
from rowcast.sources.field import FieldDefinition
from stream_app.core.change import Operation, RowChange
from stream_app.core.emission import Emitted, Origin
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.reference import referring
from stream_app.core.sequencing import emit_pending, sequence, split_truncates
from stream_app.core.state import Key, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, Transaction


def reference_mapping(default: str | None = None) -> SourceMapping:
    """Instances with a status by column and a kind out of their document."""
    plain = build_definition()
    fields = {
        "id": FieldDefinition(place="id"),
        "status": FieldDefinition(place="status", reference="status", default=default),
        "kind": FieldDefinition(place="/doc/kind", reference="kind", default="unknown"),
    }
    columns = {"id": "text", "status": "integer", "doc": "jsonb"}
    definition = replace(
        plain,
        aggregates=(replace(plain.aggregates[0], fields=fields),),
        tables=(
            table("public.instance", "id", columns),
            table("public.status", "id", {"id": "smallint", "name": "text"}),
            table("public.kind", "code", {"code": "text", "about": "jsonb"}),
        ),
        references=(
            ReferenceDefinition(name="status", table="public.status", key="id", value="name"),
            ReferenceDefinition(name="kind", table="public.kind", key="code", value="/about/label"),
        ),
    )
    return compile_mapping(definition, {"instance": accept})


def table(name: str, key: str, columns: dict[str, str]) -> TableDefinition:
    made = tuple(ColumnDefinition(name=each, type=kind, nullable=each != key) for each, kind in columns.items())
    return TableDefinition(name=name, columns=made, key=(key,), replica_identity="d")


class Work:
    """What a session does with transactions, without database and broker."""

    def __init__(self, default: str | None = None) -> None:
        self.mapping, self.log, self.store = reference_mapping(default), ChangeLog(), MemoryStore()

    def commit(self, *changes: tuple[str, str, Any, Any]) -> list[tuple[str, str, Any]]:
        """Commit one transaction; (kind, id, (status, kind)) of its events."""
        start = len(self.log.values)
        self.log.transaction(changes)
        (placed,) = Assembler(0, []).feed(self.log.records(start))
        unit = placed.unit
        assert isinstance(unit, Transaction)
        found = referring(self.mapping.references, unit.rows)
        types, unit = split_truncates(self.mapping, unit)
        alone = bool(found or types)
        view, emitted = View(emptied=frozenset(types)), Emitted()
        reading = frozenset(self.mapping.by_type) if alone else frozenset[str]()
        self._run(sequence(self.mapping, view, [unit], reading, (emitted, Tail())), view)
        touched = {key for each in found for key in self._referring(each.patterns)} | view.dirty
        if alone:
            view, emitted = View(), Emitted()
            origin = Origin(unit.lsn, "2026-01-01T00:00:00Z")
            self._run(emit_pending(self.mapping, view, sorted(touched), origin, (emitted, Tail())), view)
        events = [decode(*record) for record in emitted.records]
        return [
            (str(each.kind), each.identity.id_text, each.after and (each.after["status"], each.after["kind"]))
            for each in events
        ]

    def _referring(self, patterns: list[str] | None) -> list[Key]:
        """As the control database finds them: by texts that stand in the stored columns."""
        rows = {key: orjson.dumps(columns).decode() for key, columns in self.store.rows.items() if columns is not None}
        return [
            key
            for key, columns in rows.items()
            if key.aggregate == "instance" and (patterns is None or any(each in columns for each in patterns))
        ]

    def _run(self, lookups: Any, view: View) -> None:
        for lookup in lookups:
            self.store.load(lookup, view)
        self.store.save(view)

    def reasons(self) -> list[str]:
        """Why aggregates are refused."""
        return [state.refusal.reason for state in self.store.aggregates.values() if state.refusal]


def status(id_: int, name: str | None) -> dict[str, Any]:
    return {"id": id_, "name": name}


def kind(code: str, label: str) -> dict[str, Any]:
    return {"code": code, "about": orjson.dumps({"label": label}).decode()}


def instance(id_: str, status_id: int | None, code: str | None = None) -> dict[str, Any]:
    return {"id": id_, "status": status_id, "doc": orjson.dumps({"kind": code}).decode()}


def test_values_come_from_the_reference_tables() -> None:
    """By column and out of a document; in any order inside the transaction; null for a null key."""
    work = Work()
    events = work.commit(
        ("c", "instance", None, instance("a", 1, "b1")),
        ("c", "instance", None, instance("b", None)),
        ("c", "status", None, status(1, "in")),
        ("c", "kind", None, kind("b1", "book")),
    )
    assert events == [("created", "a", ("in", "book")), ("created", "b", (None, "unknown"))]


def test_a_reference_row_that_changes_changes_every_entity_made_with_it() -> None:
    """One event for each, in the transaction that renamed the status; others have none."""
    work = Work()
    work.commit(("c", "status", None, status(1, "in")), ("c", "status", None, status(11, "lost")))
    work.commit(*(("c", "instance", None, instance(id_, number)) for id_, number in (("a", 1), ("b", 11), ("c", 1))))
    assert work.commit(("u", "status", None, status(1, "available"))) == [
        ("updated", "a", ("available", "unknown")),
        ("updated", "c", ("available", "unknown")),
    ]
    renamed = work.commit(("u", "status", None, status(11, "gone")), ("u", "instance", None, instance("b", 1)))
    assert renamed == [("updated", "b", ("available", "unknown"))]


def test_a_key_without_row_is_refused_until_the_row_comes_or_has_the_default() -> None:
    """Nothing is guessed; where a default is declared it stands in."""
    work = Work()
    assert work.commit(("c", "instance", None, instance("a", 7))) == []
    assert work.reasons() == ["status: reference 'status' has no row with this key"]
    assert work.commit(("c", "status", None, status(7, "new"))) == [("created", "a", ("new", "unknown"))]
    assert work.commit(("d", "status", {"id": 7, "name": ""}, None)) == []
    assert work.reasons() == ["status: reference 'status' has no row with this key"]
    lenient = Work(default="none")
    assert lenient.commit(("c", "instance", None, instance("a", 7))) == [("created", "a", ("none", "unknown"))]


def test_an_emptied_reference_table_counts_for_all() -> None:
    """TRUNCATE, and what is inserted after it in the same transaction."""
    work = Work(default="none")
    work.commit(("c", "status", None, status(1, "in")), ("c", "instance", None, instance("a", 1)))
    assert work.commit(("t", "status", None, None)) == [("updated", "a", ("none", "unknown"))]
    back = work.commit(("t", "status", None, None), ("c", "status", None, status(1, "in")))
    assert back == [("updated", "a", ("in", "unknown"))]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_published_is_what_a_join_would_give(seed: int) -> None:
    """Random changes of both sides: after each transaction the last events say what the tables say."""
    rng, work = random.Random(seed), Work(default="none")
    tables: dict[str, dict[Any, Any]] = {"status": {}, "kind": {}, "instance": {}}
    published: dict[str, Any] = {}
    for _ in range(25):
        changes = [_random_change(rng, tables) for _ in range(rng.randint(1, 3))]
        for event_kind, id_, state in work.commit(*changes):
            assert (id_ in published) is (event_kind != "created")
            published[id_] = state
        published = {id_: state for id_, state in published.items() if state is not None}
        joined = {
            id_: (
                None if number is None else tables["status"].get(number) or "none",
                tables["kind"].get(code) or "unknown",
            )
            for id_, (number, code) in tables["instance"].items()
        }
        joined = {id_: (state[0] or "none", state[1]) for id_, state in joined.items()}
        assert published == joined


def _random_change(rng: random.Random, tables: dict[str, dict[Any, Any]]) -> tuple[str, str, Any, Any]:
    name = rng.choice(["status", "kind", "instance", "instance"])
    known = tables[name]
    key = rng.choice({"status": [1, 2, 11], "kind": ["x", "x%", 'q"'], "instance": ["a", "b", "c"]}[name])
    if key in known and rng.random() < 0.3:
        del known[key]
        return "d", name, {"status": {"id": key}, "kind": {"code": key}, "instance": {"id": key}}[name], None
    operation = "u" if key in known else "c"
    if name == "status":
        known[key] = rng.choice(["in", "out", None])
        return operation, name, None, status(key, known[key])
    if name == "kind":
        known[key] = rng.choice(["book", "map"])
        return operation, name, None, kind(key, known[key])
    known[key] = rng.choice([1, 2, 11, None]), rng.choice(["x", "x%", 'q"', None])
    return operation, name, None, instance(key, *known[key])


def test_patterns_find_by_column_and_by_text() -> None:
    """A key in a column of its own is found as JSON has it; hostile keys of documents make all rows count."""
    references = reference_mapping().references
    references["public.status"].rows["1"] = status(1, "in")

    def change(name: str, before: Any, after: Any) -> RowChange:
        operation = Operation.DELETE if after is None else Operation.UPDATE
        return RowChange(operation, name, before, after, 1, 1, 1, 1)

    rows = [change("public.status", None, status(1, "x")), change("public.kind", {"code": "b1"}, None)]
    assert [each.patterns for each in referring(references, rows)] == [['"status":1'], ["b1"]]
    rows = [change("public.kind", None, kind('a"b', "x"))]
    assert [each.patterns for each in referring(references, rows)] == [None]
