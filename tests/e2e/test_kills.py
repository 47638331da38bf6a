"""Rows to effects while worker and consumer are killed again and again."""

from __future__ import annotations

import random
import time

import pytest
from consumer_fixture import Broker, ConsumerPool, Service
from stack_fixture import TestProject, wait_until
from worker_fixture import Load, WorkerPool, histories, read_events, wait_agreement

KILLS = 5


def effects_per_item(service: Service) -> dict[str, list[int]]:
    """The versions that had an effect, by item, in the order of the effects."""
    effects: dict[str, list[int]] = {}
    for id_text, version in service.effects():
        effects.setdefault(id_text, []).append(version)
    return effects


@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in (2, 3))])
def test_worker_and_consumer_are_killed_under_load_and_every_effect_happens_once(
    project: TestProject, workers: WorkerPool, consumers: ConsumerPool, broker: Broker, service: Service, seed: int
) -> None:
    """Five kills at random moments: the effects are the published versions, each once, in order."""
    project.apply()
    rng = random.Random(seed)
    broker.domain = project.name
    consumer = consumers.start()
    worker = workers.start()
    worker.wait_owned()
    load = Load(project, seed)
    load.start()
    for _ in range(KILLS):
        until_s = time.monotonic() + rng.uniform(1.0, 3.0)
        wait_until(lambda until_s=until_s: time.monotonic() > until_s, "the moment of the kill")
        if rng.random() < 0.5:
            worker.kill()
            worker = workers.start()
        else:
            consumer.process.kill()
            consumer = consumers.start()
    wait_until(lambda: load.transactions > 300, "enough load")
    load.finish()
    wait_agreement(project, 60)
    published = {
        events[0].identity.id_text: [event.version for event in events]
        for events in histories(project).values()
        if events[0].identity.aggregate == "item"
    }
    count = sum(event.identity.aggregate == "item" for event in read_events(project))
    wait_until(lambda: service.effect_count() >= count, "all effects", 60)
    assert effects_per_item(service) == published
