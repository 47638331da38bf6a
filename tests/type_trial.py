"""Every documented type on a real stack: one table, through snapshot, stream and preview."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from stack_fixture import TestProject, wait_until
from type_forms import EXTENSIONS, PREPARATION, REFUSED, Value, values
from worker_fixture import WorkerPool, histories, rowcast

# Ids of the rows that the stream brings, and of those that are refused.
STREAMED, WRONG = 1_000, 2_000


class TypeTrial:
    """A table with a column for each type; row *n* holds the n-th value of each."""

    def __init__(self, project: TestProject, *, extensions: bool) -> None:
        self._project = project
        self.columns: dict[str, str] = {}
        self.rows: list[dict[str, Value]] = []
        for each in values(extensions):
            column = self.columns.setdefault(each.type, f"c{len(self.columns)}")
            row = next((row for row in self.rows if column not in row), None)
            if row is None:
                self.rows.append(row := {})
            row[column] = each
        for statement in (f"CREATE EXTENSION {name}" for name in EXTENSIONS if extensions):
            project.execute(statement)
        project.execute(PREPARATION)
        declared = ", ".join(f"{column} {kind}" for kind, column in self.columns.items())
        project.execute(f"CREATE TABLE typed (id integer PRIMARY KEY, other text, {declared})")
        # Large values of some arrays, which an UPDATE does not touch, would be lost otherwise.
        project.execute("ALTER TABLE typed REPLICA IDENTITY FULL")
        project.source_path.write_text(
            f"source: {project.name}\ndatabase: {project.name}\ntopics: {{partitions: 3}}\n"
            "refusals: {stop_above: 1}\naggregates:\n  product: {table: public.typed, id: id}\n"
        )
        project.write_contract("product", (), {name: {} for name in ("id", *self.columns.values())})

    def insert(self, first: int) -> None:
        """Insert the rows, with ids from *first* on."""
        self._project.execute("SET timezone = 'UTC'")
        for number, row in enumerate(self.rows, first):
            names, texts = ", ".join(row), ", ".join("%s" for _ in row)
            parameters = [each.text for each in row.values()]
            self._project.execute(f"INSERT INTO typed (id, {names}) VALUES ({number}, {texts})", *parameters)

    def insert_refused(self) -> None:
        """Insert a row for each value that no event can carry."""
        for number, (kind, value, _) in enumerate(REFUSED, WRONG):
            self._project.execute(f"INSERT INTO typed (id, {self.columns[kind]}) VALUES ({number}, {value})")

    def wait(self, count: int) -> dict[int, Any]:
        """The entities of *count* rows."""
        wait_until(lambda: len(self.published()) >= count, f"{count} rows", 40)
        return self.published()

    def published(self) -> dict[int, Any]:
        """The entities by id."""
        last = (events[-1] for events in histories(self._project, ("product",), major=2).values())
        return {int(event.identity.id_text): event.after for event in last}

    def check(self, entities: dict[int, Any], first: int) -> None:
        """Each value has its form, SELECT shows its text, and PostgreSQL reads the form as that value."""
        wrong = []
        for number, row in enumerate(self.rows, first):
            for column, value in row.items():
                form = entities[number][column]
                if json.dumps(form, sort_keys=True) != json.dumps(value.form, sort_keys=True):
                    wrong.append(f"{value.type} {value.text[:60]}: {str(form)[:60]}, not {str(value.form)[:60]}")
            wrong += self._shown_otherwise(number, row.items())
            lacking = set(self.columns.values()) - set(row)
            wrong += [f"{column} of {number} is not null" for column in lacking if entities[number][column] is not None]
        assert not wrong, "\n".join(wrong)

    def _shown_otherwise(self, number: int, row: Iterable[tuple[str, Value]]) -> list[str]:
        # A cast to text would take the blanks off.
        shown = [
            (value, f"concat({column})" if value.type.startswith("char(") else f"{column}::text", value.back)
            for column, value in row
        ]
        columns = ", ".join(f"{text}, {back or 'NULL'}" for _, text, back in shown)
        parameters = [value.parameter for value, _, back in shown if back is not None]
        found = self._project.execute(f"SELECT {columns} FROM typed WHERE id = {number}", *parameters).fetchone()
        assert found is not None
        wrong = [
            f"{value.type}: {text!r}, not {value.text!r}"
            for (value, _, _), text in zip(shown, found[::2], strict=True)
            if text != value.text
        ]
        return wrong + [
            f"{value.type}: {value.parameter!r} is read as {text!r}"
            for (value, _, back), text in zip(shown, found[1::2], strict=True)
            if back is not None and text != value.text
        ]


def try_types(project: TestProject, workers: WorkerPool, *, extensions: bool) -> TypeTrial:
    """Publish every type from a snapshot and from the stream, and check the forms; some values are refused."""
    trial = TypeTrial(project, extensions=extensions)
    trial.insert(1)
    project.apply()
    workers.start().wait_owned()
    count = len(trial.rows)
    trial.check(trial.wait(count), 1)
    trial.insert_refused()
    trial.insert(STREAMED)
    entities = trial.wait(2 * count)
    trial.check(entities, STREAMED)
    # An update of what is not published touches no value, and makes no event.
    project.execute("UPDATE typed SET other = 'x' WHERE id < 2000")
    project.execute("INSERT INTO typed (id) VALUES (3000)")
    assert trial.wait(2 * count + 1).keys() - entities.keys() == {3000}
    assert {len(events) for events in histories(project, ("product",), major=2).values()} == {1}
    refused = json.loads(rowcast(project, "refused", "list", project.name, "--json").stdout)
    names = {number: trial.columns[kind] for number, (kind, _, _) in enumerate(REFUSED, WRONG)}
    assert {int(each["id"]): each["reason"] for each in refused} == {
        number: f"public.typed: column {names[number]!r}: {reason}"
        for number, (_, _, reason) in enumerate(REFUSED, WRONG)
    }
    # Read with SELECT each value is what the change log has.
    resynced = rowcast(project, "sources", "resync", project.name).stdout
    assert f": {2 * count + 1 + len(REFUSED)} rows read; 0 rows differed, 0 were gone" in resynced
    return trial
