"""Items that a link table binds with several instances, on the real stack: ancestors follow every link and parent."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, rowcast, unpublished
from worker_fixture import wait_published as wait_versions

from rowcast.errors import ConfigurationError

SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
aggregates:
  series: {{table: public.series, id: id}}
  instance: {{table: public.instance_of, id: id, parent: {{aggregate: series, column: series_id}}}}
  item:
    table: public.item_of
    id: [library, number]
    parent:
      aggregate: instance
      column: instance_id
      through: {{table: public.bound_with, column: [library, number]}}
"""
TABLES = """
CREATE TABLE series (id integer PRIMARY KEY);
CREATE TABLE instance_of (id text PRIMARY KEY, series_id integer);
CREATE TABLE item_of (library text, number integer, shelf text, PRIMARY KEY (library, number));
CREATE TABLE bound_with (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, library text, number integer,
                         instance_id text);
"""
TYPES = ("series", "instance", "item")
MANY = 100_000
GROWTH_MB_MAX = 80
MANY_S = 400


@pytest.fixture
def bound(project: TestProject) -> TestProject:
    """A project with the declared aggregates and empty tables."""
    project.execute(TABLES)
    project.source_path.write_text(SOURCE.format(name=project.name))
    text, number = {"type": ["string", "null"]}, {"type": ["integer", "null"]}
    project.write_contract("series", (), {"id": {"type": "integer"}})
    project.write_contract("instance", ("series",), {"id": {"type": "string"}, "series_id": number})
    project.write_contract("item", ("instance", "series"), {"library": text, "number": number, "shelf": text})
    return project


def truth(project: TestProject) -> dict[tuple[str, str], Any]:
    """The ancestors of every aggregate, by type and id, from SELECT alone."""
    series = {str(id_) for (id_,) in project.execute("SELECT id FROM series")}
    above = dict(project.execute("SELECT id, series_id::text FROM instance_of").fetchall())
    links: dict[str, set[str]] = {}
    for library, number, instance in project.execute("SELECT library, number, instance_id FROM bound_with"):
        if instance is not None:
            links.setdefault(f"{library},{number}", set()).add(instance)

    def series_of(instances: list[str] | None) -> list[str] | None:
        found = sorted({above[each] for each in instances or ()} - {None})
        return None if instances is None or not series.issuperset(found) else found

    states: dict[tuple[str, str], Any] = {("series", each): {} for each in series}
    states |= {("instance", each): {"series": series_of([each])} for each in above}
    for library, number in project.execute("SELECT library, number FROM item_of"):
        instances: list[str] | None = sorted(links.get(f"{library},{number}", set()))
        instances = instances if above.keys() >= set(instances or ()) else None
        states["item", f"{library},{number}"] = {"instance": instances, "series": series_of(instances)}
    return states


def published(project: TestProject) -> dict[tuple[str, str], Any]:
    """The last ancestors of each aggregate that is not deleted; versions have to be dense."""
    last = [events[-1] for events in histories(project, TYPES, major=2).values()]
    return {
        (each.identity.aggregate, each.identity.id_text): dict(each.ancestors)
        for each in last
        if each.after is not None
    }


def wait_published(project: TestProject) -> None:
    """Wait until the topics say what SELECT says; the source has to be quiet."""
    wanted = truth(project)
    try:
        wait_until(lambda: published(project) == wanted, "topics agree with SELECT", 60)
    except pytest.fail.Exception as error:
        found = published(project)
        wrong = [(key, wanted.get(key), found.get(key)) for key in sorted(wanted.keys() | found.keys())]
        wrong = [each for each in wrong if each[1] != each[2]]
        pytest.fail(f"{error}: {len(wrong)} differ: {wrong[:3]} {rowcast(project, 'refused', 'list').stdout}")


def change(project: TestProject, rng: random.Random) -> None:
    """One committed transaction of links and of what they bind."""
    with project.connection.transaction():
        for _ in range(rng.randint(1, 4)):
            item, instance = ("ab"[rng.randrange(2)], rng.randrange(3)), rng.choice(["x", "y", "z", None])
            statement, *values = rng.choice(
                [
                    ("INSERT INTO series VALUES (%s) ON CONFLICT DO NOTHING", rng.randrange(2)),
                    ("DELETE FROM series WHERE id = %s", rng.randrange(2)),
                    ("INSERT INTO instance_of VALUES (%s, 0) ON CONFLICT DO NOTHING", instance or "x"),
                    ("UPDATE instance_of SET series_id = %s WHERE id = %s", rng.choice([0, 1, None]), instance),
                    ("DELETE FROM instance_of WHERE id = %s", instance),
                    ("INSERT INTO item_of VALUES (%s, %s) ON CONFLICT DO NOTHING", *item),
                    ("DELETE FROM item_of WHERE library = %s AND number = %s", *item),
                    ("INSERT INTO bound_with (library, number, instance_id) VALUES (%s, %s, %s)", *item, instance),
                    ("UPDATE bound_with SET instance_id = %s WHERE library = %s AND number = %s", instance, *item),
                    ("UPDATE bound_with SET number = %s WHERE instance_id = %s", rng.randrange(3), instance),
                    ("DELETE FROM bound_with WHERE id % 3 = %s", rng.randrange(3)),
                ]
            )
            project.execute(statement.replace("id % 3", "id %% 3"), *values)


@pytest.mark.matrix
@pytest.mark.guarantee("Nothing committed is lost")
def test_items_with_several_parents_follow_their_links(bound: TestProject, workers: WorkerPool) -> None:
    """Snapshot, stream, a large transaction, a truncated link table, a new snapshot; a killed worker repeats none."""
    rng = random.Random(5)
    for _ in range(30):
        change(bound, rng)
    bound.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_published(bound)
    for _ in range(60):
        change(bound, rng)
    worker.kill()
    for _ in range(20):
        change(bound, rng)
    workers.start().wait_owned(40)
    wait_published(bound)
    with bound.connection.transaction():
        bound.execute("INSERT INTO instance_of SELECT 'i' || g, NULL FROM generate_series(1, 100) g")
        bound.execute("INSERT INTO item_of SELECT 'c', g FROM generate_series(1, 300) g")
        links = "SELECT 'c', 1 + g %% 300, 'i' || (1 + g %% 100) FROM generate_series(1, 9000) g"
        bound.execute(f"INSERT INTO bound_with (library, number, instance_id) {links.replace('%%', '%')}")
        bound.execute("UPDATE bound_with SET instance_id = 'i' || (1 + id % 99) WHERE library = 'c'")
        bound.execute("DELETE FROM instance_of WHERE id = 'i7'")
    wait_published(bound)
    with bound.connection.transaction():
        bound.execute("UPDATE instance_of SET series_id = 1 WHERE id LIKE 'i%'")
        bound.execute("INSERT INTO series VALUES (1) ON CONFLICT DO NOTHING")
    wait_published(bound)
    shown = json.loads(
        rowcast(bound, "sources", "preview", bound.name, "--table", "item", "--id", "c,5", "--json").stdout
    )
    assert [each["ancestors"] for each in shown["events"]] == [published(bound)["item", "c,5"]]
    with bound.connection.transaction():
        bound.execute("TRUNCATE bound_with")
        bound.execute("INSERT INTO bound_with (library, number, instance_id) VALUES ('c', 5, 'i5'), ('c', 5, 'i6')")
    wait_published(bound)
    bound.execute("TRUNCATE item_of")
    bound.execute("INSERT INTO item_of SELECT 'c', g FROM generate_series(1, 10) g")
    wait_published(bound)
    bound.execute("DELETE FROM bound_with WHERE instance_id = 'i6'")
    assert rowcast(bound, "sources", "remove", bound.name, "--yes").returncode == 0
    bound.execute("DELETE FROM bound_with")  # which no streamed change will tell
    bound.execute("DELETE FROM item_of WHERE number > 5")
    bound.execute("INSERT INTO bound_with (library, number, instance_id) VALUES ('c', 4, 'i4')")
    bound.apply()
    wait_published(bound)


@pytest.mark.matrix
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_resync_finds_links_that_changed_unseen(bound: TestProject, workers: WorkerPool) -> None:
    """The whole source, or each item by its id, with all links that it has or had."""
    rng = random.Random(6)
    for _ in range(30):
        change(bound, rng)
    bound.apply()
    workers.start().wait_owned()
    wait_published(bound)
    for named in (False, True):
        with unpublished(bound, ("item_of", "bound_with", *(() if named else ("series", "instance_of")))):
            for _ in range(25):
                change(bound, rng)
        known = {id_ for type_, id_ in {**published(bound), **truth(bound)} if type_ == "item"}
        asked = ["--aggregate", "item", *(f"--id={each}" for each in known)] if named else []
        done = rowcast(bound, "sources", "resync", bound.name, *asked)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_published(bound)
        change(bound, rng)
        wait_published(bound)


@pytest.mark.matrix
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_parent_bound_with_a_hundred_thousand_moves_in_little_memory(bound: TestProject, workers: WorkerPool) -> None:
    """One event for each item, also when the worker dies between two chunks."""
    bound.execute("INSERT INTO series VALUES (1), (2)")
    bound.execute("INSERT INTO instance_of VALUES ('x', 1), ('y', 2)")
    bound.apply()
    first = workers.start()
    first.wait_owned()
    with bound.connection.transaction():
        bound.execute(f"INSERT INTO item_of SELECT 'a', g FROM generate_series(1, {MANY}) g")
        links = f"SELECT 'a', g, 'x' FROM generate_series(1, {MANY}) g"
        bound.execute(f"INSERT INTO bound_with (library, number, instance_id) {links}")
        bound.execute("INSERT INTO bound_with (library, number, instance_id) VALUES ('a', 1, 'y')")
    wait_versions(bound, "item", 1, MANY, MANY_S)
    first.process.terminate()
    first.wait_ended()
    moving = workers.start("sequencer.after_publish=kill@20")
    moving.wait_owned()
    bound.execute("UPDATE instance_of SET series_id = 2 WHERE id = 'x'")
    assert moving.wait_ended(MANY_S) == -9
    last = workers.start()
    last.wait_owned(40)
    before_mb = last.memory_mb("VmRSS")
    wait_versions(bound, "item", 2, MANY, MANY_S)
    grown_mb = last.memory_mb("VmHWM") - before_mb

    print(f"the worker grew by {grown_mb:.0f} MiB")
    assert grown_mb < GROWTH_MB_MAX
    assert published(bound) == truth(bound)


def test_a_link_table_that_does_not_fit_is_refused_before_anything_is_touched(bound: TestProject) -> None:
    """Each mistake is told with its dotted field."""
    text = bound.source_path.read_text()
    for wrong, words in (
        (text.replace("public.bound_with", "public.bound"), "parent.through.table: public.bound: does not exist"),
        (text.replace("column: [library, number]}", "column: number}"), "public.item_of has 2 columns, not 1"),
        (text.replace("column: instance_id", "column: number"), "number is integer, public.instance_of.id is text"),
        (text.replace("public.bound_with", "public.series"), "public.series belongs to aggregate 'series'"),
        (text.replace("    parent:\n", "    where: {shelf: a}\n    parent:\n"), "whose id is the primary key"),
    ):
        assert wrong != text
        bound.source_path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=words):
            bound.plan()
