"""Refusals by the dozen: the types that they come from are halted, and the others go on."""

from __future__ import annotations

import json

import pytest
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, rowcast

LIMITS = {"ROWCAST_LIMITS": "transaction_changes=40,chunk_aggregates=10"}
TABLES = ("customer", "product")


@pytest.fixture
def shop(project: TestProject) -> TestProject:
    """Two types, of which the contracts allow names of five characters, and the tables any."""
    project.source_path.write_text(
        f"source: {project.name}\ndatabase: {project.name}\ntopics: {{partitions: 3}}\nrefusals: {{stop_above: 0.1}}\n"
        "aggregates:\n  customer: {table: public.customer, id: id}\n  product: {table: public.product, id: id}\n"
    )
    for name in TABLES:
        project.execute(f"CREATE TABLE {name} (id integer PRIMARY KEY, name text)")
        project.write_contract(name, (), {"id": {}, "name": {"maxLength": 5}})
    return project


def names(project: TestProject, aggregate: str) -> dict[int, str]:
    entities = (each[-1].after for each in histories(project, [aggregate], major=2).values())
    return {entity["id"]: entity["name"] for entity in entities if entity is not None}


def halted(project: TestProject) -> dict[str, str]:
    """What status tells of halted types, by code."""
    done = rowcast(project, "sources", "status", project.name, "--json")
    (status,) = json.loads(done.stdout)["sources"]
    return {each["aggregate"]: each["code"] for each in status["position"]["halted"]}


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_wave_of_refusals_in_a_large_transaction_halts_its_types(shop: TestProject, workers: WorkerPool) -> None:
    """Also where the owner dies over it; what went out of the others is whole."""
    shop.apply()
    dying = workers.start(settings=LIMITS, failpoints="sequencer.in_commit=kill@6")
    dying.wait_owned()
    shop.execute(
        "INSERT INTO customer SELECT n, 'fits' FROM generate_series(1, 60) n;"
        " INSERT INTO product SELECT n, 'far too long' FROM generate_series(1, 60) n"
    )
    assert dying.wait_ended(60) == -9
    workers.start(settings=LIMITS)
    wait_until(lambda: halted(shop) == {"product": "TOO_MANY_REFUSALS"}, "the type is halted", 60)
    wait_until(lambda: names(shop, "customer") == dict.fromkeys(range(1, 61), "fits"), "the others went out")
    shop.execute("INSERT INTO customer VALUES (61, 'more')")
    wait_until(lambda: names(shop, "customer").get(61) == "more", "the others go on")

    shop.execute("UPDATE product SET name = 'short'")
    assert names(shop, "product") == {}
    done = rowcast(shop, "sources", "resync", shop.name, "--aggregate", "product")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: names(shop, "product") == dict.fromkeys(range(1, 61), "short"), "it goes on")
    assert halted(shop) == {}
