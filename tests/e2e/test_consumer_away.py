"""A consumer that was away catches up while changes go on, whatever becomes of its instances meanwhile."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from consumer_fixture import Broker, ConsumerPool, Process, Service
from stack_fixture import TestProject, wait_until
from verdict_fixture import BACK_S, MarkedLoad, pass_verdict, wait_flowing
from worker_fixture import WorkerPool

ITEMS, CHANGES = 5_000, 100_000
CATCH_UP_S = 200
EARLY_EFFECTS = 5_000


@pytest.fixture
def freezing(consumers: ConsumerPool, tmp_path: Path) -> Iterator[Path]:
    """A file: while it exists, the next event that an instance of *consumers* handles freezes that instance."""
    consumers.options = ("--batch", "--freeze", str(tmp_path / "freeze"))
    yield tmp_path / "freeze"
    consumers.options = ()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.guarantee("A long window")
def test_a_consumer_that_missed_100000_changes_catches_up_while_its_instances_die_and_freeze(
    project: TestProject,
    workers: WorkerPool,
    consumers: ConsumerPool,
    broker: Broker,
    service: Service,
    freezing: Path,
) -> None:
    """One of two is killed while they catch up; later one freezes in its transaction, and is woken."""
    project.apply()
    broker.domain = project.name
    workers.start().wait_owned()
    former = consumers.start()
    load = MarkedLoad(project, seed=1)
    load.start()
    wait_flowing(load, service, "before the outage", 60)
    former.process.kill()
    change_much(project)

    first, second = consumers.start(), consumers.start()
    wait_until(lambda: service.effect_count() > EARLY_EFFECTS, "both catch up", BACK_S)
    first.process.kill()
    wait_flowing(load, service, "caught up by the other instance", CATCH_UP_S)
    assert service.effect_count() >= CHANGES

    third = consumers.start()
    wait_until(lambda: owners(service) == 2, "both have work", BACK_S)
    freezing.touch()
    frozen, other = wait_frozen(second, third)
    wait_flowing(load, service, f"the other instance, {other.log.name}, goes on")
    frozen.send(signal.SIGCONT)
    wait_until(lambda: owners(service) == 2, "the woken one has work again", BACK_S)
    wait_flowing(load, service, "after the wake-up")
    pass_verdict(project, service, load)


def change_much(project: TestProject) -> None:
    """A new parent with `ITEMS` items, each changed again and again: `CHANGES` changes."""
    with psycopg.connect(project.settings.database(project.name).url, autocommit=True) as connection:
        ids = [str(uuid.uuid4()) for _ in range(2)]
        connection.execute(
            "INSERT INTO instance (id, hrid, title, source, instance_type) VALUES (%s, %s, 'Many', 'MARC', 'text')",
            (ids[0], ids[0]),
        )
        connection.execute(
            "INSERT INTO holdings (id, hrid, instance_id, permanent_location) VALUES (%s, %s, %s, 'Main')",
            (ids[1], ids[1], ids[0]),
        )
        connection.execute(
            "INSERT INTO item (id, hrid, holdings_id, material_type, status) SELECT gen_random_uuid(),"
            " 'many-' || n, %s, 'book', 'Available' FROM generate_series(1, %s) AS n",
            (ids[1], ITEMS),
        )
        for number in range(1, CHANGES // ITEMS):
            with connection.transaction():
                # The load changes a few of the same rows, in another order.
                connection.execute("LOCK TABLE item IN SHARE ROW EXCLUSIVE MODE")
                connection.execute("UPDATE item SET price = %s WHERE hrid LIKE 'many-%%'", (number,))


def owners(service: Service) -> int:
    """How many instances share the partitions: tells when to go on, not whether it is right."""
    (row,) = service.execute("SELECT count(DISTINCT instance) FROM rowcast_inbox.offset_position")
    return int(str(row[0]))


def wait_frozen(*processes: Process) -> tuple[Process, Process]:
    """Wait until one of two is frozen: it, and the other."""

    def frozen() -> list[Process]:
        return [each for each in processes if "State:\tT" in Path(f"/proc/{each.process.pid}/status").read_text()]

    (found,) = wait_until(frozen, "one freezes")
    (other,) = [each for each in processes if each is not found]
    return found, other
