"""Parts of the stack die or are away under load, and come back: nothing is lost, doubled or out of order."""

from __future__ import annotations

import os
import signal
import time
import uuid
from contextlib import closing

import psutil
import pytest
from consumer_fixture import Broker, ConsumerPool, Service
from kafka.admin import ConfigResource
from stack_fixture import TestProject, wait_until
from worker_fixture import Load, WorkerPool, add_tree, histories, read_events, read_topics, wait_agreement

from rowcast.local.stack import Stack

BACK_S = 30


def kill_part(stack: Stack, part: str) -> None:
    """SIGKILL to a part of the test's own *stack*, and wait until it is gone."""
    (found,) = [each for each in stack.status() if each.name == part]
    assert found.pid is not None
    os.kill(found.pid, signal.SIGKILL)

    def dead() -> bool:
        (now,) = [each for each in stack.status() if each.name == part]
        # One that is dead and not yet forgotten by the system keeps its lock file.
        return not now.alive and not psutil.pid_exists(found.pid or 0)

    wait_until(dead, f"{part} is dead")


def wait_applied(project: TestProject, service: Service) -> None:
    """Wait for all effects; they have to be the published versions of each item, once, in order."""
    wait_agreement(project, 90)
    count = sum(event.identity.aggregate == "item" for event in read_events(project))
    wait_until(lambda: service.effect_count() >= count, "all effects", 60)
    effects: dict[str, list[int]] = {}
    for id_text, version in service.effects():
        effects.setdefault(id_text, []).append(version)
    assert effects == {
        events[0].identity.id_text: [event.version for event in events]
        for events in histories(project).values()
        if events[0].identity.aggregate == "item"
    }


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Fresh")
@pytest.mark.parametrize("fault", [("connect", 0), ("kafka", 0), ("kafka", 60), ("postgres", 0)])
def test_a_part_dies_under_load_and_everything_goes_on_within_30_s(
    project: TestProject,
    workers: WorkerPool,
    consumers: ConsumerPool,
    broker: Broker,
    service: Service,
    fault: tuple[str, int],
) -> None:
    """Killed, away for a while, started again: events and effects come without a hand being lent."""
    part, away_s = fault
    project.apply()
    broker.domain = project.name
    consumers.start()
    workers.start().wait_owned()
    load = Load(project, away_s + 1)
    load.start()
    wait_until(lambda: service.effect_count() > 20, "effects before the fault")
    kill_part(project.stack.stack, part)
    until_s = time.monotonic() + away_s
    wait_until(lambda: time.monotonic() > until_s, "the outage", away_s + 5)
    project.stack.stack.start(part)
    if part == "postgres":
        # Load and test were cut off from their database.
        load.join(30)
        project.connection.close()
        load = Load(project, 100)
        load.start()
    before, effects = len(read_topics(project)), service.effect_count()
    wait_until(lambda: len(read_topics(project)) > before, "new events", BACK_S)
    wait_until(lambda: service.effect_count() > effects, "new effects", BACK_S)
    load.finish()
    wait_applied(project, service)


@pytest.mark.slow
@pytest.mark.guarantee("Any instance may die")
def test_a_failed_connector_is_restarted_by_the_worker(project: TestProject, workers: WorkerPool) -> None:
    """Its topic refuses a record: the task fails, or is silent while it does; it goes on once the topic takes it."""
    project.apply()
    worker = workers.start()
    worker.wait_owned()
    fill(project)
    wait_agreement(project)
    log = ConfigResource("TOPIC", f"{project.name}.changes", {"max.message.bytes": "1000"})
    with closing(project.admin()) as admin:
        admin.alter_configs([log])
        fill(project, os.urandom(1500).hex())
        wait_until(lambda: b"and is restarted" in worker.log.read_bytes(), "the restart", 120)
        log.configs["max.message.bytes"] = "2000000"
        admin.alter_configs([log])
    wait_agreement(project, 90)
    assert "rowcast_connector_restarts_total" in worker.get("/metrics").text


def fill(project: TestProject, title: str = "A title") -> None:
    """One more instance with its holdings and item."""
    add_tree(project.connection, [str(uuid.uuid4()) for _ in range(3)], {"title": title})
