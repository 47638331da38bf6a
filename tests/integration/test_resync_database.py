"""`rowcast sources resync` from the database: what drifted while capture was off, and nothing else."""

from __future__ import annotations

import random
import subprocess
import threading

import psycopg
import pytest
import requests
from stack_fixture import TestProject, wait_until
from worker_fixture import (
    COMMAND,
    Worker,
    WorkerPool,
    add_tree,
    differences,
    histories,
    rowcast,
    unpublished,
    wait_agreement,
)

from rowcast.event import DomainEvent, EventKind
from rowcast.sources.connector import connector_name

IDS = [[f"00000000-0000-4000-8000-0000000{tree}{row:02}" for row in range(3)] for tree in range(100, 140)]
RESYNC = ("sources", "resync")
TABLES = ("instance", "holdings", "item")
_ITEM = (
    "INSERT INTO item (id, hrid, holdings_id, material_type, status)"
    " VALUES (%s, %s, %s, 'book', 'Available') ON CONFLICT DO NOTHING"
)
# The owner reads the open commands each second, on a connection that does nothing else while no change comes.
_LOOKED = (
    "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND query_start > %s AND state = 'idle'"
    " AND query LIKE '%%FROM rowcast.command%%'"
)
_ASKED = "SELECT number FROM rowcast.command WHERE verb = 'resync_apply'"


@pytest.fixture
def worker(project: TestProject, workers: WorkerPool) -> Worker:
    """A source with forty trees whose events are out."""
    for ids in IDS:
        add_tree(project.connection, ids)
    project.apply()
    worker = workers.start()
    wait_agreement(project)
    return worker


def added(project: TestProject, former: dict[str, list[DomainEvent]]) -> dict[str, list[DomainEvent]]:
    """The events since *former*, by id text, of those aggregates that have some."""
    return {
        events[0].identity.id_text: rest
        for name, events in histories(project).items()
        if (rest := events[len(former.get(name, ())) :])
    }


def kinds(events: dict[str, list[DomainEvent]]) -> dict[str, tuple[EventKind, ...]]:
    return {name: tuple(each.kind for each in found) for name, found in events.items()}


def resync(project: TestProject, *arguments: str) -> str:
    done = rowcast(project, *RESYNC, project.name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_what_changed_while_capture_was_off_is_found(project: TestProject, worker: Worker) -> None:
    """Each aggregate that differs gets one event, those that are gone `deleted`, the others none; again none."""
    former = histories(project)
    new = ["00000000-0000-4000-8000-000000999900", "00000000-0000-4000-8000-000000999901"]
    new.append("00000000-0000-4000-8000-000000999902")
    with unpublished(project, TABLES):
        project.execute("UPDATE instance SET title = 'Unseen' WHERE id = %s", IDS[0][0])
        project.execute("UPDATE item SET holdings_id = %s WHERE id = %s", IDS[2][1], IDS[1][2])
        project.execute("DELETE FROM item WHERE id = %s", IDS[3][2])
        add_tree(project.connection, new)
    project.execute("UPDATE instance SET title = 'Seen' WHERE id = %s", IDS[4][0])
    wait_until(lambda: IDS[4][0] in added(project, former), "the stream goes on")
    assert len(differences(project)) == 6

    said = resync(project)

    assert said == f"{project.name}: 122 rows read; 5 rows differed, 1 were gone"
    assert differences(project) == []
    assert kinds(added(project, former)) == {
        IDS[0][0]: (EventKind.SNAPSHOT,),
        IDS[1][2]: (EventKind.SNAPSHOT,),
        IDS[3][2]: (EventKind.DELETED,),
        IDS[4][0]: (EventKind.UPDATED,),
        **dict.fromkeys(new, (EventKind.SNAPSHOT,)),
    }
    former = histories(project)
    assert resync(project, "--aggregate", "item").endswith(": 40 rows read; 0 rows differed, 0 were gone")
    assert added(project, former) == {}


@pytest.mark.slow
def test_row_state_that_was_damaged_is_mended(project: TestProject, worker: Worker) -> None:
    """By id and by condition; only what was asked for, and ids that nobody has are not made up."""
    damaged = [ids[0] for ids in IDS[:4]]
    with project.control() as control:
        control.execute(
            "UPDATE rowcast.row_state SET columns = replace(columns, 'A title', 'Wrong') WHERE row_key = ANY (%s)",
            (damaged,),
        )
        control.execute("DELETE FROM rowcast.row_state WHERE row_key = %s", (IDS[5][2],))
    project.execute("UPDATE instance SET title = %s WHERE id = %s", "Of the stream", damaged[3])
    with unpublished(project, TABLES):
        for each in damaged[:2]:
            project.execute("UPDATE instance SET title = %s WHERE id = %s", "50% new; it's", each)
        project.execute("DELETE FROM item WHERE id = ANY (%s::uuid[])", [IDS[6][2], IDS[7][2]])
    wait_until(lambda: "Of the stream" in str(histories(project)), "the stream")
    former = histories(project)

    said = resync(project, "--aggregate", "instance", "--id", damaged[0], "--id", damaged[2])
    assert said.endswith(": 2 rows read; 2 rows differed, 0 were gone")
    assert kinds(added(project, former)) == {damaged[0]: (EventKind.SNAPSHOT,)}
    said = resync(project, "--aggregate", "instance", "--where", "title LIKE '50%' -- all of them")
    assert said.endswith(": 2 rows read; 1 rows differed, 0 were gone")
    said = resync(project, "--aggregate", "item", "--id", IDS[6][2], "--id", IDS[5][2], "--id", IDS[0][0])
    assert said.endswith(": 1 rows read; 1 rows differed, 1 were gone")
    assert kinds(added(project, former)) == {
        damaged[0]: (EventKind.SNAPSHOT,),
        damaged[1]: (EventKind.SNAPSHOT,),
        IDS[6][2]: (EventKind.DELETED,),
    }
    assert len(differences(project)) == 1

    for arguments, expected in (
        (["--id", damaged[0]], "--id needs --aggregate"),
        (["--aggregate", "thing"], "declared: "),
        (["--aggregate", "item", "--id", "not a uuid"], "uuid"),
        (["--aggregate", "item", "--where", "nothing > 3"], "nothing"),
        (["--aggregate", "item", "--where", "true", "--id", "x"], "--where does not go"),
    ):
        wrong = rowcast(project, *RESYNC, project.name, *arguments)
        assert wrong.returncode == 2
        assert expected in wrong.stderr
        assert "Traceback" not in wrong.stderr


def ask(project: TestProject) -> subprocess.Popen[str]:
    """A resync of the whole source, in the background."""
    command = [*COMMAND, "--project", str(project.folder), *RESYNC, project.name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def descending_titles(project: TestProject) -> dict[str, list[int]]:
    """The titles of instances that went back, as numbers."""
    titles = {
        name: [int(each.after["title"]) for each in events if each.after and each.version > 1]
        for name, events in histories(project).items()
        if "/instance/" in name
    }
    return {name: found for name, found in titles.items() if found != sorted(found)}


class Counting(threading.Thread):
    """Counts titles up and deletes items, until `finish`: all of it committed one by one."""

    def __init__(self, project: TestProject, seed: int) -> None:
        super().__init__(daemon=True)
        self._url = project.settings.database(project.name).url
        self._random, self._ending = random.Random(seed), threading.Event()

    def run(self) -> None:
        """Commit one change after the other."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._ending.wait(0.005):
                ids = self._random.choice(IDS)
                connection.execute("UPDATE instance SET title = (title::int + 1)::text WHERE id = %s", (ids[0],))
                if self._random.random() < 0.03:
                    connection.execute("DELETE FROM item WHERE id = %s", (ids[2],))

    def finish(self) -> None:
        """End it."""
        self._ending.set()
        self.join(30)


@pytest.mark.slow
@pytest.mark.guarantee("Order per aggregate")
def test_no_version_goes_back_while_the_same_rows_are_written(project: TestProject, worker: Worker) -> None:
    """Titles only count up and deleted items stay so: what is read never comes over what the log has brought since."""
    project.execute("UPDATE instance SET title = '0'")
    project.execute("DELETE FROM item")
    wait_agreement(project)
    writers = [Counting(project, seed) for seed in range(3)]
    with unpublished(project, TABLES):
        project.execute("UPDATE instance SET title = '5'")
        for ids in IDS:
            project.execute(_ITEM, ids[2], ids[2], ids[1])
    for each in writers:
        each.start()
    try:
        resync(project)
    finally:
        for each in writers:
            each.finish()
    wait_agreement(project)

    assert descending_titles(project) == {}


@pytest.mark.slow
def test_what_the_change_log_has_not_brought_yet_is_waited_for(project: TestProject, worker: Worker) -> None:
    """The database is ahead of the log: what was read is applied behind that, where it is no news."""
    project.execute("UPDATE instance SET title = '0'")
    wait_agreement(project)
    connector = f"{project.stack.connect_url}/connectors/{connector_name(project.name)}"
    requests.put(f"{connector}/pause", timeout=10).raise_for_status()

    def states() -> set[str]:
        status = requests.get(f"{connector}/status", timeout=10).json()
        return {each["state"] for each in (status["connector"], *status["tasks"])}

    wait_until(lambda: states() == {"PAUSED"}, "the connector and its task pause")
    for title in "123":
        project.execute("UPDATE instance SET title = %s", title)
    former = histories(project)
    asked = ask(project)
    with project.control() as control:
        wait_until(lambda: control.execute(_ASKED).fetchone(), "all is read")
        second = rowcast(project, *RESYNC, project.name)
        assert (second.returncode, "another resync is under way" in second.stderr) == (2, True)
        (asked_at,) = control.execute("SELECT clock_timestamp()").fetchone() or (None,)
        looked = (_LOOKED, (f"rowcast worker {project.name} reads", asked_at))
        wait_until(lambda: control.execute(*looked).fetchone(), "the worker looks and does nothing")
    requests.put(f"{connector}/resume", timeout=10).raise_for_status()
    said, _ = asked.communicate(timeout=60)

    assert said.strip().endswith(": 120 rows read; 0 rows differed, 0 were gone")
    wait_agreement(project)
    assert descending_titles(project) == {}
    assert set(kinds(added(project, former)).values()) == {(EventKind.UPDATED,) * 3}


@pytest.mark.slow
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize("step", ["in_resync", pytest.param("after_publish", marks=pytest.mark.matrix)])
def test_a_worker_killed_while_it_applies_leaves_it_to_the_next(
    project: TestProject, worker: Worker, workers: WorkerPool, step: str
) -> None:
    """Every aggregate that differs gets its one event, whether rows were applied or events published at the death."""
    worker.kill()
    former = histories(project)
    with unpublished(project, TABLES):
        project.execute("UPDATE instance SET title = 'Unseen'")
        project.execute("DELETE FROM item")
    first = workers.start(f"sequencer.{step}=kill")
    asked = ask(project)
    assert first.wait_ended(60) == -9
    workers.start()
    said, _ = asked.communicate(timeout=60)

    assert (asked.returncode, said.strip()) == (
        0,
        f"{project.name}: 80 rows read; 40 rows differed, 40 were gone",
    )
    assert set(kinds(added(project, former)).values()) == {(EventKind.SNAPSHOT,), (EventKind.DELETED,)}
    assert differences(project) == []


@pytest.mark.matrix
def test_a_resync_whose_asker_died_is_given_up(project: TestProject, worker: Worker, workers: WorkerPool) -> None:
    """What it read is thrown away, and the next one does all of it."""
    worker.kill()
    with project.control() as control:
        control.execute(
            "INSERT INTO rowcast.command (source, verb, arguments, asked_by) VALUES (%s, 'resync_begin', %s, 'nobody')",
            (project.name, '{"aggregates": ["item"]}'),
        )
        control.execute(
            "INSERT INTO rowcast.reread_row VALUES (%s, 2, 'public.item', %s, NULL)", (project.name, IDS[0][2])
        )
        workers.start()
        status = "SELECT status FROM rowcast.generation WHERE generation = 2"
        wait_until(lambda: control.execute(status).fetchone() == ("cancelled",), "nobody reads")
    former = histories(project)
    assert resync(project).endswith(": 120 rows read; 0 rows differed, 0 were gone")
    assert added(project, former) == {}
