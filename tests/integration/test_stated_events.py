"""Stated events on the real stack: from a statement of SQL to the topic, or to the list of what was refused."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, read_events, read_topics, rowcast

from rowcast.annotation import STATED_PREFIX, annotate, state_event
from rowcast.event import DomainEvent

SLOW = pytest.mark.slow
SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
refusals: {{stop_above: 1}}
aggregates:
  shelf:
    table: public.shelf
    id: [floor, code]
    events: {{moved: {{}}}}
  book:
    table: public.book
    id: id
    parent: {{aggregate: shelf, column: [floor, code]}}
    where: {{hidden: false}}
    events: {{lent: {{contract: v1.0}}, lost: {{}}}}
"""
SCHEMA = """
CREATE TABLE shelf (floor integer, code text, label text, PRIMARY KEY (floor, code));
CREATE TABLE book (id integer PRIMARY KEY, title text, floor integer, code text, hidden boolean NOT NULL DEFAULT false);
INSERT INTO shelf VALUES (1, 'a', 'first');
INSERT INTO book VALUES (1, 'one', 1, 'a', false), (2, 'two', 1, 'a', false), (3, 'hidden', 1, 'a', true);
"""
TEXT = {"type": ["string", "null"]}
TYPES = ("shelf", "book")


@pytest.fixture
def library(project: TestProject) -> TestProject:
    """A project with stated events of a composite id, and of rows of which some do not count."""
    project.source_path.write_text(SOURCE.format(name=project.name))
    project.write_contract("shelf", (), {"floor": {"type": "integer"}, "code": TEXT, "label": TEXT})
    project.write_contract("book", ("shelf",), {"id": {"type": "integer"}, "title": TEXT})
    for name in ("shelf.moved", "book.lent", "book.lost"):
        path = project.folder / "schemas" / project.name / name / "v1.0.json"
        path.parent.mkdir(parents=True)
        contract = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:rowcast:schema:{project.name}.{name}:1.0:data",
            "title": name,
            "description": "For a test.",
            "type": "object",
            "required": ["n"],
            "properties": {"n": {"type": "integer", "description": "-", "x-pii": "none"}},
        }
        path.write_text(json.dumps(contract))
    project.execute(SCHEMA)
    return project


def say(project: TestProject, aggregate: str, key: object, event: str, number: object) -> None:
    state_event(project.connection, aggregate, key, event, {"n": number})


def of(project: TestProject, id_text: str) -> list[DomainEvent]:
    return histories(project, TYPES, 2).get(f"{project.name}/book/{id_text}", [])


def refusals(project: TestProject) -> list[dict[str, Any]]:
    return list(json.loads(rowcast(project, "refused", "list", project.name, "--json").stdout))


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_a_service_states_is_an_event_or_a_refusal(library: TestProject, workers: WorkerPool) -> None:
    """In its place in the transaction, with the context; also of an aggregate that the transaction leaves alone."""
    library.apply()
    workers.start().wait_owned()
    wait_until(lambda: len(read_events(library, TYPES, 2)) == 3, "the snapshot", 40)
    with library.connection.transaction():
        annotate(library.connection, actor="ann")
        say(library, "book", 1, "lent", 1)
        library.execute("UPDATE book SET title = 'new' WHERE id = 1")
        say(library, "book", 1, "lent", 2)
        say(library, "shelf", {"floor": 1, "code": "a"}, "moved", 3)
        say(library, "book", 3, "lost", 4)
        say(library, "book", 1, "lent", "five")
        library.execute("SELECT pg_logical_emit_message(true, %s, '{')", STATED_PREFIX)
    library.execute("SELECT pg_logical_emit_message(false, %s, '{}')", STATED_PREFIX)
    with library.connection.transaction():
        say(library, "book", 2, "lost", 5)
        library.execute("DELETE FROM book WHERE id = 2")
    wait_until(lambda: len(of(library, "2")) == 3, "all events", 30)

    told = [(event.name, (event.after or {})["title"], event.data, dict(event.context)) for event in of(library, "1")]
    assert told == [
        ("snapshot", "one", None, {}),
        ("lent", "one", {"n": 1}, {"actor": "ann"}),
        ("updated", "new", None, {"actor": "ann"}),
        ("lent", "new", {"n": 2}, {"actor": "ann"}),
    ]
    assert [event.name for event in of(library, "2")] == ["snapshot", "lost", "deleted"]
    (moved,) = [event for event in read_events(library, ("shelf",), 2) if event.stated]
    assert (moved.identity.id_text, moved.data, moved.before) == ("1,a", {"n": 3}, {})
    assert moved.dataschema == f"urn:rowcast:schema:{library.name}.shelf:2.0+moved:1.0"
    _told_refusals(library)


def _told_refusals(library: TestProject) -> None:
    listed = wait_until(lambda: each if len(each := refusals(library)) == 4 else None, "the refusals", 10)
    assert Counter((each["aggregate"], each["id"], each["event"]) for each in listed) == {
        ("", "", ""): 2,
        ("book", "1", "lent"): 1,
        ("book", "3", "lost"): 1,
    }
    assert {each["reason"].partition(":")[0] for each in listed} >= {"there is no book 3", "/data/n"}
    place = next(each["place"] for each in listed if each["event"] == "lent")
    shown = json.loads(rowcast(library, "refused", "show", library.name, place, "--json").stdout)
    assert shown["record"]["data"] == {"n": "five"}
    assert rowcast(library, "refused", "dismiss", library.name, place).stdout == "1 dismissed\n"
    assert rowcast(library, "refused", "dismiss", library.name, "--all").stdout == "3 dismissed\n"
    assert refusals(library) == []


BULK = 21_000


@SLOW
@pytest.mark.parametrize("step", ["in_staging=kill@2", pytest.param("in_commit=kill@16", marks=pytest.mark.matrix)])
def test_in_a_transaction_too_large_for_memory_each_is_said_once(
    library: TestProject, workers: WorkerPool, step: str
) -> None:
    """Staged, folded and said in chunks, with the state of its place, whatever moment the worker dies at."""
    library.apply()
    first = workers.start()
    first.wait_owned()
    wait_until(lambda: len(read_events(library, TYPES, 2)) == 3, "the snapshot", 40)
    first.process.terminate()
    first.wait_ended()
    dying = workers.start(f"sequencer.{step}")
    dying.wait_owned()
    with library.connection.transaction():
        say(library, "book", 1, "lent", 1)
        say(library, "shelf", {"floor": 1, "code": "a"}, "moved", 2)
        library.execute(f"INSERT INTO book SELECT g, 't' || g, 1, 'a', false FROM generate_series(10, {BULK + 9}) g")
        library.execute("UPDATE book SET title = 'new' WHERE id = 1")
        say(library, "book", 1, "lent", 3)
        say(library, "book", 2, "lost", 4)
        say(library, "book", 11, "lost", 5)
        say(library, "book", 9, "lost", 6)
        library.execute("SELECT pg_logical_emit_message(true, %s, '{')", STATED_PREFIX)
        library.execute("DELETE FROM book WHERE id = 2")
        library.execute("UPDATE shelf SET label = 'second'")
    assert dying.wait_ended(60) == -9
    workers.start().wait_owned(30)
    # Three of the snapshot, the new books, two that change, one that goes, and five that were said.
    count = 3 + BULK + 3 + 5
    wait_until(lambda: len(read_topics(library, TYPES, 2)) >= count, "all events", 90)

    assert [(e.name, (e.after or {})["title"], e.data) for e in of(library, "1")[1:]] == [
        ("lent", "one", {"n": 1}),
        ("updated", "new", None),
        ("lent", "new", {"n": 3}),
    ]
    assert [event.name for event in of(library, "2")] == ["snapshot", "lost", "deleted"]
    assert [event.name for event in of(library, "11")] == ["created", "lost"]
    shelf = read_events(library, ("shelf",), 2)
    assert [(event.name, (event.after or {})["label"]) for event in shelf] == [
        ("snapshot", "first"),
        ("moved", "first"),
        ("updated", "second"),
    ]
    assert len(read_events(library, TYPES, 2)) == count
    assert [each["reason"] for each in refusals(library) if each["event"]] == ["there is no book 9"]
    assert len(refusals(library)) == 2
    with library.control() as control:
        assert control.execute("SELECT count(*) FROM rowcast.statement").fetchone() == (0,)
        assert control.execute("SELECT count(*) FROM rowcast.pending").fetchone() == (0,)


@SLOW
def test_where_events_follow_in_chunks_it_waits_for_them(library: TestProject, workers: WorkerPool) -> None:
    """TRUNCATE, and a worker that dies between the chunks."""
    library.apply()
    first = workers.start()
    first.wait_owned()
    wait_until(lambda: len(read_events(library, TYPES, 2)) == 3, "the snapshot", 40)
    first.process.terminate()
    first.wait_ended()
    dying = workers.start("sequencer.after_publish=kill@1")
    dying.wait_owned()
    with library.connection.transaction():
        say(library, "book", 1, "lent", 1)
        library.execute("TRUNCATE book")
        library.execute("INSERT INTO book VALUES (1, 'again', 1, 'a', false)")
        say(library, "book", 1, "lent", 2)
        say(library, "book", 2, "lost", 3)
    assert dying.wait_ended(60) == -9
    workers.start().wait_owned(30)
    wait_until(lambda: len(of(library, "2")) == 3, "all events", 40)

    assert [(e.name, (e.after or {})["title"]) for e in of(library, "1")[1:]] == [
        ("lent", "one"),
        ("updated", "again"),
        ("lent", "again"),
    ]
    assert [event.name for event in of(library, "2")[1:]] == ["lost", "deleted"]
