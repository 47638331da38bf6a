"""`rowcast sources resync`: published state goes out again, with new versions."""

from __future__ import annotations

import subprocess

import pytest
from stack_fixture import TestProject, wait_until
from worker_fixture import COMMAND, Worker, WorkerPool, add_tree, histories, rowcast, wait_agreement

from rowcast.event import DomainEvent, EventKind

IDS = [[f"00000000-0000-4000-8000-000000000{tree}{row}" for row in range(3)] for tree in range(10, 40)]
RESYNC = ("sources", "resync")


@pytest.fixture
def worker(project: TestProject, workers: WorkerPool) -> Worker:
    """A source with thirty trees whose events are out."""
    for ids in IDS:
        add_tree(project.connection, ids)
    project.apply()
    worker = workers.start()
    wait_agreement(project)
    return worker


def lengths(project: TestProject) -> dict[str, int]:
    return {name: len(events) for name, events in histories(project).items()}


def added(project: TestProject, former: dict[str, int]) -> dict[str, list[DomainEvent]]:
    """The events since *former*, of those that have some."""
    return {name: rest for name, events in histories(project).items() if (rest := events[former[name] :])}


def ask(project: TestProject) -> subprocess.Popen[str]:
    """Ask for all of the source again, while no worker runs; returns once the command stands."""
    command = [*COMMAND, "--project", str(project.folder), *RESYNC, project.name, "--from", "state"]
    asked = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with project.control() as control:
        wait_until(lambda: control.execute("SELECT FROM rowcast.command").fetchone() is not None, "the command")
    return asked


@pytest.mark.slow
def test_one_aggregate_and_then_a_type_is_sent_again(project: TestProject, worker: Worker) -> None:
    """A `snapshot` with the next version and the same content; what is deleted or unknown is refused by name."""
    deleted = IDS[0]
    project.execute("DELETE FROM item WHERE id = %s", deleted[2])
    wait_agreement(project)
    former = lengths(project)
    one = IDS[1][2]

    done = rowcast(project, *RESYNC, project.name, "--from", "state", "--aggregate", "item", "--id", one)
    assert (done.returncode, done.stdout.strip()) == (0, f"{project.name}: sent again")
    ((name, (event,)),) = added(project, former).items()
    last = histories(project)[name][-2]
    assert name.endswith(f"/item/{one}")
    assert (event.kind, event.version, event.after, event.ancestors) == (
        EventKind.SNAPSHOT,
        last.version + 1,
        last.after,
        last.ancestors,
    )
    assert event.before == {}

    former = lengths(project)
    done = rowcast(project, *RESYNC, project.name, "--from", "state", "--aggregate", "item")
    assert done.returncode == 0, done.stderr
    sent = added(project, former)
    assert len(sent) == len(IDS) - 1
    assert {(each.kind, each.identity.aggregate) for events in sent.values() for each in events} == {
        (EventKind.SNAPSHOT, "item")
    }

    for arguments, said in (
        (["--aggregate", "item", "--id", deleted[2]], "is deleted"),
        (["--aggregate", "item", "--id", "nobody"], "no row with this id"),
        (["--aggregate", "thing"], "declared: "),
        (["--id", one], "--id needs --aggregate"),
    ):
        wrong = rowcast(project, *RESYNC, project.name, "--from", "state", *arguments)
        assert wrong.returncode == 2
        assert said in wrong.stderr
    assert added(project, lengths(project)) == {}


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_nothing_is_sent_again_before_a_large_transaction_that_was_begun_is_through(
    project: TestProject, worker: Worker, workers: WorkerPool
) -> None:
    """Its rows are in row state, and not all of its events are out, when the worker dies: these are the first."""
    limits = {"ROWCAST_LIMITS": "transaction_changes=40,chunk_aggregates=25,descendants=60"}
    worker.kill()
    former = lengths(project)
    # It waits before the last part, until the one before it is committed: nothing is published that is not.
    first = workers.start("sequencer.before_publish=sleep:60@4", limits)
    first.wait_owned(40)
    with project.connection.transaction():
        project.execute("UPDATE instance SET title = 'After'")
        project.execute("UPDATE holdings SET instance_id = %s", IDS[0][0])
    with project.control() as control:
        place = "SELECT sub_position FROM rowcast.source WHERE sub_position::jsonb #>> '{last,0}' = 'holdings'"
        wait_until(lambda: control.execute(place).fetchone() is not None, "some have moved, and no item is told", 60)
    first.kill()
    asked = ask(project)
    workers.start(settings=limits)
    said, _ = asked.communicate(timeout=90)

    assert (asked.returncode, said.strip()) == (0, f"{project.name}: sent again")
    sent = added(project, former)
    unmoved = {IDS[0][1], IDS[0][2]}
    for name, events in sent.items():
        kinds = [EventKind.UPDATED, EventKind.SNAPSHOT][name.rpartition("/")[2] in unmoved :]
        assert [each.kind for each in events] == kinds, name
    assert len(sent) == 3 * len(IDS)


@pytest.mark.slow
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize("step", ["after_publish", pytest.param("in_commit", marks=pytest.mark.matrix)])
def test_a_worker_killed_while_it_sends_again_leaves_it_to_the_next(
    project: TestProject, worker: Worker, workers: WorkerPool, step: str
) -> None:
    """Every aggregate of the source gets one version, whichever commit the first worker dies at; changes follow."""
    worker.kill()
    former = lengths(project)
    asked = ask(project)
    # The first commit takes it over, the second has the events.
    first = workers.start(f"sequencer.{step}=kill@{1 if step == 'after_publish' else 2}")
    assert first.wait_ended(60) == -9
    workers.start()
    said, _ = asked.communicate(timeout=60)

    assert (asked.returncode, said.strip()) == (0, f"{project.name}: sent again")
    sent = added(project, former)
    assert sent.keys() == former.keys()
    assert {tuple(each.kind for each in events) for events in sent.values()} == {(EventKind.SNAPSHOT,)}
    project.execute("UPDATE instance SET title = 'After'")
    wait_agreement(project)


@pytest.mark.slow
@pytest.mark.guarantee("Order per aggregate")
def test_what_was_published_and_not_committed_is_not_followed_by_what_was_before(
    project: TestProject, worker: Worker, workers: WorkerPool
) -> None:
    """Row state is behind what the worker published that died: it is sent again when it has caught up."""
    worker.kill()
    project.execute("UPDATE instance SET title = 'New'")
    assert workers.start("sequencer.after_publish=kill").wait_ended(60) == -9
    asked = ask(project)
    workers.start()
    asked.communicate(timeout=60)

    assert asked.returncode == 0
    wait_agreement(project)
    titles = {
        tuple((each.after or {})["title"] for each in events)
        for name, events in histories(project).items()
        if "/instance/" in name
    }
    assert titles == {("A title", "New", "New")}
