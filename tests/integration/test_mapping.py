"""Every part of a declared mapping on the real stack: what is published is what one SELECT would give."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from stack_fixture import TestProject, wait_until
from type_trial import try_types
from worker_fixture import WorkerPool, histories, rowcast

from rowcast.event import EventKind
from stream_app.case import main as case_main
from stream_app.preview import main as preview_main

SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
refusals: {{stop_above: 1}}
references:
  status: {{table: public.product_status, key: id, value: name}}
aggregates:
  product:
    table: public.product
    id: id
    where: {{state: [on sale, sold], /attributes/hidden: {{not: true}}}}
    soft_delete: deleted_at
    fields:
      title: name
      price: {{column: price, cast: number}}
      changed: {{column: changed, cast: utc}}
      kind: {{constant: product}}
      colour: {{column: /attributes/colour, default: grey}}
      status: {{column: status_id, reference: status, default: none}}
      label: {{function: label, inputs: {{name: name, tags: /attributes/tags}}}}
"""
FUNCTIONS = '''
def label(name, tags):
    """Fails for what no product should be called."""
    if name == "bad":
        raise ValueError(name)
    return ", ".join([name, *sorted(tags or [])])
'''
TEXT = {"type": "string"}
PROPERTIES = {
    "id": {"type": "integer"},
    **dict.fromkeys(("title", "kind", "colour", "status", "label"), TEXT),
    "price": {"type": ["number", "null"]},
    "changed": {"type": "string", "format": "date-time"},
}
SCHEMA = """
CREATE TABLE product_status (id smallint PRIMARY KEY, name text, note text);
CREATE TABLE product (
    id integer PRIMARY KEY, name text NOT NULL, price numeric(10,2), status_id integer, state text NOT NULL,
    deleted_at timestamptz, changed timestamp NOT NULL DEFAULT '2026-03-02 09:15:00.5', attributes jsonb, secret text
);
INSERT INTO product_status SELECT g, 'status ' || g FROM generate_series(1, 5) g;
INSERT INTO product (id, name, price, status_id, state, attributes)
SELECT g, 'name ' || g, g * 1.25, g % 7, CASE WHEN g % 3 = 0 THEN 'draft' ELSE 'on sale' END,
       jsonb_build_object('colour', CASE WHEN g % 2 = 0 THEN 'red' END, 'tags', '["b", "a"]'::jsonb)
FROM generate_series(1, 60) g;
"""
EXPECTED = """
SELECT p.id, jsonb_build_object('id', p.id, 'title', p.name, 'kind', 'product', 'price', p.price,
       'colour', coalesce(p.attributes ->> 'colour', 'grey'), 'status', coalesce(s.name, 'none'),
       'changed', to_char(p.changed, 'YYYY-MM-DD"T"HH24:MI:SS') || '.5Z',
       'label', concat_ws(', ', p.name, (SELECT string_agg(t, ', ' ORDER BY t)
                                         FROM jsonb_array_elements_text(p.attributes -> 'tags') t)))
FROM product p LEFT JOIN product_status s ON s.id = p.status_id
WHERE p.state IN ('on sale', 'sold') AND p.deleted_at IS NULL
  AND (p.attributes -> 'hidden') IS DISTINCT FROM 'true'::jsonb AND p.name <> 'bad'
"""


@pytest.fixture
def products(project: TestProject) -> TestProject:
    """A project with one declared aggregate, its reference table, and rows."""
    project.source_path.write_text(SOURCE.format(name=project.name))
    project.source_path.with_suffix(".py").write_text(FUNCTIONS)
    project.write_contract("product", (), PROPERTIES)
    project.execute(SCHEMA)
    return project


def published(project: TestProject) -> dict[str, Any]:
    last = [events[-1] for events in histories(project, ("product",), major=2).values()]
    return {event.identity.id_text: event.after for event in last if event.after is not None}


def wait_published(project: TestProject) -> None:
    """Wait until the topic says what the SELECT says; the source has to be quiet."""
    wanted = {str(id_): json.loads(json.dumps(entity)) for id_, entity in project.execute(EXPECTED)}
    for entity in wanted.values():
        entity["price"] = None if entity["price"] is None else float(entity["price"])
    try:
        wait_until(lambda: published(project) == wanted, "the topic agrees with the query", 60)
    except pytest.fail.Exception as error:
        found = published(project)
        names = [id_ for id_ in wanted.keys() | found.keys() if wanted.get(id_) != found.get(id_)]
        pytest.fail(f"{error}: {[(wanted.get(id_), found.get(id_)) for id_ in names[:2]]}")


def change_randomly(project: TestProject, seed: int, transactions: int) -> None:
    rng = random.Random(seed)
    for _ in range(transactions):
        with project.connection.transaction():
            for _ in range(rng.randint(1, 3)):
                _change(project, rng)


def _change(project: TestProject, rng: random.Random) -> None:
    id_ = rng.randrange(1, 70)
    statement, *parameters = rng.choice(
        [
            ("UPDATE product SET state = %s WHERE id = %s", rng.choice(["on sale", "sold", "draft"]), id_),
            ("UPDATE product SET deleted_at = %s WHERE id = %s", rng.choice(["2026-01-01", None, None]), id_),
            ("UPDATE product SET status_id = %s, secret = 'x' WHERE id = %s", rng.choice([1, 2, 6, None]), id_),
            ("UPDATE product SET attributes = %s WHERE id = %s", Jsonb(_attributes(rng)), id_),
            ("UPDATE product SET price = %s WHERE id = %s", rng.choice([None, "9.75", "0.10"]), id_),
            ("DELETE FROM product WHERE id = %s", id_),
            ("UPDATE product SET id = id + 100 WHERE id = %s AND id < 100", id_),
            ("INSERT INTO product (id, name, state) VALUES (%s, 'new', 'sold') ON CONFLICT DO NOTHING", id_),
            ("UPDATE product_status SET name = %s WHERE id = %s", f"renamed {rng.random()}", rng.randrange(1, 6)),
            ("UPDATE product_status SET note = %s WHERE id = %s", f"note {rng.random()}", rng.randrange(1, 6)),
            ("INSERT INTO product_status VALUES (6, 'six') ON CONFLICT DO NOTHING",),
            ("DELETE FROM product_status WHERE id = 6",),
        ]
    )
    project.execute(statement, *parameters)


def _attributes(rng: random.Random) -> dict[str, Any]:
    return {
        "colour": rng.choice(["blue", None]),
        "hidden": rng.choice([True, False, None]),
        "tags": rng.choice([[], ["z"]]),
    }


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_published_is_what_the_mapping_says_through_every_change(
    products: TestProject, workers: WorkerPool, killed: bool
) -> None:
    """Snapshot, stream, killed workers, reference rows that come, change and go: equal to the query's answer."""
    products.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_published(products)
    change_randomly(products, 1, 80)
    if killed:
        worker.kill()
        change_randomly(products, 2, 40)
        second = workers.start(failpoints="sequencer.after_publish=kill@2")
        assert second.wait_ended(60) == -9
        workers.start().wait_owned(40)
    change_randomly(products, 3, 40)
    wait_published(products)

    products.execute(
        "UPDATE product SET name = 'bad', state = 'sold', deleted_at = NULL, attributes = NULL WHERE id = 1"
    )
    products.execute("INSERT INTO product (id, name, state) VALUES (1, 'bad', 'sold') ON CONFLICT DO NOTHING")
    products.execute("INSERT INTO product (id, name, state) VALUES (1000, 'bad', 'sold')")

    def reasons() -> dict[str, str]:
        listed = json.loads(rowcast(products, "refused", "list", "--json").stdout)
        return {each["id"]: each["reason"] for each in listed}

    wait_until(lambda: "1000" in reasons(), "the refusal")
    assert reasons()["1000"] == "function 'label' raised ValueError in line 5"
    products.execute("UPDATE product SET state = 'draft' WHERE name = 'bad'")
    wait_until(lambda: not reasons(), "nothing refused that does not count")
    products.execute("TRUNCATE product_status")
    wait_published(products)


def test_a_row_that_ceases_to_count_and_comes_back_goes_on_with_its_versions(
    products: TestProject, workers: WorkerPool
) -> None:
    """Filter and soft delete give deleted and created, and renaming a status one updated for each that has it."""
    products.apply()
    workers.start().wait_owned()
    wait_published(products)
    for statement in (
        "UPDATE product SET deleted_at = now() WHERE id = 1",
        "UPDATE product SET deleted_at = NULL WHERE id = 1",
        "UPDATE product SET state = 'draft' WHERE id = 1",
        "UPDATE product SET price = 3 WHERE id = 1",
        "UPDATE product SET state = 'sold' WHERE id = 1",
        "UPDATE product_status SET name = 'first' WHERE id = 1",
        "UPDATE product_status SET note = 'not published' WHERE id = 1",
    ):
        products.execute(statement)
    wait_published(products)
    events = {name.rpartition("/")[2]: each for name, each in histories(products, ("product",), major=2).items()}
    kinds = [event.kind for event in events["1"]]
    created, deleted, updated = EventKind.CREATED, EventKind.DELETED, EventKind.UPDATED
    assert kinds == [EventKind.SNAPSHOT, deleted, created, deleted, created, updated]
    assert events["1"][-1].before == {"status": "status 1"}
    assert [event.kind for event in events["8"]] == [EventKind.SNAPSHOT, updated]
    assert [event.kind for event in events["2"]] == [EventKind.SNAPSHOT]


@pytest.mark.slow
@pytest.mark.parametrize("filtered", [True, pytest.param(False, marks=pytest.mark.matrix)])
def test_a_transaction_too_large_for_memory_that_changes_a_reference_gives_one_event_each(
    products: TestProject, workers: WorkerPool, filtered: bool
) -> None:
    """Everything is made with the reference rows as they are at its end, whichever way the type goes."""
    lines = [line for line in SOURCE.splitlines() if filtered or ("where" not in line and "soft" not in line)]
    products.source_path.write_text("\n".join(lines).format(name=products.name))
    products.apply()
    workers.start().wait_owned()
    with products.connection.transaction():
        products.execute("UPDATE product_status SET name = 'midway' WHERE id = 1")
        products.execute(
            "INSERT INTO product (id, name, state, status_id)"
            " SELECT 1000 + g, 'many', 'sold', 1 + g % 5 FROM generate_series(1, 25000) g"
        )
        products.execute("UPDATE product_status SET name = 'at the end' WHERE id = 1")
        products.execute("DELETE FROM product_status WHERE id = 5")
    wait_until(lambda: len(published(products)) >= 25_040, "the events", 120)
    wanted = {"at the end", "none", "status 2", "status 3", "status 4"}

    def found() -> set[str]:
        return {entity["status"] for id_, entity in published(products).items() if int(id_) > 1000}

    wait_until(lambda: found() == wanted, "the names as they are at the end", 60)
    made = [events for events in histories(products, ("product",), major=2).values() if "many" in str(events[-1].after)]
    assert (len(made), {len(events) for events in made}) == (25_000, {1})


def preview(project: TestProject, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """What `rowcast sources preview` answers, without a process of its own."""
    code = preview_main([f"--project={project.folder}", *arguments, project.name])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def test_preview_shows_what_will_be_published_and_saves_it_as_a_case(
    products: TestProject, workers: WorkerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is applied: the very entities that come out later; refused ones and those that do not count."""
    answer = rowcast(products, "sources", "preview", products.name, "--last", "100", "--json")
    assert answer.returncode == 0, answer.stderr
    previewed = json.loads(answer.stdout)
    assert (len(previewed["events"]), previewed["left_out"]) == (40, 20)
    assert {event["kind"] for event in previewed["events"]} == {"snapshot"}

    case = products.folder / "connectors" / f"{products.name}.cases" / "one.json"
    one = ("--table=public.product", "--id=1")
    assert "product 1: snapshot" in preview(products, capsys, *one)[1]
    assert preview(products, capsys, *one, f"--save={case}")[0] == 0
    passed = rowcast(products, "sources", "test")
    assert (passed.returncode, passed.stdout) == (0, f"passed  {products.name}  one\n1 cases, 0 failed\n")
    products.source_path.write_text(products.source_path.read_text().replace("constant: product", "constant: goods"))
    assert case_main([f"--project={products.folder}"]) == 1
    assert '+    "kind": "goods",' in capsys.readouterr().out
    products.source_path.write_text(SOURCE.format(name=products.name))

    products.execute("UPDATE product SET name = 'bad' WHERE id = 2")
    code, text = preview(products, capsys, "--table=product", "--id=2")
    assert (code, "product 2: refused: function 'label' raised ValueError in line 5" in text) == (1, True)
    assert preview(products, capsys, "--table=nothing")[0] == 2
    products.execute("UPDATE product SET name = 'name 2' WHERE id = 2")

    products.apply()
    workers.start().wait_owned()
    wait_published(products)
    assert published(products) == {event["id"]: event["after"] for event in previewed["events"]}


def test_every_type_has_its_documented_form_in_snapshot_stream_and_preview(
    project: TestProject, workers: WorkerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What SELECT shows is what an event has, in the form of docs/reference/types.md; the rest is refused by name."""
    trial = try_types(project, workers, extensions=False)
    code, text = preview(project, capsys, "--json", "--last=200")
    previewed = {event["after"]["id"]: event["after"] for event in json.loads(text)["events"]}
    assert code == 1, "some values are refused"
    assert previewed.keys() == trial.published().keys(), "and so they are in the preview"
    trial.check(previewed, 1)
