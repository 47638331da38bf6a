"""Tenant schemas on the real stack: one declared table for those of every tenant, also of tenants that come later."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, rowcast

from rowcast.sources.tenant_publishing import trigger_name

SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
references:
  kind: {{table: public.kind, key: id, value: name}}
  place: {{table: "{{tenant}}_inv.place", key: id, value: name}}
aggregates:
  title: {{table: "{{tenant}}_inv.title", id: id, fields: {{kind: {{column: kind_id, reference: kind}}}}}}
  copy:
    table: "{{tenant}}_inv.copy"
    id: id
    parent: {{aggregate: title, column: title_id}}
    fields: {{place: {{column: place_id, reference: place}}}}
    embedded:
      notes: {{table: "{{tenant}}_inv.note", column: copy_id}}
"""
SCHEMA = """
CREATE TABLE {0}.title (id integer PRIMARY KEY, name text NOT NULL, kind_id integer NOT NULL);
CREATE TABLE {0}.place (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE {0}.copy (id integer PRIMARY KEY, title_id integer NOT NULL, place_id integer NOT NULL);
CREATE TABLE {0}.note (id integer PRIMARY KEY, copy_id integer, text text NOT NULL);
"""
ROWS = """
INSERT INTO {0}.place SELECT g, {1} || ' place ' || g FROM generate_series(1, 3) g;
INSERT INTO {0}.title SELECT g, {1} || ' title ' || g, 1 + g % 2 FROM generate_series(1, 5) g;
INSERT INTO {0}.copy SELECT g, 1 + g % 5, 1 + g % 3 FROM generate_series(1, 10) g;
INSERT INTO {0}.note SELECT g, 1 + g % 10, {1} || ' note ' || g FROM generate_series(1, 15) g;
"""
TITLES = "SELECT t.id, t.name, k.name FROM {0}.title t JOIN kind k ON k.id = t.kind_id"
COPIES = """
SELECT c.id, p.name, (SELECT t.id FROM {0}.title t WHERE t.id = c.title_id),
       ARRAY(SELECT n.text FROM {0}.note n WHERE n.copy_id = c.id ORDER BY n.id)
FROM {0}.copy c JOIN {0}.place p ON p.id = c.place_id
"""
TYPES = ("title", "copy")
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def described(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object; its fields are described and classified."""
    fields = {name: {**each, "description": "-", "x-pii": "none"} for name, each in properties.items()}
    return {"type": "object", "required": list(fields), "properties": fields}


@pytest.fixture
def library(project: TestProject) -> TestProject:
    """A project whose source has two tenants."""
    project.execute("CREATE TABLE kind (id integer PRIMARY KEY, name text NOT NULL)")
    project.execute("INSERT INTO kind VALUES (1, 'book'), (2, 'film')")
    for tenant in ("north", "south_1"):
        make(project, tenant)
    project.source_path.write_text(SOURCE.format(name=project.name))
    notes = {"type": "array", "items": described(id=NUMBER, text=TEXT)}
    project.write_contract("title", (), {"id": NUMBER, "name": TEXT, "kind": TEXT})
    project.write_contract("copy", ("title",), {"id": NUMBER, "place": TEXT, "notes": notes})
    return project


def of_tenant(statement: str, tenant: str) -> str:
    """*statement* with the schema of *tenant*, and its name as a literal."""
    return sql.SQL(statement).format(sql.Identifier(f"{tenant}_inv"), sql.Literal(tenant)).as_string(None)


def make(project: TestProject, tenant: str) -> None:
    """A new tenant, tables and rows in one transaction."""
    with project.connection.transaction():
        project.execute(of_tenant("CREATE SCHEMA {0}", tenant))
        project.execute(of_tenant(SCHEMA, tenant))
        project.execute(of_tenant(ROWS, tenant))


def truth(project: TestProject) -> dict[str, Any]:
    """What the tables hold, by id with the tenant in front, from SELECT alone."""
    found: dict[str, Any] = {}
    schemas = project.execute("SELECT nspname FROM pg_namespace WHERE right(nspname, 4) = '_inv'").fetchall()
    for tenant in (schema.removesuffix("_inv") for (schema,) in schemas):
        for id_, name, kind in project.execute(of_tenant(TITLES, tenant)):
            found[f"title {tenant}/{id_}"] = name, kind
        for id_, place, title, notes in project.execute(of_tenant(COPIES, tenant)):
            found[f"copy {tenant}/{id_}"] = place, [] if title is None else [f"{tenant}/{title}"], notes
    return found


def published(project: TestProject) -> dict[str, Any]:
    """The last states that are not deleted, in the same form; versions have to be dense."""
    found: dict[str, Any] = {}
    for events in histories(project, TYPES, major=2).values():
        last = events[-1]
        if last.after is None:
            continue
        assert last.identity.tenant == last.identity.id_text.split("/")[0]
        if last.identity.aggregate == "title":
            state: Any = last.after["name"], last.after["kind"]
        else:
            notes = [each["text"] for each in last.after["notes"]]
            state = last.after["place"], list(last.ancestors["title"] or ()), notes
        found[f"{last.identity.aggregate} {last.identity.id_text}"] = state
    return found


def wait_agreement(project: TestProject) -> None:
    """Wait until the topics say what SELECT says; the source has to be quiet."""
    wanted = truth(project)
    try:
        wait_until(lambda: published(project) == wanted, "topics agree with the tables", 45)
    except pytest.fail.Exception as error:
        found = published(project)
        wrong = [(key, wanted.get(key), found.get(key)) for key in sorted(wanted.keys() | found.keys())]
        status = rowcast(project, "sources", "status")
        wrong = [each for each in wrong if each[1] != each[2]]
        pytest.fail(f"{error}\n{wrong[:5]} of {len(wrong)}\n{status.stdout}{status.stderr}")


class Writes(threading.Thread):
    """Small changes of one tenant, one transaction after the other, until `finish`."""

    def __init__(self, project: TestProject, tenant: str) -> None:
        super().__init__(daemon=True)
        self._url, self._tenant = project.settings.database(project.name).url, tenant
        self._ending, self.error = threading.Event(), list[Exception]()

    def run(self) -> None:
        """Update, delete and insert."""
        statements = (
            "UPDATE {0}.title SET name = name || '.' WHERE id = 1 + {2} % 5",
            "UPDATE {0}.copy SET title_id = 1 + (title_id + 1) % 5 WHERE id = 1 + {2} % 10",
            "DELETE FROM {0}.note WHERE id = 1 + {2} % 15",
            "INSERT INTO {0}.note VALUES (1 + {2} % 15, 1 + {2} % 10, {1}) ON CONFLICT (id) DO NOTHING",
        )
        schema, name = sql.Identifier(f"{self._tenant}_inv"), sql.Literal(self._tenant)
        number = 0
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while not self._ending.wait(0.01):  # paces the load; nothing waits for it
                    number += 1
                    statement = sql.SQL(statements[number % 4]).format(schema, name, sql.Literal(number))
                    connection.execute(statement)
        except psycopg.Error as error:
            self.error.append(error)

    def finish(self) -> None:
        """End; fails where a write failed."""
        self._ending.set()
        self.join(30)
        assert not self.error


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_tenants_come_and_go_without_a_restart(library: TestProject, workers: WorkerPool) -> None:
    """
    Two tenants with equal ids are snapshotted under writes; a third one's first rows are in the transaction of its
    tables; a worker dies; a tenant is emptied, one dropped, one comes unpublished; the topics say what the tables say.
    """
    try_offline(library)
    writes = Writes(library, "north")
    writes.start()
    library.apply()
    assert library.plan() == []
    worker = workers.start()
    wait_until(lambda: len(published(library)) > 20, "the first snapshot is out", 60)
    make(library, "new-3")
    later = Writes(library, "new-3")
    later.start()
    wait_until(lambda: "title new-3/5" in published(library), "the new tenant flows")
    worker.kill()
    workers.start(settings={"ROWCAST_LIMITS": "transaction_changes=40,chunk_aggregates=25"})
    library.execute("UPDATE kind SET name = 'Book' WHERE id = 1")
    library.execute(of_tenant("UPDATE {0}.place SET name = 'hall' WHERE id = 2", "south_1"))
    writes.finish()
    later.finish()
    wait_agreement(library)
    assert library.plan() == []
    empty_and_move(library)
    drop_and_halt(library)
    damage_and_resync(library)
    assert rowcast(library, "sources", "remove", library.name, "--yes").returncode == 0
    left = library.execute("SELECT evtname FROM pg_event_trigger UNION SELECT pubname FROM pg_publication")
    assert left.fetchall() == []


def try_offline(library: TestProject) -> None:
    """What a preview saves is a case that passes."""
    saved = library.source_path.with_suffix(".cases") / "north.json"
    for verb in (("preview", library.name, "--save", str(saved)), ("test", library.name)):
        tried = rowcast(library, "sources", *verb)
        assert tried.returncode == 0, tried.stdout + tried.stderr
    assert '"id": "north/1"' in saved.read_text()


def empty_and_move(library: TestProject) -> None:
    """One tenant's tables are truncated, others' too in large transactions; rows are deleted and moved."""
    library.execute(of_tenant("TRUNCATE {0}.title, {0}.copy, {0}.note", "north"))
    with library.connection.transaction():
        library.execute(of_tenant("UPDATE {0}.copy SET place_id = 1; TRUNCATE {0}.title, {0}.copy", "new-3"))
        library.execute(of_tenant("INSERT INTO {0}.title SELECT g, {1}, 1 FROM generate_series(1, 60) g", "new-3"))
        library.execute(of_tenant("INSERT INTO {0}.copy VALUES (1, 60, 2)", "new-3"))
    with library.connection.transaction():
        library.execute(of_tenant("DELETE FROM {0}.copy WHERE id > 5", "south_1"))
        library.execute(of_tenant("UPDATE {0}.title SET id = id + 100 WHERE id = 4", "south_1"))
    wait_agreement(library)
    assert not [key for key in published(library) if "north" in key]


def drop_and_halt(library: TestProject) -> None:
    """
    A tenant that is dropped is deleted. Without the trigger a new one is found and named, the others go on, and the
    command that is told brings it in.
    """
    library.execute(of_tenant("DROP SCHEMA {0} CASCADE", "new-3"))
    library.execute(f'DROP EVENT TRIGGER "{trigger_name(library.name)}"')
    make(library, "late")
    library.execute(of_tenant("UPDATE {0}.title SET name = 'other'", "south_1"))
    wait_until(lambda: "tenant late is halted" in rowcast(library, "sources", "status").stdout, "a halt", 60)
    wanted = {key: each for key, each in truth(library).items() if "late" not in key}
    wait_until(lambda: published(library) == wanted, "the other tenants go on", 60)
    recovered = rowcast(library, "sources", "recover", library.name, "--code", "PUBLICATION_INCOMPLETE", "--yes")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    wait_agreement(library)
    assert library.plan() == []
    status = rowcast(library, "sources", "status")
    assert status.returncode == 0, status.stdout


def damage_and_resync(library: TestProject) -> None:
    """Row state that somebody has damaged is made good for the tenant that is named, and for no other."""
    with library.control() as control:
        control.execute("DELETE FROM rowcast.row_state WHERE row_key IN ('south_1/1', 'late/1')")
    resynced = rowcast(library, "sources", "resync", library.name, "--tenant", "south_1")
    assert (resynced.returncode, "4 rows differed" in resynced.stdout) == (0, True), resynced.stdout + resynced.stderr
    with library.control() as control:
        keys = "SELECT DISTINCT row_key FROM rowcast.row_state WHERE row_key IN ('south_1/1', 'late/1')"
        assert control.execute(keys).fetchall() == [("south_1/1",)]
    by_id = rowcast(library, "sources", "resync", library.name, "--aggregate", "copy", "--id", "late/1")
    assert (by_id.returncode, "1 rows differed" in by_id.stdout) == (0, True), by_id.stdout + by_id.stderr
