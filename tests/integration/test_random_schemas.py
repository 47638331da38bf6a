"""Random schemas on the real stack: hundreds of transactions, and what SELECT and the writer's own log say of them."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest
from psycopg import sql
from random_schema import (
    DOCUMENT,
    REFUSED,
    Embedded,
    Row,
    Rows,
    Table,
    Type,
    expected,
    random_row,
    random_schema,
    truth,
)
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories

from rowcast.sources.field import FieldDefinition

TRANSACTIONS = 300
SCHEMAS = 3
# What PostgreSQL keeps apart from the row, so that an UPDATE of other columns does not have it in the WAL.
LARGE = ["x" * 3_000 + each for each in "abc"]
JSON_TYPES = {"text": "string", "integer": "integer", "boolean": "boolean", "numeric(10,2)": "string"}


def random_types(rng: random.Random) -> list[Type]:
    """The types of several random schemas, each with names of its own."""
    types: list[Type] = []
    for number in range(SCHEMAS):
        types += random_schema(rng, f"s{number}_", len(types))
    return types


def declared(types: list[Type]) -> dict[str, Any]:
    """The aggregates of the source file."""
    return {each.name: _declared(each) for each in types}


def _declared(made: Type) -> dict[str, Any]:
    entry = {**_rows_of(made), "id": list(made.id)}
    if made.parent:
        entry["parent"] = {"aggregate": made.parent.name, "column": list(made.link)}
    if made.parent and made.through:
        through = {"table": f"public.{made.through.name}", "column": list(made.through.link)}
        entry["parent"] |= {"column": list(made.through.parent_columns), "through": through}
    return entry


def _embedded(made: Embedded) -> dict[str, Any]:
    entry = {**_rows_of(made), "column": list(made.link), "one": made.one}
    return {**entry, "order": list(made.order)} if made.order else entry


def _rows_of(made: Table) -> dict[str, Any]:
    entry: dict[str, Any] = {"table": f"public.{made.name}"}
    entry["fields"] = {name: _field(each) for name, each in made.fields.items()}
    if made.embedded:
        entry["embedded"] = {each.property: _embedded(each) for each in made.embedded}
    if made.where:
        entry["where"] = {
            each.place: {"not": list(each.values)} if each.negated else list(each.values) for each in made.where
        }
    if made.soft_delete:
        entry["soft_delete"] = made.soft_delete
    return entry


def _field(declared_field: FieldDefinition) -> dict[str, Any]:
    if declared_field.place is None:
        return {"constant": declared_field.constant}
    told = {"column": declared_field.place, "cast": declared_field.cast, "default": declared_field.default}
    return {name: value for name, value in told.items() if value is not None}


def create(project: TestProject, rng: random.Random, types: list[Type]) -> None:
    """Tables with random replica identities, contracts, and the source file."""
    for made in all_tables(types):
        columns = ", ".join(f"{name} {type_}" for name, type_ in made.columns.items())
        project.execute(f"CREATE TABLE {made.name} ({columns}, PRIMARY KEY ({', '.join(made.key)}))")
        for name, type_ in made.columns.items():
            if type_ in ("text", "jsonb") and name not in made.key:
                project.execute(f"ALTER TABLE {made.name} ALTER {name} SET STORAGE EXTERNAL")
        identity = rng.choice(["DEFAULT", "FULL", f"USING INDEX {made.name}_pkey"])
        project.execute(f"ALTER TABLE {made.name} REPLICA IDENTITY {identity}")
    for made in types:
        project.write_contract(made.name, tuple(made.above), _properties(made))
    source = {
        "source": project.name,
        "database": project.name,
        "topics": {"partitions": 3},
        "refusals": {"stop_above": 1},
        "aggregates": declared(types),
    }
    project.source_path.write_text(json.dumps(source))


def all_tables(types: list[Type]) -> list[Table]:
    """The tables of all types."""
    return [each for made in types for each in made.all_tables()]


def _properties(made: Table) -> dict[str, Any]:
    properties = {name: _property(made, each) for name, each in made.fields.items()}
    for each in made.embedded:
        described = {name: {"description": "-", "x-pii": "none", **one} for name, one in _properties(each).items()}
        rows = {"type": "object", "required": list(described), "properties": described}
        properties[each.property] = (
            {**rows, "type": ["object", "null"]} if each.one else {"type": "array", "items": rows}
        )
    return properties


def _property(made: Table, declared_field: FieldDefinition) -> dict[str, Any]:
    type_ = made.columns.get(declared_field.place or "", "text")
    if type_ == "jsonb":
        return {}
    json_type = "string" if declared_field.cast else JSON_TYPES[type_]
    return {"type": [json_type, "null"]}


class Writer:
    """Commits random transactions and keeps its own log of the rows after each of them."""

    def __init__(self, project: TestProject, rng: random.Random, types: list[Type]) -> None:
        self.project, self.rng, self.tables = project, rng, all_tables(types)
        self.rows, self.history = Rows(), list[tuple[int, Rows]]()

    def commit(self) -> None:
        """One transaction."""
        with self.project.connection.transaction():
            for _ in range(self.rng.randint(1, 6)):
                self._step(self.rng.choice(self.tables))
        self.history.append((len(self.history), dict(self.rows)))

    def _step(self, made: Table) -> None:
        row = random_row(self.rng, made)
        for name, type_ in made.columns.items():
            if type_ == "text" and name[0] == "c" and self.rng.random() < 0.3:
                row[name] = self.rng.choice(LARGE)
        if DOCUMENT in row and self.rng.random() < 0.5:
            row[DOCUMENT] = json.dumps({**json.loads(row[DOCUMENT]), "more": self.rng.choice(LARGE)})
        present = [key for key in self.rows if key[0] == made.name]
        chance = self.rng.random()
        if present and chance < 0.02:
            self._run(made, "TRUNCATE {table}")
            for key in present:
                del self.rows[key]
        elif present and chance < 0.6:
            self._change(made, self.rng.choice(present), row)
        else:
            key = (made.name, made.key_of(row))
            if key in self.rows:
                self._update(made, key, row, list(made.columns))
            else:
                self._insert(made, key, row)

    def _change(self, made: Table, key: tuple[str, tuple[Any, ...]], row: Row) -> None:
        other = (made.name, made.key_of(row))
        kind = self.rng.choice(["delete", "some", "some", "same", "key", "again"])
        if kind in ("delete", "again"):
            self._run(made, "DELETE FROM {table} WHERE {key}", *key[1])
            del self.rows[key]
            if kind == "again":
                self._insert(made, key, row)
        elif kind == "key" and other not in self.rows:
            self._update(made, key, row, list(made.key))
        elif kind == "same":
            self._update(made, key, self.rows[key], list(made.columns))
        else:
            names = [name for name in made.columns if name not in made.key]
            self._update(made, key, row, self.rng.sample(names, self.rng.randint(1, len(names))))

    def _insert(self, made: Table, key: tuple[str, tuple[Any, ...]], row: Row) -> None:
        new = {**row, **dict(zip(made.key, key[1], strict=True))}
        columns = sql.SQL(", ").join(map(sql.Identifier, new))
        values = sql.SQL(", ").join([sql.Placeholder()] * len(new))
        query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(made.name), columns, values)
        self.project.connection.execute(query, list(new.values()))
        self.rows[key] = new

    def _update(self, made: Table, key: tuple[str, tuple[Any, ...]], row: Row, names: list[str]) -> None:
        wanted = [name for name in names if set(names) <= set(made.key) or name not in made.key]
        sets = ", ".join(f"{name} = %s" for name in wanted)
        self._run(made, f"UPDATE {{table}} SET {sets} WHERE {{key}}", *(row[name] for name in wanted), *key[1])
        new = {**self.rows.pop(key), **{name: row[name] for name in wanted}}
        self.rows[made.name, tuple(new[name] for name in made.key)] = new

    def _run(self, made: Table, statement: str, *parameters: object) -> None:
        key = " AND ".join(f"{name} = %s" for name in made.key)
        self.project.execute(statement.format(table=made.name, key=key), *parameters)


def streams(project: TestProject) -> bool:
    """Whether a heartbeat has come through: what is committed from now on is no part of the snapshot."""
    with project.control() as control:
        query = "SELECT heartbeat IS NOT NULL FROM rowcast.source WHERE source = %s"
        return control.execute(query, (project.name,)).fetchone() == (True,)


def selected(project: TestProject, types: list[Type]) -> Rows:
    """The rows as SELECT shows them."""
    rows = Rows()
    for made in all_tables(types):
        columns = ", ".join(f"{n}::text" if t in ("jsonb", "numeric(10,2)") else n for n, t in made.columns.items())
        for values in project.execute(f"SELECT {columns} FROM {made.name}"):
            row = dict(zip(made.columns, values, strict=True))
            rows[made.name, tuple(row[name] for name in made.key)] = row
    return rows


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize(
    "seed",
    [pytest.param(1, marks=pytest.mark.slow), *(pytest.param(each, marks=pytest.mark.matrix) for each in range(2, 12))],
)
def test_topics_say_what_select_says_and_what_was_written(project: TestProject, workers: WorkerPool, seed: int) -> None:
    """
    Composite keys, moved keys, replica identities, TOAST, TRUNCATE, no-op rewrites, filters, chains of parents,
    embedded tables, link tables, ids in documents.
    """
    print(f"seed {seed}")
    rng = random.Random(seed)
    types = random_types(rng)
    create(project, rng, types)
    project.apply()
    workers.start().wait_owned()
    wait_until(lambda: streams(project), "the snapshot of the empty tables is over", 60)
    writer = Writer(project, rng, types)
    for _ in range(TRANSACTIONS):
        writer.commit()
    wanted = defaultdict(list)
    for aggregate, id_text, _, kind, after, above in expected(types, writer.history):
        wanted[f"{project.name}/{aggregate}/{id_text}"].append((kind, after, above))
    count = sum(map(len, wanted.values()))
    names = [each.name for each in types]

    def found() -> dict[str, list[Any]]:
        read = histories(project, names, 2)
        return {key: [(str(e.kind), e.after, dict(e.ancestors)) for e in events] for key, events in read.items()}

    with suppress(pytest.fail.Exception):  # which are missing is told below
        wait_until(lambda: sum(map(len, found().values())) >= count, f"{count} events", 90)
    got = found()
    for name in sorted({*wanted, *got}):
        assert got.get(name) == wanted.get(name), f"seed {seed}: {name}"
    states = truth(types, selected(project, types))
    last = {name: events[-1] for name, events in got.items() if events[-1][0] != "deleted"}
    told = {f"{project.name}/{types[rank].name}/{id_text}": state for (rank, id_text), state in states.items()}
    assert {name: each[1:] for name, each in last.items() if name not in told or told[name] is not REFUSED} == {
        name: state for name, state in told.items() if state is not REFUSED
    }
    assert count > TRANSACTIONS / 2
