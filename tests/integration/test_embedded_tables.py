"""Aggregates of several tables on the real stack: an order with lines, their options, and an address."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import pytest
from stack_fixture import TestProject, wait_until
from worker_fixture import COMMAND, WorkerPool, histories, rowcast, unpublished

from rowcast.errors import ConfigurationError
from rowcast.identity import join_id_parts

SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
references:
  currency: {{table: public.currency, key: id, value: name}}
aggregates:
  shop: {{table: public.shop, id: id}}
  purchase:
    table: public.purchase
    id: id
    parent: {{aggregate: shop, column: shop_id}}
    embedded:
      lines:
        table: public.line
        column: purchase_id
        order: [price]
        soft_delete: cancelled
        fields: {{currency: {{column: currency_id, reference: currency}}}}
        embedded:
          options: {{table: public.option, column: [purchase_id, number]}}
      address: {{table: public.address, column: purchase_id, one: true}}
"""
TABLES = """
CREATE TABLE currency (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE shop (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE purchase (id text PRIMARY KEY, shop_id integer REFERENCES shop, customer text NOT NULL);
CREATE TABLE line (purchase_id text REFERENCES purchase ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE,
    number integer, sku text NOT NULL, price numeric(8, 2), currency_id integer NOT NULL REFERENCES currency,
    cancelled boolean, PRIMARY KEY (purchase_id, number));
ALTER TABLE line ALTER COLUMN sku SET STORAGE EXTERNAL;
CREATE TABLE option (id bigint PRIMARY KEY, purchase_id text, number integer, name text NOT NULL,
    FOREIGN KEY (purchase_id, number) REFERENCES line ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE);
CREATE TABLE address (id integer PRIMARY KEY, city text NOT NULL,
    purchase_id text UNIQUE REFERENCES purchase ON UPDATE CASCADE ON DELETE SET NULL);
INSERT INTO currency SELECT g, 'C' || g FROM generate_series(1, 3) g;
INSERT INTO shop SELECT g, 'S' || g FROM generate_series(1, 3) g;
"""
TRUTH = """
SELECT id, jsonb_build_object('id', id, 'customer', customer,
  'address', (SELECT jsonb_build_object('city', city) FROM address a WHERE a.purchase_id = p.id),
  'lines', coalesce((SELECT jsonb_agg(jsonb_build_object('number', number, 'sku', sku, 'price', price::text,
    'currency', (SELECT name FROM currency c WHERE c.id = l.currency_id),
    'options', coalesce((SELECT jsonb_agg(jsonb_build_object('id', id, 'name', name) ORDER BY id) FROM option o
                         WHERE (o.purchase_id, o.number) = (l.purchase_id, l.number)), '[]')) ORDER BY price, number)
    FROM line l WHERE l.purchase_id = p.id AND cancelled IS NOT TRUE), '[]'))
FROM purchase p
"""
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
# What the texts of ids can be made of.
HOSTILE = ("a,b", "ü/%", "1")


def rows_of(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object; its fields are described and classified."""
    described = {name: {**each, "description": "-", "x-pii": "none"} for name, each in properties.items()}
    return {"type": "object", "required": list(described), "properties": described}


def listed(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a list of objects."""
    return {"type": "array", "items": rows}


@pytest.fixture
def purchases(project: TestProject) -> TestProject:
    """A project with the declared aggregates and empty tables."""
    project.execute(TABLES)
    project.source_path.write_text(SOURCE.format(name=project.name))
    price = {"type": ["string", "null"]}
    options = listed(rows_of(id=NUMBER, name=TEXT))
    lines = listed(rows_of(number=NUMBER, sku=TEXT, price=price, currency=TEXT, options=options))
    address = {**rows_of(city=TEXT), "type": ["object", "null"]}
    project.write_contract("shop", (), {"id": NUMBER, "name": TEXT})
    project.write_contract("purchase", ("shop",), {"id": TEXT, "customer": TEXT, "lines": lines, "address": address})
    return project


def published(project: TestProject) -> dict[str, Any]:
    """The last state of each purchase that is not deleted; versions have to be dense."""
    last = [events[-1] for events in histories(project, ("purchase",), major=2).values()]
    return {each.identity.id_text: dict(each.after) for each in last if each.after is not None}


def wait_published(project: TestProject) -> None:
    """Wait until the topics say what SELECT says; the source has to be quiet."""
    truth = {join_id_parts([id_]): entity for id_, entity in project.execute(TRUTH)}
    try:
        wait_until(lambda: published(project) == truth, "topics agree with SELECT", 60)
    except pytest.fail.Exception as error:
        found = published(project)
        wrong = [(key, truth.get(key), found.get(key)) for key in truth.keys() | found.keys()]
        wrong = [each for each in wrong if each[1] != each[2]]
        pytest.fail(f"{error}: {len(wrong)} differ: {wrong[:2]} {rowcast(project, 'refused', 'list').stdout}")


def change(project: TestProject, rng: random.Random) -> None:
    """One committed transaction that touches some tables of some purchases."""
    with project.connection.transaction():
        project.execute("SET CONSTRAINTS ALL DEFERRED")
        for _ in range(rng.randint(1, 4)):
            _change(project, rng)


def _change(project: TestProject, rng: random.Random) -> None:
    id_, number = rng.choice(HOSTILE) + str(rng.randrange(4)), rng.randrange(1, 4)
    chance = rng.random()
    if chance < 0.2:
        # The rows of the purchase may be written before it, or be there already.
        price = rng.choice([None, "1.50", "20"])
        project.execute(
            "INSERT INTO line VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            *(id_, number, rng.choice("xy") * 3_000, price, rng.randrange(1, 4)),
        )
        project.execute(
            "INSERT INTO option VALUES (%s, %s, %s, 'o') ON CONFLICT DO NOTHING", rng.randrange(20), id_, number
        )
        project.execute("INSERT INTO purchase VALUES (%s, %s, 'c') ON CONFLICT DO NOTHING", id_, rng.randrange(1, 4))
    elif chance < 0.35:
        # The long text is not touched, so it is not in the WAL.
        project.execute("UPDATE line SET price = coalesce(price, 0) + 1 WHERE purchase_id = %s", id_)
    elif chance < 0.45:
        project.execute("UPDATE line SET cancelled = NOT coalesce(cancelled, false) WHERE number = %s", number)
    elif chance < 0.55:
        project.execute("UPDATE option SET name = name || 'p' WHERE number = %s", number)
    elif chance < 0.65:
        # The key of a line is that of its purchase: its options follow.
        other = f"moved{rng.randrange(100)}"
        project.execute("INSERT INTO purchase VALUES (%s, NULL, 'm') ON CONFLICT DO NOTHING", other)
        moved = "UPDATE line SET purchase_id = %s WHERE purchase_id = %s AND number = %s AND NOT EXISTS"
        project.execute(
            f"{moved} (SELECT FROM line WHERE purchase_id = %s AND number = %s)",
            *(other, id_),
            number,
            *(other, number),
        )
    elif chance < 0.75:
        renamed = "UPDATE purchase SET id = id || '~' WHERE id = %s AND NOT EXISTS (SELECT FROM purchase WHERE id = %s)"
        project.execute(renamed, id_, id_ + "~")
    elif chance < 0.85:
        project.execute("DELETE FROM purchase WHERE id = %s", id_)
    else:
        project.execute(
            "INSERT INTO address VALUES (%s, 'N', (SELECT id FROM purchase WHERE id = %s)) ON CONFLICT DO NOTHING",
            *(rng.randrange(20), id_),
        )


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_rows_of_several_tables_make_one_event_of_their_aggregate(purchases: TestProject, workers: WorkerPool) -> None:
    """Snapshot and stream agree with SELECT, whatever is written in which order; a killed worker changes nothing."""
    rng = random.Random(3)
    for _ in range(30):
        change(purchases, rng)
    purchases.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_published(purchases)
    for _ in range(60):
        change(purchases, rng)
    worker.kill()
    for _ in range(20):
        change(purchases, rng)
    workers.start().wait_owned(40)
    wait_published(purchases)

    (id_,) = purchases.execute("SELECT id FROM purchase WHERE id IN (SELECT purchase_id FROM line) LIMIT 1").fetchone()
    text = join_id_parts([id_])
    before = len(histories(purchases, ("purchase",), major=2)[f"{purchases.name}/purchase/{text}"])
    with purchases.connection.transaction():
        purchases.execute("UPDATE purchase SET customer = 'one' WHERE id = %s", id_)
        purchases.execute("UPDATE line SET sku = 'two', cancelled = false WHERE purchase_id = %s", id_)
        purchases.execute(
            "INSERT INTO option SELECT 99, purchase_id, number, 'three' FROM line WHERE purchase_id = %s LIMIT 1", id_
        )
    wait_published(purchases)
    assert len(histories(purchases, ("purchase",), major=2)[f"{purchases.name}/purchase/{text}"]) == before + 1
    shown = json.loads(
        rowcast(purchases, "sources", "preview", purchases.name, "--table", "purchase", "--id", text, "--json").stdout
    )
    assert [each["after"] for each in shown["events"]] == [published(purchases)[text]]


@pytest.mark.slow
def test_embedded_rows_in_large_transactions_references_and_truncate(
    purchases: TestProject, workers: WorkerPool
) -> None:
    """What does not fit into memory, what concerns every aggregate, and rows that go without saying which."""
    purchases.apply()
    workers.start().wait_owned()
    with purchases.connection.transaction():
        purchases.execute("SET CONSTRAINTS ALL DEFERRED")
        purchases.execute(
            "INSERT INTO line SELECT 'p' || g / 10, g % 10, 'sku', g % 7, 1 + g % 3 FROM generate_series(1, 9000) g"
        )
        purchases.execute("INSERT INTO option SELECT g, 'p' || g / 10, g % 10, 'o' FROM generate_series(1, 9000, 3) g")
        purchases.execute("INSERT INTO purchase SELECT 'p' || g, 1 + g % 3, 'c' FROM generate_series(0, 900) g")
        purchases.execute("UPDATE line SET price = price + 1")
        purchases.execute("DELETE FROM purchase WHERE id LIKE 'p1%%'")
    wait_published(purchases)
    with purchases.connection.transaction():
        # Each line goes to the next purchase, and takes its options along.
        purchases.execute(
            "UPDATE line SET number = number + 10, purchase_id = 'p2' WHERE purchase_id LIKE 'p20%%'"
            " AND (number + 10) <> 999 AND purchase_id = 'p200'"
        )
        purchases.execute("UPDATE option SET name = 'big'")
        purchases.execute("UPDATE line SET sku = sku || 'x'")
        purchases.execute("UPDATE line SET sku = sku || 'y'")
    wait_published(purchases)
    purchases.execute("UPDATE currency SET name = 'EUR' WHERE id = 2")
    wait_published(purchases)
    with purchases.connection.transaction():
        purchases.execute("TRUNCATE line CASCADE")
        purchases.execute("INSERT INTO line VALUES ('p5', 1, 'again', NULL, 2)")
    wait_published(purchases)
    assert sum(len(each["lines"]) for each in published(purchases).values()) == 1


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_resync_finds_rows_of_all_tables_that_changed_unseen(purchases: TestProject, workers: WorkerPool) -> None:
    """The whole source, or each purchase by its id: rows that moved to another purchase, rows that went, references."""
    rng = random.Random(5)
    for _ in range(30):
        change(purchases, rng)
    purchases.apply()
    workers.start().wait_owned()
    wait_published(purchases)
    for named in (False, True, True):
        with unpublished(purchases, ("purchase", "line", "option", "address", "currency")):
            for _ in range(25):
                change(purchases, rng)
            if not named:
                purchases.execute("UPDATE currency SET name = name || '!' WHERE id = 2")
        known = {
            *published(purchases),
            *(join_id_parts([id_]) for (id_,) in purchases.execute("SELECT id FROM purchase")),
        }
        asked = ["--aggregate", "purchase", *(f"--id={each}" for each in known)] if named else []
        done = rowcast(purchases, "sources", "resync", purchases.name, *asked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stdout.endswith(" 0 rows differed, 0 were gone\n")
        wait_published(purchases)
        change(purchases, rng)
        wait_published(purchases)


@pytest.mark.matrix
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("seed", range(3))
def test_a_resync_while_rows_of_all_tables_change(purchases: TestProject, workers: WorkerPool, seed: int) -> None:
    """Moves, deletions, TRUNCATE and a transaction that is too large for memory, of which the log tells meanwhile."""
    rng = random.Random(seed)
    for _ in range(30):
        change(purchases, rng)
    purchases.apply()
    workers.start().wait_owned()
    wait_published(purchases)
    command = [*COMMAND, "--project", str(purchases.folder), "sources", "resync", purchases.name]
    for special in (
        "INSERT INTO purchase VALUES ('late', 1, 'c') ON CONFLICT DO NOTHING",
        "TRUNCATE line CASCADE",
        "INSERT INTO option SELECT g, NULL, NULL, 'o' FROM generate_series(1000, 22000) g",
        "DELETE FROM option WHERE id > 1000",
    ):
        with unpublished(purchases, ("purchase", "line", "option", "address")):
            for _ in range(25):
                change(purchases, rng)
        done = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        place = rng.randrange(100)
        for number in range(10_000):
            change(purchases, rng)
            time.sleep(0.02)  # so that the worker keeps up
            if number == place:
                purchases.execute(special)
            if number > place and done.poll() is not None:
                break
        assert done.wait(60) in {0, 1}  # refused until what follows is known
        wait_published(purchases)


def test_embedded_tables_that_do_not_fit_are_refused_before_anything_is_touched(purchases: TestProject) -> None:
    """Each mistake is told with the dotted field, or the place in the contract, and what would be accepted."""
    text = purchases.source_path.read_text()
    for wrong, words in (
        (text.replace("column: purchase_id\n        order", "column: shop\n        order"), "has no column 'shop'"),
        (text.replace("order: [price]", "order: [cost]"), "embedded.lines.order: public.line has no column 'cost'"),
        (
            text.replace("column: [purchase_id, number]", "column: purchase_id"),
            "the key of public.line has 2 columns, not 1",
        ),
        (text.replace("public.option", "public.choice"), "public.choice: does not exist"),
        (text.replace("      address:", "      addresses:"), "has no property 'addresses'"),
        (text.replace(", one: true", ""), "property 'address' of .* is no list of objects"),
        (
            text.replace("column: currency_id", "column: cost_id"),
            "embedded.lines.fields.currency: .*has no column 'cost_id'",
        ),
        (
            text.replace("soft_delete: cancelled", "soft_delete: gone"),
            "embedded.lines.soft_delete: public.line has no column",
        ),
        (text.replace("public.option", "public.shop"), "public.shop belongs to aggregate 'shop'"),
    ):
        assert wrong != text
        purchases.source_path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=words):
            purchases.plan()
