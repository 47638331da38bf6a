"""What somebody does to captured tables and their publication by ALTER, and which types it halts, if any."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import requests
from stack_fixture import TestProject, wait_until
from worker_fixture import Worker, WorkerPool, histories, rowcast

from rowcast.connect import ConnectClient
from rowcast.sources.connector import connector_name, publication_name, slot_name
from stream_app.slot_watch import SlotWatch, find_fault

TABLES = ("customer", "product", "visit")


@pytest.fixture
def shop(project: TestProject) -> TestProject:
    """A source with three tables, each an aggregate, and a row in each; a visit stands below a customer."""
    project.source_path.write_text(
        f"source: {project.name}\ndatabase: {project.name}\ntopics: {{partitions: 3}}\nrefusals: {{stop_above: 0.1}}\n"
        "aggregates:\n  customer: {table: public.customer, id: id}\n  product: {table: public.product, id: id}\n"
        "  visit: {table: public.visit, id: id, parent: {aggregate: customer, column: customer_id}}\n"
    )
    for name in TABLES:
        project.execute(make(name))
        project.execute(f"INSERT INTO {name} VALUES (1, 'one', '2026-01-02 03:04:05.678+00', 4.5, 'x', 1)")
        above = ("customer",) if name == "visit" else ()
        project.write_contract(name, above, {each: {} for each in ("id", "name", "at", "price")})
    return project


def make(table: str) -> str:
    """The statement that creates a table."""
    columns = "id integer PRIMARY KEY, name varchar(20), at timestamptz, price numeric(6,2), other text"
    return f"CREATE TABLE {table} ({columns}, customer_id integer)"


def hasten(project: TestProject) -> None:
    """Let the next heartbeat be one that tells of the catalogue."""
    project.execute("UPDATE rowcast.heartbeat SET counter = counter + 20 - counter % 20")


def kept(project: TestProject) -> Any:
    """What the worker knows of the catalogue, and the counter of the newest heartbeat."""
    with project.control() as control:
        row = control.execute("SELECT heartbeat FROM rowcast.source WHERE source = %s", (project.name,)).fetchone()
    return json.loads(row[0]) if row and row[0] else {}


def wait_passed(project: TestProject) -> None:
    """Wait until the worker has gone past a heartbeat that tells of the catalogue as it is now."""
    hasten(project)
    (counter,) = project.execute("SELECT counter FROM rowcast.heartbeat").fetchone() or (0,)
    wait_until(lambda: kept(project).get("counter", 0) > counter + 1, "a heartbeat that tells is passed", 60)


def names(project: TestProject, aggregate: str) -> dict[int, str]:
    """The name of each row that lives, as the topic has it."""
    entities = (each[-1].after for each in histories(project, [aggregate], major=2).values())
    return {entity["id"]: entity["name"] for entity in entities if entity is not None}


def wait_stop(project: TestProject, worker: Worker, code: str, told: str) -> None:
    """Wait until the worker has stopped the source with *code*, which status, health and metrics show."""
    hasten(project)
    wait_until(lambda: f"stopped: {code}" in worker.text(), f"the stop with {code}", 60)
    assert worker.get("/health").status_code == 503
    assert f'rowcast_stopped{{code="{code}",source="{project.name}"}} 1.0' in worker.get("/metrics").text
    status = rowcast(project, "sources", "status", project.name)
    assert status.returncode == 1
    assert f"{code}: the worker stopped the source" in status.stdout
    assert told in status.stdout


def resnapshot(project: TestProject) -> None:
    done = rowcast(project, "sources", "resnapshot", project.name, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


class Writes(threading.Thread):
    """Changes of all tables, one after the other, until `finish`; what PostgreSQL refuses is passed over."""

    def __init__(self, project: TestProject) -> None:
        super().__init__(daemon=True)
        self._url = project.settings.database(project.name).url
        self._ending = threading.Event()

    def run(self) -> None:
        """Insert, update and delete, at some fifty transactions a second."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            for number in itertools.count(100):
                for table in TABLES:
                    with suppress(psycopg.Error):
                        insert = f"INSERT INTO {table} (id, at, price, customer_id) VALUES ({number}, now(), 1, 1);"
                        update = f"UPDATE {table} SET price = price + 1 WHERE id = {number - 5};"
                        connection.execute(f"{insert} {update} DELETE FROM {table} WHERE id = {number - 10}")
                if self._ending.wait(0.05):  # paces the load; nothing waits for it
                    return

    def finish(self) -> None:
        """End, and wait for it."""
        self._ending.set()
        self.join(30)


def told(project: TestProject, *arguments: str, code: int = 0) -> str:
    """What a command says; it has to end with *code*."""
    done = rowcast(project, "sources", *arguments)
    assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def problems(project: TestProject) -> set[tuple[str, str]]:
    """What status finds wrong: the codes, with the halted types where they name some."""
    (status,) = json.loads(told(project, "status", project.name, "--json", code=1))["sources"]
    halted = {(each["code"], each["aggregate"]) for each in status["position"]["halted"]}
    assert {code for code, _ in halted} == {each["code"] for each in status["problems"]}, status["problems"]
    return halted


def published_count(project: TestProject, aggregate: str) -> int:
    """How many events of a type there are."""
    return sum(map(len, histories(project, [aggregate], major=2).values()))


def wait_halt(project: TestProject, worker: Worker, *halted: set[tuple[str, str]]) -> None:
    """Wait until exactly these types are halted, by code: one of *halted*; those of the others go on after that."""
    hasten(project)
    query = "SELECT code, aggregate FROM rowcast.halted_type WHERE source = %s"
    with project.control() as control:
        wait_until(lambda: set(control.execute(query, (project.name,))) in halted, f"halted are {halted}", 60)
    types = {name for _, name in halted[0]}
    assert problems(project) in halted
    page, health = worker.get("/metrics").text, worker.get("/health")
    shown = {name for name in TABLES if f'halted{{aggregate="{name}",source="{project.name}"}} 1.0' in page}
    assert shown == types
    assert (health.status_code, health.json()["halted"]) == (200, {project.name: sorted(types)})
    wait_flow(project, types)


def wait_flow(project: TestProject, halted: set[str]) -> None:
    """Wait for events of what is done from now on, of all types but those *halted*, which have none."""
    counts = {name: published_count(project, name) for name in TABLES}
    others = [name for name in TABLES if name not in halted]
    wait_until(lambda: all(published_count(project, name) > counts[name] + 5 for name in others), f"{others} go on")
    assert {name: published_count(project, name) for name in halted} == {name: counts[name] for name in halted}


def recover(project: TestProject, code: str) -> None:
    """What status names, until nothing is wrong any more."""
    assert f"recover {project.name} --code {code} --yes" in told(project, "status", project.name, code=1)
    told(project, "recover", project.name, "--code", code, "--yes")
    wait_until(lambda: rowcast(project, "sources", "status", project.name).returncode == 0, "nothing is wrong", 60)


def disagreements(project: TestProject) -> list[str]:
    """Where the topics, read from their beginning, say something else than the tables."""
    wrong = []
    for table in TABLES:
        parent = "customer_id::text" if table == "visit" else "NULL"
        rows = project.execute(f"SELECT id, name, price::float8, {parent} FROM {table}").fetchall()
        last = [events[-1] for events in histories(project, [table], major=2).values()]
        said = {
            (each.after["id"], each.after["name"], float(each.after["price"]), *each.ancestors.get("customer", [None]))
            for each in last
            if each.after is not None
        }
        wrong += [f"{table}: {each}" for each in said ^ set(rows)]
    return wrong


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_what_alter_does_to_a_captured_table_halts_its_types(shop: TestProject, workers: WorkerPool) -> None:
    """Ordinary changes go on; others halt its types, and the topics agree after the remedy that is told."""
    shop.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_until(lambda: names(shop, "customer") == {1: "one"}, "the snapshot", 60)
    for statement in (
        "ALTER TABLE customer ADD COLUMN more uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE customer DROP COLUMN other",
        "ALTER TABLE customer ALTER name TYPE varchar(40)",
        "ALTER TABLE customer ALTER price TYPE numeric(10,2)",
        "ALTER TABLE customer ALTER id TYPE bigint",
        "ALTER TABLE customer REPLICA IDENTITY FULL",
        "ALTER TABLE customer ALTER name SET NOT NULL",
        "CREATE INDEX ON customer (name)",
        "VACUUM (FULL, ANALYZE) customer",
    ):
        shop.execute(statement)
    shop.execute("INSERT INTO customer VALUES (2, 'two', now(), 2)")
    wait_passed(shop)
    wait_until(lambda: names(shop, "customer") == {1: "one", 2: "two"}, "the change")
    for statement in ("name DROP NOT NULL", "id TYPE integer", "name TYPE varchar(20)", "price TYPE numeric(6,2)"):
        shop.execute(f"ALTER TABLE customer ALTER {statement}")

    writes = Writes(shop)
    writes.start()
    shop.execute("ALTER TABLE customer RENAME name TO title")
    wait_halt(shop, worker, {("COLUMN_CHANGED", "customer"), ("COLUMN_CHANGED", "visit")})
    shop.execute("DELETE FROM customer WHERE id = 2; INSERT INTO visit VALUES (3, 'three', now(), 3, '', 1)")
    refused = told(shop, "resync", shop.name, "--aggregate", "customer", code=2)
    assert "column 'name' is gone" in refused
    assert "--aggregate customer" in told(shop, "resync", shop.name, "--aggregate", "visit", code=2)
    assert "a resume does not bring it back" in told(shop, "resume", shop.name, code=1)
    worker.kill()
    worker = workers.start()
    wait_flow(shop, {"customer", "visit"})
    shop.execute("ALTER TABLE customer RENAME title TO name")
    recover(shop, "COLUMN_CHANGED")

    shop.execute("ALTER TABLE product ADD COLUMN code uuid NOT NULL DEFAULT gen_random_uuid()")
    shop.execute("CREATE UNIQUE INDEX code ON product (code); ALTER TABLE product REPLICA IDENTITY USING INDEX code")
    # Deletions come without id: the first of them tells, or the heartbeat.
    wait_halt(shop, worker, {("ROW_WITHOUT_ID", "product")}, {("REPLICA_IDENTITY_WEAK", "product")})
    assert "its replica identity is an index" in told(shop, "resync", shop.name, code=2)
    shop.execute("ALTER TABLE product REPLICA IDENTITY DEFAULT")
    told(shop, "resync", shop.name, "--aggregate", "product")

    shop.execute(f"ALTER PUBLICATION {publication_name(shop.name)} DROP TABLE product; DROP TABLE visit")
    wait_halt(shop, worker, {("PUBLICATION_INCOMPLETE", "product"), ("TABLE_MISSING", "visit")})
    shop.execute(f"{make('visit')}; INSERT INTO visit VALUES (4, 'four', now(), 4, '', 1)")
    told(shop, "apply", shop.name)
    told(shop, "resync", shop.name)
    wait_passed(shop)
    writes.finish()
    wait_until(lambda: not disagreements(shop), "the topics agree with the tables")

    shop.execute("ALTER TABLE product REPLICA IDENTITY NOTHING; ALTER TABLE customer ALTER price TYPE text")
    wait_stop(shop, worker, "COLUMN_CHANGED", "public.customer: column 'price' is of type text")
    shop.execute("ALTER TABLE customer ALTER price TYPE numeric(6,2) USING price::numeric")
    shop.execute("ALTER TABLE product REPLICA IDENTITY DEFAULT; INSERT INTO product VALUES (5, 'five', now(), 5)")
    resnapshot(shop)
    wait_until(lambda: not disagreements(shop), "the topics agree with the tables", 60)
    told(shop, "status", shop.name)


def stop_connector(project: TestProject) -> None:
    with ConnectClient(project.stack.connect_url) as connect:
        connect.stop(connector_name(project.name))
        connect.wait_stopped(connector_name(project.name), 30)


def resume_connector(project: TestProject) -> None:
    url = f"{project.stack.connect_url}/connectors/{connector_name(project.name)}/resume"
    requests.put(url, timeout=30).raise_for_status()


def invalidate_slot(project: TestProject) -> bool:
    """Whether the server has given the slot up, which nobody reads, because it keeps too much WAL."""
    for statement in ("SELECT pg_logical_emit_message(false, '', '')", "SELECT pg_switch_wal()", "CHECKPOINT"):
        project.execute(statement)
    status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s"
    return project.execute(status, slot_name(project.name)).fetchone() == ("lost",)


def drop_slot(project: TestProject) -> bool:
    """Whether the slot could be dropped, which is in use until the server has noticed that nobody reads it."""
    name = slot_name(project.name)
    project.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", name)
    try:
        project.execute("SELECT pg_drop_replication_slot(%s)", name)
    except psycopg.errors.ObjectInUse:
        return False
    return True


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("anew", [False, pytest.param(True, marks=pytest.mark.matrix)])
def test_a_slot_that_is_dropped_stops_the_source(shop: TestProject, workers: WorkerPool, anew: bool) -> None:
    """Also when it is made anew; the snapshot finds what was written in between."""
    shop.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_until(lambda: kept(shop).get("counter", 0) > 1, "heartbeats", 60)
    if anew:
        stop_connector(shop)
    wait_until(lambda: drop_slot(shop), "the slot is dropped")
    shop.execute("INSERT INTO customer VALUES (2, 'two', now(), 2)")
    if anew:
        shop.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot_name(shop.name))
        resume_connector(shop)
    wait_stop(shop, worker, "SLOT_LOST", f"replication slot {slot_name(shop.name)} was dropped, or made anew")
    resnapshot(shop)
    wait_until(lambda: names(shop, "customer") == {1: "one", 2: "two"}, "the snapshot", 60)


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_slot_that_the_server_made_invalid_stops_the_source(shop: TestProject, workers: WorkerPool) -> None:
    """Connect was away for longer than the server keeps WAL; what the connector says of itself does not tell."""
    shop.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_until(lambda: kept(shop).get("counter", 0) > 1, "heartbeats", 60)
    stop_connector(shop)
    try:
        shop.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        shop.execute("SELECT pg_reload_conf()")
        shop.execute("INSERT INTO customer VALUES (2, 'two', now(), 2)")
        wait_until(lambda: invalidate_slot(shop), "an invalid slot")
    finally:
        shop.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        shop.execute("SELECT pg_reload_conf()")
    resume_connector(shop)
    wait_stop(shop, worker, "SLOT_LOST", f"replication slot {slot_name(shop.name)} is invalid")
    recovered = rowcast(shop, "sources", "recover", shop.name, "--code", "SLOT_LOST", "--yes")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    wait_until(lambda: names(shop, "customer") == {1: "one", 2: "two"}, "the snapshot", 60)
    shop.execute("INSERT INTO customer VALUES (3, 'three', now(), 3)")
    wait_until(lambda: names(shop, "customer") == {1: "one", 2: "two", 3: "three"}, "the stream", 60)

    stop_connector(shop)
    shop.execute(f"DROP PUBLICATION {publication_name(shop.name)}")
    watch = SlotWatch(shop.settings)
    fault = wait_until(lambda: watch.fault(shop.name, 15.0), "the second look")
    assert fault.code == "PUBLICATION_MISSING"
    assert find_fault(shop.name, replace(shop.settings, stack_postgres=None, databases={})) is None
