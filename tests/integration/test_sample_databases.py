"""Databases that others wrote: from `rowcast init` through the first snapshot to live changes, equal on both sides."""

from __future__ import annotations

import os
import random
import re
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

    def truth(self) -> dict[tuple[str, str], Any]:
        """What SELECT shows, in the form of events."""
        found = {}
        for name, key in self.keys.items():
            types = self.columns(name)
            values = sql.SQL(", ").join(
                sql.SQL(FORMS.get(kind, "{}")).format(sql.Identifier(column)) + sql.SQL(" AS ") + sql.Identifier(column)
                for column, kind in types.items()
            )
            query = sql.SQL("SELECT to_jsonb(r) FROM (SELECT {} FROM {}) AS r").format(values, self.table(name))
            for (row,) in self.project.connection.execute(query):
                found[name, join_id_parts([str(row[each]) for each in key])] = row
        return found

    def published(self) -> dict[tuple[str, str], Any]:
        """What the topics say."""
        last = [events[-1] for events in histories(self.project, self.names).values()]
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
    script = (Path(os.environ["ROWCAST_TEST_DATA"]) / "databases" / SAMPLES[request.param]).read_text(encoding="utf-8")
    script = re.sub(r"(?m)^(DROP DATABASE|CREATE DATABASE|\\c).*$", "", script)
    database, control = stack.new_database("sample"), stack.new_database("ctl")
    with psycopg.connect(database.url) as connection:
        connection.execute(script.encode())
    name = random_name(request.param)
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
    try:
        yield Sample(project)
    finally:
        project.close()


@pytest.mark.slow
@pytest.mark.skipif("ROWCAST_TEST_DATA" not in os.environ, reason="ROWCAST_TEST_DATA names no folder of databases")
@pytest.mark.parametrize("sample", SAMPLES, indirect=True)
def test_a_sample_database_is_carried_over_from_its_first_row_to_live_changes(sample: Sample, tmp_path: Path) -> None:
    """Every table as it was drafted, without a word changed."""
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
