"""Databases that others wrote: from `rowcast init` through the first snapshot to live changes, equal on both sides."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql
from stack_fixture import SharedStack, TestProject, random_name, wait_until
from worker_fixture import WorkerPool, histories

from rowcast.cli.main import main
from rowcast.identity import join_id_parts

SAMPLES = {"chinook": "chinook/Chinook_PostgreSql.sql", "northwind": "northwind/northwind.sql"}
# Tables that are a part of another's aggregate: the aggregate, the property, the table's drafted name, and its column.
EMBEDDED = {
    "chinook": [
        ("invoice", "lines", "invoice_line", "invoice_id"),
        ("playlist", "tracks", "playlist_track", "playlist_id"),
    ],
    "northwind": [
        ("orders", "details", "order_details", "order_id"),
        ("employees", "territories", "employee_territories", "employee_id"),
        ("customers", "demographics", "customer_customer_demo", "customer_id"),
        ("region", "territories", "territories", "region_id"),
    ],
}
# How SELECT has to say it to be in the form of docs/reference/types.md; all else is as to_jsonb has it.
FORMS = {"numeric": "{}::text", "bytea": "translate(encode({}, 'base64'), E'\\n', '')"}


class Sample:
    """A sample database as a project drafted it: its aggregates by table, each with its key."""

    def __init__(self, project: TestProject) -> None:
        self.project = project
        declared = yaml.safe_load(project.source_path.read_text())["aggregates"]
        self.names = {name: entry["table"] for name, entry in declared.items()}
        self.keys = {
            name: entry["id"] if isinstance(entry["id"], list) else [entry["id"]] for name, entry in declared.items()
        }

        self.inner: dict[str, list[tuple[str, str, str]]] = {}

    def embed(self, above: str, prop: str, name: str, column: str) -> None:
        """Make the rows of aggregate *name* a property of aggregate *above*, as somebody would by hand."""
        path = self.project.source_path
        declared = yaml.safe_load(path.read_text())
        entry = declared["aggregates"].pop(name)
        declared["aggregates"][above].setdefault("embedded", {})[prop] = {"table": entry["table"], "column": column}
        path.write_text(yaml.safe_dump(declared, sort_keys=False))
        folder = self.project.folder / "schemas" / self.project.name
        row = json.loads((folder / name / "v1.0.json").read_text())
        contract = json.loads((folder / above / "v1.0.json").read_text())
        contract["required"].append(prop)
        contract["properties"][prop] = {
            "type": "array",
            "description": "What belongs to it.",
            "items": {each: row[each] for each in ("type", "properties", "required")},
        }
        (folder / above / "v1.0.json").write_text(json.dumps(contract))
        shutil.rmtree(folder / name)
        self.inner.setdefault(above, []).append((prop, name, column))

    @property
    def roots(self) -> list[str]:
        """The aggregates that are published."""
        inner = {name for each in self.inner.values() for _, name, _ in each}
        return [name for name in self.names if name not in inner]

    def columns(self, name: str) -> dict[str, str]:
        """The columns of an aggregate's table, each with its type."""
        rows = self.project.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema || '.' || table_name = %s ORDER BY ordinal_position",
            self.names[name],
        )
        return dict(rows.fetchall())

    def table(self, name: str) -> sql.Identifier:
        """The table of an aggregate."""
        return sql.Identifier(*self.names[name].split("."))

    def rows(self, name: str) -> dict[str, Any]:
        """The rows of an aggregate's table by id text, in the form of events and in the order of the key."""
        key = self.keys[name]
        values = sql.SQL(", ").join(
            sql.SQL(FORMS.get(kind, "{}")).format(sql.Identifier(column)) + sql.SQL(" AS ") + sql.Identifier(column)
            for column, kind in self.columns(name).items()
        )
        order = sql.SQL(", ").join(
            sql.SQL('{} COLLATE "C"' if kind.endswith(("text", "varying")) else "{}").format(sql.Identifier(column))
            for column, kind in self.columns(name).items()
            if column in key
        )
        query = sql.SQL("SELECT to_jsonb(r) FROM (SELECT {} FROM {} ORDER BY {}) AS r").format(
            values, self.table(name), order
        )
        rows = [row for (row,) in self.project.connection.execute(query)]
        return {join_id_parts([str(row[each]) for each in key]): row for row in rows}

    def truth(self) -> dict[tuple[str, str], Any]:
        """What SELECT shows, in the form of events."""
        found = {(name, id_text): row for name in self.roots for id_text, row in self.rows(name).items()}
        for above, embedded in self.inner.items():
            for prop, name, column in embedded:
                rows = list(self.rows(name).values())
                for row in (row for key, row in found.items() if key[0] == above):
                    row[prop] = [each for each in rows if each[column] == row[self.keys[above][0]]]
        return found

    def published(self) -> dict[tuple[str, str], Any]:
        """What the topics say."""
        last = [events[-1] for events in histories(self.project, self.roots).values()]
        return {
            (event.identity.aggregate, event.identity.id_text): dict(event.after)
            for event in last
            if event.after is not None
        }

    def wait_equal(self) -> None:
        """Wait until the topics say what SELECT says; the source has to be quiet."""
        wanted = self.truth()
        try:
            wait_until(lambda: self.published() == wanted, "topics agree with SELECT", 90)
        except pytest.fail.Exception:
            found = self.published()
            wrong = [each for each in wanted.keys() | found.keys() if wanted.get(each) != found.get(each)]
            shown = [f"{each}: {wanted.get(each)} but {found.get(each)}" for each in wrong[:5]]
            pytest.fail(f"{len(wrong)} differ\n" + "\n".join(shown))

    def change(self, name: str, rng: random.Random) -> None:
        """Update and delete some rows of a table, and insert a deleted one again."""
        types, key = self.columns(name), self.keys[name]
        table, salt = self.table(name), str(rng.random())
        picked = sql.SQL("ctid IN (SELECT ctid FROM {} ORDER BY md5(ctid::text || {}) LIMIT 3)").format(
            table, sql.Literal(salt)
        )
        texts = [each for each, kind in types.items() if kind in {"text", "character varying"} and each not in key]
        if texts:
            column = sql.Identifier(rng.choice(texts))
            update = sql.SQL("UPDATE {} SET {} = left(reverse({}), 10) WHERE {}").format(table, column, column, picked)
            self.project.connection.execute(update)
        try:
            with self.project.connection.transaction():
                gone = self.project.connection.execute(
                    sql.SQL("DELETE FROM {} WHERE {} RETURNING {}.*").format(table, picked, table)
                ).fetchall()
                marks = sql.SQL(", ").join(sql.Placeholder() for _ in types)
                insert = sql.SQL("INSERT INTO {} VALUES ({})").format(table, marks)
                if gone and rng.random() < 0.5:
                    self.project.connection.execute(insert, gone[0])
        except psycopg.errors.ForeignKeyViolation:
            pass  # others point at them


@pytest.fixture
def sample(stack: SharedStack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sample]:
    """A sample database, drafted by `rowcast init`; nothing is applied yet."""
    script = (Path(os.environ["ROWCAST_TEST_DATA"]) / "databases" / SAMPLES[request.param[0]]).read_text(
        encoding="utf-8"
    )
    script = re.sub(r"(?m)^(DROP DATABASE|CREATE DATABASE|\\c).*$", "", script)
    database, control = stack.new_database("sample"), stack.new_database("ctl")
    with psycopg.connect(database.url) as connection:
        connection.execute(script.encode())
    name = random_name(request.param[0])
    declared = "\n".join(
        f'[databases.{key}]\nurl = "{entry.url}"\nconnect_password = "{entry.connect_password}"\n'
        for key, entry in ((name, database), ("rowcast", control))
    )
    (tmp_path / "rowcast.toml").write_text(
        f'brokers = "{stack.brokers}"\nconnect_url = "{stack.connect_url}"\n{declared}'
    )
    command = ["--project", str(tmp_path), "init", "--database", database.url, "--source", name]
    assert main(command) == 1, "everything is drafted but the settings, which are kept"
    for path in tmp_path.glob("schemas/*/*/v1.0.json"):
        path.write_text(path.read_text().replace('"unclassified"', '"none"'))
    project = TestProject(tmp_path, name, stack)
    project.source_path.write_text(f"topics: {{partitions: 3}}\n{project.source_path.read_text()}")
    sample = Sample(project)
    for each in EMBEDDED[request.param[0]] if request.param[1] else ():
        sample.embed(*each)
    try:
        yield sample
    finally:
        project.close()


@pytest.mark.slow
@pytest.mark.skipif("ROWCAST_TEST_DATA" not in os.environ, reason="ROWCAST_TEST_DATA names no folder of databases")
@pytest.mark.parametrize(
    "sample",
    [
        pytest.param((name, form), marks=pytest.mark.matrix if not form else ())
        for name in SAMPLES
        for form in ("", "embedded")
    ],
    indirect=True,
)
def test_a_sample_database_is_carried_over_from_its_first_row_to_live_changes(sample: Sample, tmp_path: Path) -> None:
    """Every table as it was drafted, without a word changed, or with what belongs together in one aggregate."""
    sample.project.apply()
    workers = WorkerPool(sample.project, tmp_path)
    rng = random.Random(7)
    try:
        workers.start().wait_owned()
        sample.wait_equal()
        for _ in range(10):
            for name in sample.names:
                sample.change(name, rng)
        sample.wait_equal()
    finally:
        workers.end()
