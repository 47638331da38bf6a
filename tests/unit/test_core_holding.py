"""Documents whose ids and parents stand inside them, against a model: random histories, batches and crashes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch, run_with_crashes

from rowcast.event import DomainEvent, decode
from rowcast.sources.definition import ColumnDefinition, ParentDefinition, SourceDefinition
from rowcast.sources.field import FieldDefinition
from stream_app.core.column import PLACEHOLDER
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.state import Emptied, Key, Lookup, View

TABLES = ("instance", "holdings", "item")
ABOVE = {"holdings": "instance", "item": "holdings"}
BROKEN = ("{", '"text"', "[]", "null", None)


def document_definition() -> SourceDefinition:
    """Three levels, each a table with a number as primary key and a document that says everything else."""
    plain = build_definition()
    columns = (
        ColumnDefinition(name="pk", type="bigint", nullable=False),
        ColumnDefinition(name="doc", type="jsonb", nullable=True),
    )
    aggregates = []
    for each in plain.aggregates:
        above = ABOVE.get(each.name)
        parent = ParentDefinition(aggregate=above, columns=("/doc/above/id",)) if above else None
        places = {"id": "/doc/id", "note": "/doc/note", "whole": "/doc"}
        fields = {name: FieldDefinition(place=place) for name, place in places.items()}
        aggregates.append(replace(each, id=("/doc/id",), parent=parent, fields=fields))
    tables = tuple(replace(each, columns=columns, key=("pk",)) for each in plain.tables)
    return replace(plain, aggregates=tuple(aggregates), tables=tables)


def document_mapping() -> SourceMapping:
    definition = document_definition()
    return compile_mapping(definition, {each.name: accept for each in definition.aggregates})


class Model:
    """What should be published after each transaction, worked out from all rows each time."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], str | None] = {}
        self.owners: dict[tuple[str, int], str] = {}
        self.parents: dict[tuple[str, str], str | None] = {}
        self.published: dict[tuple[str, str], tuple[Any, Any]] = {}

    def put(self, row: tuple[str, int], document: str | None) -> None:
        """A row as it is now."""
        self.rows[row] = document
        self.owners[row] = _id(document) or self.owners.get(row) or f"row:{row[1]}"

    def drop(self, row: tuple[str, int]) -> None:
        """A row is gone."""
        del self.rows[row], self.owners[row]

    def holders(self, key: tuple[str, str]) -> list[tuple[str, int]]:
        """The rows that hold an aggregate."""
        return [row for row, owner in self.owners.items() if (row[0], owner) == key]

    def commit(self, lsn: int) -> list[tuple[str, str, int, str, Any, Any]]:
        """The events of the transaction that has just been put, in order."""
        present = {(row[0], owner) for row, owner in self.owners.items()}
        for key in present:
            self._place(key)
        self.parents = {key: parent for key, parent in self.parents.items() if key in present}
        events = []
        for key in sorted(present | set(self.published), key=lambda each: (TABLES.index(each[0]), each[1])):
            state = self._state(key)
            if state == "refused":
                continue
            former = self.published.get(key)
            if state is None:
                if self.published.pop(key, None):
                    events.append((*key, lsn, "deleted", None, former and former[1]))
            elif json.dumps(state, sort_keys=True) != json.dumps(former, sort_keys=True):
                events.append((*key, lsn, "updated" if former else "created", *state))
                self.published[key] = state
        return events

    def _place(self, key: tuple[str, str]) -> None:
        holders = self.holders(key)
        if len(holders) == 1 and key[0] in ABOVE:
            parsed = _parsed(self.rows[holders[0]])
            above = parsed.get("above") if isinstance(parsed, dict) else None
            if parsed is None or (isinstance(parsed, dict) and above is None):
                self.parents[key] = None
            elif isinstance(above, dict):
                self.parents[key] = above.get("id")
        self.parents.setdefault(key, None)

    def _state(self, key: tuple[str, str]) -> Any:
        holders = self.holders(key)
        if not holders:
            return None
        document = self.rows[holders[0]]
        if len(holders) > 1 or _id(document) is None:
            return "refused"
        parsed = _parsed(document)
        return {"id": parsed["id"], "note": parsed.get("note"), "whole": parsed}, self._ancestors(key)

    def _ancestors(self, key: tuple[str, str]) -> dict[str, Any]:
        ancestors: dict[str, Any] = {}
        ids: list[str] | None = [key[1]]
        below = key[0]
        while below in ABOVE:
            if ids:
                parent = self.parents.get((below, ids[0]))
                known = (ABOVE[below], parent) in self.parents
                ids = [] if parent is None else [parent] if known else None
            below = ABOVE[below]
            ancestors[below] = ids
        return ancestors


def _parsed(document: str | None) -> Any:
    """The document; False where it is none."""
    try:
        return None if document is None else json.loads(document)
    except ValueError:
        return False


def _id(document: str | None) -> str | None:
    parsed = _parsed(document)
    found = parsed.get("id") if isinstance(parsed, dict) else None
    return found if isinstance(found, str) else None


def random_document(rng: random.Random, table: str) -> str | None:
    if rng.random() < 0.1:
        return rng.choice(BROKEN)
    document: dict[str, Any] = {"id": f"{table[:2]}{rng.randrange(4)}", "note": rng.choice("ab")}
    if rng.random() < 0.1:
        document["id"] = rng.choice([None, True, {}, 1.5])
    if table in ABOVE:
        above = ABOVE[table][:2]
        document["above"] = rng.choice([None, {}, *({"id": f"{above}{number}"} for number in range(4))])
    return json.dumps(document)


def random_transaction(rng: random.Random, model: Model) -> list[tuple[str, str, Any, Any]]:
    changes: list[tuple[str, str, Any, Any]] = []
    for _ in range(rng.randint(1, 5)):
        table, number = rng.choice(TABLES), rng.randrange(1, 5)
        row, key = (table, number), {"pk": number}
        document = random_document(rng, table)
        if row not in model.rows:
            changes.append(("c", table, None, {**key, "doc": document}))
            model.put(row, document)
            continue
        chance = rng.random()
        # Under replica identity DEFAULT a delete has the key, and invented values for the rest.
        gone = ("d", table, {**key, "doc": ""}, None)
        if chance < 0.25:
            changes.append(gone)
            model.drop(row)
        elif chance < 0.35:
            # Another primary key, the document untouched and not in the WAL.
            other = (table, number + 10)
            if other not in model.rows:
                changes += [gone, ("c", table, None, {"pk": number + 10, "doc": PLACEHOLDER})]
                model.rows[other], model.owners[other] = model.rows[row], model.owners[row]
                model.drop(row)
        elif chance < 0.5:
            changes.append(("u", table, None, {**key, "doc": PLACEHOLDER}))
        else:
            changes.append(("u", table, None, {**key, "doc": document}))
            model.put(row, document)
    return changes


def build_history(seed: int) -> tuple[ChangeLog, list[tuple[str, str, int, str, Any, Any]]]:
    rng, log, model = random.Random(seed), ChangeLog(), Model()
    expected = []
    for _ in range(25):
        lsn = log.transaction(random_transaction(rng, model))
        expected += model.commit(lsn)
    return log, expected


@pytest.mark.parametrize("seed", range(60))
def test_events_are_what_the_model_says(seed: int) -> None:
    """Ids that move, come, go, collide or cannot be read: exactly the expected events, in any batches."""
    log, expected = build_history(seed)
    events = [decode(*record) for record in run_with_crashes(document_mapping(), log, seed)]

    assert [_shown(event) for event in events] == expected


@pytest.mark.parametrize("seed", range(20))
def test_crashes_and_batch_boundaries_never_change_a_byte(seed: int) -> None:
    """Repeated batches are recognised: the topics hold the same bytes as without any crash."""
    log, _ = build_history(seed)

    assert run_with_crashes(document_mapping(), log, seed + 1000, 0.4) == run_with_crashes(
        document_mapping(), log, seed
    )


def _shown(event: DomainEvent) -> tuple[str, str, int, str, Any, Any]:
    identity = event.identity
    return identity.aggregate, identity.id_text, event.position, str(event.kind), event.after, dict(event.ancestors)


class Rows:
    """A change log of documents, a store, and the events that came out so far."""

    def __init__(self) -> None:
        self.log, self.store, self.mapping = ChangeLog(), MemoryStore(), document_mapping()

    def commit(self, *changes: tuple[str, str, Any, Any]) -> list[tuple[str, str, Any]]:
        """Commit one transaction; (kind, id, note) of its events."""
        start = len(self.log.values)
        self.log.transaction(changes)
        records, view = run_batch(self.mapping, self.store, self.log.records(start))
        self.store.save(view)
        events = [decode(*record) for record in records]
        return [(str(each.kind), each.identity.id_text, each.after and each.after["note"]) for each in events]

    def refusals(self) -> dict[str, str]:
        """The reasons of what is refused, by id text."""
        return {key.id_text: each.refusal.reason for key, each in self.store.aggregates.items() if each.refusal}


def doc(pk: int, text: object) -> dict[str, Any]:
    return {"pk": pk, "doc": text if isinstance(text, str) or text is None else json.dumps(text)}


@pytest.fixture
def rows() -> Rows:
    return Rows()


def test_an_id_that_changes_inside_the_document_ends_the_old_one_and_begins_the_new(rows: Rows) -> None:
    """The old id's last event is deleted; a delete of which only the key is known ends the new one."""
    assert rows.commit(("c", "instance", None, doc(1, {"id": "a"}))) == [("created", "a", None)]
    assert rows.commit(("u", "instance", None, doc(1, {"id": "b"}))) == [("deleted", "a", None), ("created", "b", None)]
    assert rows.commit(("d", "instance", {"pk": 1, "doc": ""}, None)) == [("deleted", "b", None)]


def test_a_row_without_id_is_refused_by_its_key_until_it_has_one(rows: Rows) -> None:
    """No id, or no document: refused with the reason, and closed by the change that brings an id."""
    rows.commit(
        ("c", "instance", None, doc(1, {"note": "x"})),
        ("c", "instance", None, doc(2, "{")),
        ("c", "instance", None, doc(3, {"id": []})),
        ("c", "instance", None, doc(4, {"id": "x" * 2000})),
        ("c", "instance", None, doc(5, "7")),
    )
    reasons = rows.refusals()
    assert reasons.keys() == {f"row:{number}" for number in range(1, 6)}
    assert reasons["row:1"] == "/doc/id is null or missing; it is the id"
    assert reasons["row:2"].startswith("public.instance: column 'doc': not a JSON document")
    assert reasons["row:3"] == "/doc/id is a list; an id is a string or a whole number"
    assert reasons["row:4"] == "/doc/id: the id has more than 1000 bytes"
    assert reasons["row:5"] == "/doc/id: a number has no member 'id'"
    assert rows.commit(("u", "instance", None, doc(1, {"id": "a"}))) == [("created", "a", None)]
    assert rows.commit(("d", "instance", {"pk": 2, "doc": ""}, None)) == []
    assert rows.refusals().keys() == {"row:3", "row:4", "row:5"}


def test_a_row_that_loses_its_id_keeps_what_it_held(rows: Rows) -> None:
    """Dirty data deletes nothing at the consumers: the aggregate is refused, and goes on when it is mended."""
    rows.commit(("c", "instance", None, doc(1, {"id": "a", "note": "1"})))
    assert rows.commit(("u", "instance", None, doc(1, {"note": "2"}))) == []
    assert rows.refusals() == {"a": "/doc/id is null or missing; it is the id"}
    assert rows.commit(("u", "instance", None, doc(1, {"id": "a", "note": "3"}))) == [("updated", "a", "3")]
    assert rows.refusals() == {}


def test_two_rows_with_one_id_are_refused_until_one_lets_go(rows: Rows) -> None:
    """Neither wins silently; a swap inside one transaction is no collision."""
    rows.commit(("c", "instance", None, doc(1, {"id": "a"})), ("c", "instance", None, doc(2, {"id": "b"})))
    assert rows.commit(("u", "instance", None, doc(2, {"id": "a", "note": "2"}))) == [("deleted", "b", None)]
    assert rows.refusals() == {"a": "2 rows of public.instance have this id"}
    assert rows.commit(("d", "instance", {"pk": 1, "doc": ""}, None)) == [("updated", "a", "2")]
    rows.commit(("c", "instance", None, doc(1, {"id": "b", "note": "1"})))
    swapped = rows.commit(("u", "instance", None, doc(1, {"id": "a"})), ("u", "instance", None, doc(2, {"id": "b"})))
    assert swapped == [("updated", "a", None), ("updated", "b", None)]


def test_what_is_being_landed_lies_over_what_is_loaded() -> None:
    """Rows, owners and holders of a step that is not committed yet count; rows of an emptied type do not."""
    key, row = Key("instance", "a"), Key("instance", "1")
    newer = View()
    newer.note_row(row, {"pk": 1}, "b")
    newer.put_held_row(row, {"pk": 1, "doc": "x"}, "a")
    store, mapping, log = MemoryStore(), document_mapping(), ChangeLog()
    log.transaction([("u", "instance", None, doc(2, {"id": "a"}))])
    emptied = View(emptied=frozenset({Emptied("instance")}))
    emptied.note_row(row, {"pk": 1}, "a")
    assert emptied.rows[row] is None
    view = View()
    lookup = Lookup(frozenset(), held=frozenset({key}))
    store.load(lookup, view)
    view.lay_over(newer, lookup)
    assert view.holders(key) == ["1"]
    assert view.rows[row] == {"pk": 1, "doc": "x"}
    assert mapping.held == {"instance", "holdings", "item"}
