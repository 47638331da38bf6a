"""A control database that was lost, or went back to an older copy, and what brings its knowledge of a source back."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psycopg
import pytest
from consumer_fixture import Broker, ConsumerPool, Service
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from stack_fixture import TestProject, random_name, wait_until
from verdict_fixture import MarkedLoad, wait_flowing
from worker_fixture import COMMAND, WorkerPool, add_tree, histories, rowcast, source_states, wait_agreement

from campaign.observation import read_claims
from rowcast.event import EventKind

FLOWING_S = 40


@contextmanager
def closed_server(project: TestProject) -> Iterator[tuple[psycopg.Connection, sql.Identifier]]:
    """The server of the control database, and its name; nobody gets in meanwhile."""
    name = str(conninfo_to_dict(project.settings.control().url)["dbname"])
    database = sql.Identifier(name)
    with psycopg.connect(project.stack.settings.database("postgres").url, autocommit=True) as server:
        server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
        server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield server, database
        server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))


def lose_control(project: TestProject) -> None:
    """The control database is dropped; an empty one stands in its place."""
    with closed_server(project) as (server, database):
        server.execute(sql.SQL("DROP DATABASE {}").format(database))
        server.execute(sql.SQL("CREATE DATABASE {}").format(database))


def copy_control(project: TestProject) -> sql.Identifier:
    """A copy of the control database as it is now."""
    copy = sql.Identifier(random_name("copy"))
    with closed_server(project) as (server, database):
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(copy, database))
    return copy


def restore_control(project: TestProject, copy: sql.Identifier) -> None:
    """The control database goes back to *copy*, which is used up."""
    with closed_server(project) as (server, database):
        server.execute(sql.SQL("DROP DATABASE {}").format(database))
        server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(copy, database))


def rebuild_killed(project: TestProject, place: str) -> None:
    """A rebuild that dies at *place*."""
    command = [*COMMAND, "--project", str(project.folder), "sources", "rebuild", project.name, "--yes"]
    environment = {**os.environ, "ROWCAST_FAILPOINTS": f"rebuild.{place}=kill"}
    died = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -9, died.stdout + died.stderr


def rebuild(project: TestProject) -> None:
    """A rebuild that comes to its end."""
    done = rowcast(project, "sources", "rebuild", project.name, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


def told_epochs(project: TestProject) -> list[int]:
    """The epochs that the progress topic tells, in order."""
    return [claim.epoch for claim in read_claims(project.stack.brokers, project.name)]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_lost_control_database_is_rebuilt_from_the_topics(project: TestProject, workers: WorkerPool) -> None:
    """What is as it was published gets no event, what changed meanwhile one, and what is gone ends; versions go on."""
    trees = [[str(uuid.uuid4()) for _ in range(3)] for _ in range(4)]
    for ids in trees[:3]:
        add_tree(project.connection, ids)
    refused = rowcast(project, "sources", "rebuild", project.name, "--yes")
    assert (refused.returncode, "is not there" in refused.stderr) == (2, True)
    project.apply()
    with project.control() as control:
        control.execute("UPDATE rowcast.source SET epoch = 40")  # as after many claims
    worker = workers.start()
    worker.wait_owned()
    wait_agreement(project)
    project.execute("UPDATE item SET status = 'Missing' WHERE id = %s", trees[0][2])
    wait_agreement(project)
    wait_until(lambda: told_epochs(project), "an epoch was told")
    lose_control(project)
    project.execute("UPDATE item SET status = 'Found' WHERE id = %s", trees[0][2])
    project.execute("DELETE FROM item WHERE id = %s", trees[1][2])
    add_tree(project.connection, trees[3])

    told = rowcast(project, "sources", "rebuild", project.name, "--dry-run", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    assert orjson.loads(told.stdout)["aggregates"] == [
        {"aggregate": each, "there": 3, "deleted": 0} for each in ("instance", "holdings", "item")
    ]
    assert rowcast(project, "sources", "rebuild", project.name).returncode == 1
    with project.control() as control:
        assert control.execute("SELECT count(*) FROM rowcast.source").fetchone() == (0,)
    before = max(told_epochs(project))
    rebuild(project)
    wait_agreement(project, 60)

    kinds = {events[0].identity.id_text: [event.kind for event in events] for events in histories(project).values()}
    unchanged = {each: [EventKind.SNAPSHOT] for ids in trees for each in ids}
    assert kinds == {
        **unchanged,
        trees[0][2]: [EventKind.SNAPSHOT, EventKind.UPDATED, EventKind.SNAPSHOT],
        trees[1][2]: [EventKind.SNAPSHOT, EventKind.DELETED],
    }
    wait_until(lambda: told_epochs(project)[-1] > before, "a higher epoch is told")
    told_since = told_epochs(project)
    assert told_since == sorted(told_since)
    assert "Traceback" not in worker.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.guarantee("Any instance may die")
def test_the_control_database_is_lost_under_load_with_a_frozen_owner(
    project: TestProject, workers: WorkerPool, consumers: ConsumerPool, broker: Broker, service: Service
) -> None:
    """The rebuild is killed twice; the former owner wakes with a half-published batch, and changes nothing."""
    load = start_all(project, consumers, broker)
    frozen = workers.start("sequencer.in_publish=stop@60")
    frozen.wait_owned()
    frozen.wait_stopped(60)
    lose_control(project)
    rebuild_killed(project, "withdrawn")
    rebuild_killed(project, "taken_over")
    rebuild(project)
    workers.start().wait_owned()
    frozen.resume()
    wait_flowing(load, service, "after the rebuild", FLOWING_S)
    judge(project, service, load)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.guarantee("Any instance may die")
def test_the_control_database_goes_back_to_an_older_copy_under_load(
    project: TestProject, workers: WorkerPool, consumers: ConsumerPool, broker: Broker, service: Service
) -> None:
    """The worker goes on from the older copy while the rebuild, killed once, takes the source out of its hands."""
    load = start_all(project, consumers, broker)
    workers.start().wait_owned()
    wait_flowing(load, service, "from the start", FLOWING_S)
    copy = copy_control(project)
    wait_flowing(load, service, "after the copy", FLOWING_S)
    restore_control(project, copy)
    rebuild_killed(project, "fenced")
    rebuild(project)
    wait_flowing(load, service, "after the rebuild", FLOWING_S)
    judge(project, service, load)


def start_all(project: TestProject, consumers: ConsumerPool, broker: Broker) -> MarkedLoad:
    """Everything but a worker."""
    for _ in range(20):
        add_tree(project.connection, [str(uuid.uuid4()) for _ in range(3)])
    project.apply()
    broker.domain = project.name
    consumers.start()
    load = MarkedLoad(project, seed=1)
    load.start()
    return load


def judge(project: TestProject, service: Service, load: MarkedLoad) -> None:
    """
    Topics and consumer end as the source's tables are; each version once, in order, without holes.

    Epochs never go back. Nothing of it is read from the control database or the marks.
    """
    load.finish()
    wait_agreement(project, 60)
    published = {
        events[0].identity.id_text: [event.version for event in events]
        for events in histories(project).values()
        if events[0].identity.aggregate == "item"
    }
    count = sum(map(len, published.values()))
    wait_until(lambda: service.effect_count() >= count, f"{count} effects", 60)
    effects, last = defaultdict[str, list[int]](list), dict[str, str]()
    for id_text, version, payload in service.execute("SELECT id_text, version, payload FROM effect ORDER BY seq"):
        effects[str(id_text)].append(int(str(version)))
        last[str(id_text)] = str(payload)
    assert effects == published
    there = {id_text: orjson.loads(payload) for id_text, payload in last.items() if payload != "null"}
    items = {id_: state for id_, state in source_states(project).items() if "status" in state}
    assert {id_text: entity["status"] for id_text, entity in there.items()} == {
        id_: state["status"] for id_, state in items.items()
    }
    epochs = told_epochs(project)
    assert epochs == sorted(epochs)
