"""`rowcast sources recover`: what brings a stopped source back, step by step, whenever it was killed."""

from __future__ import annotations

import os
import subprocess
import uuid

import orjson
import pytest
from kafka import TopicPartition
from stack_fixture import TestProject, wait_until
from worker_fixture import COMMAND, WorkerPool, add_tree, histories, rowcast, unpublished, wait_agreement

from rowcast.event import EventKind
from rowcast.sources.capture import change_log_end

RECOVER = ("sources", "recover")


def wait_stop(project: TestProject, code: str) -> None:
    """Wait until the source is stopped with *code*, and its status names the command."""
    query = "SELECT 1 FROM rowcast.source WHERE status = 'stopped' AND stopped_code = %s"
    with project.control() as control:
        wait_until(lambda: control.execute(query, (code,)).fetchone(), code, 40)
    command = f"rowcast sources recover {project.name} --code {code} --yes"
    assert command in rowcast(project, "sources", "status").stdout


def die(project: TestProject, code: str, place: str) -> None:
    """A recovery that dies at *place*."""
    command = [*COMMAND, "--project", str(project.folder), *RECOVER, project.name, "--code", code, "--yes"]
    environment = {**os.environ, "ROWCAST_FAILPOINTS": f"recovery.{place}=kill"}
    died = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -9, died.stdout + died.stderr


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_recovery_that_was_killed_goes_on_and_the_source_agrees(project: TestProject, workers: WorkerPool) -> None:
    """After a promotion behind the first of two steps; after a truncated change log with its only step once more."""
    trees = [[str(uuid.uuid4()) for _ in range(3)] for _ in range(3)]
    for ids in trees[:2]:
        add_tree(project.connection, ids)
    project.apply()
    worker = workers.start()
    wait_agreement(project)
    with unpublished(project, ("instance", "holdings", "item")):
        project.execute("UPDATE item SET status = 'Undone' WHERE id = %s", trees[0][2])
    project.execute(
        "SELECT pg_logical_emit_message(true, 'rowcast.heartbeat', json_build_object('source', %s::text,"
        " 'timeline', 99, 'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))::text)",
        project.name,
    )
    wait_stop(project, "DATABASE_PROMOTED")
    die(project, "DATABASE_PROMOTED", "after_step")
    done = rowcast(project, *RECOVER, project.name, "--code", "DATABASE_PROMOTED", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 2 of 2: resync" in done.stdout
    assert "step 1" not in done.stdout
    wait_agreement(project)

    worker.process.terminate()  # it gives its lease back
    worker.wait_ended()
    project.execute("DELETE FROM item WHERE id = %s", trees[1][2])
    add_tree(project.connection, trees[2])
    project.change_log(lambda values: any(value.get("op") == "d" for value in values))
    end = change_log_end(project.settings.kafka(), project.name)
    admin = project.admin()
    try:
        admin.delete_records({TopicPartition(f"{project.name}.changes", 0): end})
    finally:
        admin.close()
    workers.start()
    wait_stop(project, "CHANGE_LOG_TRUNCATED")
    refused = rowcast(project, *RECOVER, project.name, "--code", "SLOT_LOST", "--yes")
    assert (refused.returncode, "is stopped with CHANGE_LOG_TRUNCATED" in refused.stderr) == (2, True)
    wanted = (*RECOVER, project.name, "--code", "CHANGE_LOG_TRUNCATED")
    told = rowcast(project, *wanted, "--json")
    assert (told.returncode, orjson.loads(told.stdout)["steps"]) == (1, [{"step": "rebuild", "done": False}])
    die(project, "CHANGE_LOG_TRUNCATED", "in_step")
    done = rowcast(project, *wanted, "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert orjson.loads(done.stdout)["finished"] is True
    wait_agreement(project, 60)

    kinds = {events[0].identity.id_text: [event.kind for event in events] for events in histories(project).values()}
    assert kinds == {each: [EventKind.SNAPSHOT] for ids in trees for each in ids} | {
        trees[0][2]: [EventKind.SNAPSHOT, EventKind.SNAPSHOT],
        trees[1][2]: [EventKind.SNAPSHOT, EventKind.DELETED],
    }
    again = rowcast(project, *wanted, "--yes")
    assert (again.returncode, "is not stopped" in again.stderr) == (2, True)
