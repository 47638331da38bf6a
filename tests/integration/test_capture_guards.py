"""What somebody does to captured tables and their publication by ALTER: the source stops, or nothing comes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import requests
from stack_fixture import TestProject, wait_until
from worker_fixture import Worker, WorkerPool, histories, rowcast

from rowcast.connect import ConnectClient
from rowcast.sources.connector import connector_name, publication_name, slot_name
from stream_app.slot_watch import SlotWatch


@pytest.fixture
def shop(project: TestProject) -> TestProject:
    """A source with two tables, each an aggregate, and a row in each."""
    project.source_path.write_text(
        f"source: {project.name}\ndatabase: {project.name}\ntopics: {{partitions: 3}}\nrefusals: {{stop_above: 1}}\n"
        "aggregates:\n  customer: {table: public.customer, id: id}\n  product: {table: public.product, id: id}\n"
    )
    for name in ("customer", "product"):
        columns = "id integer PRIMARY KEY, name varchar(20), at timestamptz, price numeric(6,2)"
        project.execute(f"CREATE TABLE {name} ({columns}, other text)")
        project.execute(f"INSERT INTO {name} VALUES (1, 'one', '2026-01-02 03:04:05.678+00', 4.5, 'x')")
        project.write_contract(name, (), {each: {} for each in ("id", "name", "at", "price")})
    return project


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


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_what_alter_does_to_captured_tables_stops_the_source(shop: TestProject, workers: WorkerPool) -> None:
    """Ordinary changes go on; others stop it with their code, and it agrees after the remedy that is told."""
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

    shop.execute("ALTER TABLE customer REPLICA IDENTITY NOTHING")
    wait_stop(shop, worker, "REPLICA_IDENTITY_WEAK", "public.customer: its replica identity is NOTHING")
    shop.execute("ALTER TABLE customer REPLICA IDENTITY DEFAULT")
    assert rowcast(shop, "sources", "resume", shop.name).returncode == 0
    wait_passed(shop)

    shop.execute("ALTER TABLE customer RENAME name TO title")
    shop.execute("INSERT INTO customer VALUES (3, 'three', now(), 3)")
    wait_stop(shop, worker, "COLUMN_CHANGED", "public.customer: column 'name' is gone")
    assert names(shop, "customer") == {1: "one", 2: "two"}, "nothing is published without the column"
    shop.execute("ALTER TABLE customer RENAME title TO name")
    resnapshot(shop)
    wait_until(lambda: names(shop, "customer") == {1: "one", 2: "two", 3: "three"}, "the snapshot", 60)

    shop.execute(f"ALTER PUBLICATION {publication_name(shop.name)} DROP TABLE product")
    shop.execute("INSERT INTO product VALUES (2, 'two', now(), 2)")
    wait_stop(shop, worker, "PUBLICATION_INCOMPLETE", "the publication lacks public.product")
    resnapshot(shop)
    wait_until(lambda: names(shop, "product") == {1: "one", 2: "two"}, "the snapshot", 60)


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
    with ConnectClient(shop.stack.connect_url) as connect:
        if anew:
            connect.stop(connector_name(shop.name))
            connect.wait_stopped(connector_name(shop.name), 30)
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
    with ConnectClient(shop.stack.connect_url) as connect:
        connect.stop(connector_name(shop.name))
        connect.wait_stopped(connector_name(shop.name), 30)
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

    with ConnectClient(shop.stack.connect_url) as connect:
        connect.stop(connector_name(shop.name))
        connect.wait_stopped(connector_name(shop.name), 30)
    shop.execute(f"DROP PUBLICATION {publication_name(shop.name)}")
    watch = SlotWatch(shop.settings)
    fault = wait_until(lambda: watch.fault(shop.name, 15.0), "the second look")
    assert fault.code == "PUBLICATION_MISSING"
    assert watch.fault(shop.name, 14.0) is None
    assert SlotWatch(replace(shop.settings, stack_postgres=None, databases={})).fault(shop.name, 15.0) is None
