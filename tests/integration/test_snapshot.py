"""Snapshots that break off."""

from __future__ import annotations

import threading
import uuid

import pytest
import requests
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, add_tree, histories, rowcast, wait_agreement

from rowcast.connect import ConnectClient
from rowcast.errors import ConfigurationError
from rowcast.event import EventKind
from rowcast.sources.connector import connector_name
from stream_app.metrics import Metrics, SourceMetrics
from stream_app.owner import Owner
from stream_app.session import BATCH_RECORDS_MAX

ROWS = 60_000
# More rows than the worker takes in one batch.
TREES = """
INSERT INTO instance (id, hrid, title, source, instance_type)
SELECT md5('i' || g)::uuid, 'i' || g, 'T', 'MARC', 'text' FROM generate_series(1, 4000) g;
INSERT INTO holdings (id, hrid, instance_id, permanent_location)
SELECT md5('h' || g)::uuid, 'h' || g, md5('i' || g)::uuid, 'Main' FROM generate_series(1, 4000) g;
INSERT INTO item (id, hrid, holdings_id, material_type, status)
SELECT md5('x' || g)::uuid, 'x' || g, md5('h' || g)::uuid, 'book', 'Available' FROM generate_series(1, 4000) g;
"""
# What was read stands in its rows alone.
READING = "SELECT EXISTS (SELECT FROM rowcast.row_state), (SELECT count(*) FROM rowcast.aggregate)"


@pytest.mark.slow
def test_a_snapshot_that_broke_off_stops_the_source_and_begins_anew_on_command(
    project: TestProject, workers: WorkerPool
) -> None:
    """A second attempt on the first one's slot is refused; resnapshot takes a new slot, and nothing is missing."""
    project.execute(
        "INSERT INTO instance (id, hrid, title, source, instance_type)"
        f" SELECT gen_random_uuid(), 'i' || g, 'T' || g, 'MARC', 'text' FROM generate_series(1, {ROWS}) g"
    )
    applying = threading.Thread(target=project.apply, daemon=True)
    applying.start()
    project.change_log(lambda values: any(value.get("op") == "r" for value in values), 60)
    name = connector_name(project.name)
    restarted = requests.post(f"{project.stack.connect_url}/connectors/{name}/tasks/0/restart", timeout=30)
    assert restarted.status_code == 204
    applying.join(120)
    worker = workers.start()
    wait_until(lambda: b"SNAPSHOT_INTERRUPTED" in worker.log.read_bytes(), "the stop", 90)
    project.execute("DELETE FROM instance WHERE hrid LIKE 'i1%%'")

    refused = rowcast(project, "sources", "resnapshot", project.name)
    assert refused.returncode == 1
    done = rowcast(project, "sources", "resnapshot", project.name, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_agreement(project, 120)
    assert {events[0].kind for events in histories(project).values()} == {EventKind.SNAPSHOT}
    assert all(len(events) == 1 for events in histories(project).values())


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_snapshot_that_nobody_asked_for_stops_the_source(project: TestProject, workers: WorkerPool) -> None:
    """A connector without its offsets reads the tables again and passes over what was committed meanwhile."""
    gone, kept = ([str(uuid.uuid4()) for _ in range(3)] for _ in range(2))
    add_tree(project.connection, gone)
    project.apply()
    worker = workers.start()
    wait_agreement(project)
    name = connector_name(project.name)
    with ConnectClient(project.stack.connect_url) as connect:
        connect.stop(name)
        connect.wait_stopped(name, 60)
        connect.delete_offsets(name)
    for table, row in zip(("item", "holdings", "instance"), reversed(gone), strict=True):
        project.execute(f"DELETE FROM {table} WHERE id = %s", row)  # no streamed change will tell
    add_tree(project.connection, kept)
    requests.put(f"{project.stack.connect_url}/connectors/{name}/resume", timeout=30).raise_for_status()
    wait_until(lambda: b"SNAPSHOT_INTERRUPTED" in worker.log.read_bytes(), "the stop", 60)
    done = rowcast(project, "sources", "resnapshot", project.name, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_agreement(project, 60)
    kinds = {events[0].identity.id_text: [event.kind for event in events] for events in histories(project).values()}
    assert kinds == {
        **{row: [EventKind.SNAPSHOT, EventKind.DELETED] for row in gone},
        **{row: [EventKind.SNAPSHOT] for row in kept},
    }


@pytest.mark.guarantee("Any instance may die")
def test_workers_that_die_while_a_snapshot_is_read_and_sent_leave_one_event_of_each(
    project: TestProject, workers: WorkerPool
) -> None:
    """The first dies with rows that nothing else is known of, others before and behind commits of events."""
    project.execute(TREES)
    project.apply()
    project.execute("UPDATE item SET status = 'Missing' WHERE hrid LIKE 'x1%'")
    project.execute("DELETE FROM item WHERE hrid LIKE 'x2%'")
    assert workers.start(failpoints="sequencer.in_commit=kill@3").wait_ended(60) == -9
    with project.control() as control:
        assert control.execute(READING).fetchone() == (True, 0)
    told = rowcast(project, "refused", "show", project.name, "instance", str(uuid.uuid4()))
    assert (told.returncode, "is still being read by a snapshot" in told.stderr) == (2, True), told.stderr
    small = {"ROWCAST_LIMITS": "chunk_aggregates=500"}
    for place in ("sequencer.after_publish=kill@4", "sequencer.in_commit=kill@6", "sequencer.after_commit=kill@8"):
        assert workers.start(failpoints=place, settings=small).wait_ended(60) == -9
    workers.start(settings=small)
    wait_agreement(project, 60)
    read = [events[0] for events in histories(project).values()]
    assert {(event.kind, event.version) for event in read} == {(EventKind.SNAPSHOT, 1)}


@pytest.mark.guarantee("Nothing committed is lost")
def test_another_aggregate_of_a_running_source_needs_a_new_snapshot(project: TestProject, workers: WorkerPool) -> None:
    """Applying it alone is refused; after remove and apply all rows are there, and nothing was deleted."""
    whole = project.source_path.read_text()
    project.source_path.write_text(whole.partition("  item:\n")[0])
    for _ in range(3):
        add_tree(project.connection, [str(uuid.uuid4()) for _ in range(3)])
    project.apply()
    workers.start().wait_owned()
    with project.control() as control:
        query = "SELECT count(*) FROM rowcast.aggregate WHERE version = 1"
        wait_until(lambda: control.execute(query).fetchone() == (6,), "the first snapshot")

    project.source_path.write_text(whole)
    with pytest.raises(ConfigurationError, match="captured without other aggregates"):
        project.apply()
    assert rowcast(project, "sources", "remove", project.name, "--yes").returncode == 0
    add_tree(project.connection, [str(uuid.uuid4()) for _ in range(3)])
    project.apply()
    wait_agreement(project, 60)
    assert {event.kind for events in histories(project).values() for event in events} == {EventKind.SNAPSHOT}


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_snapshot_of_another_definition_is_not_read_under_the_former_one(project: TestProject) -> None:
    """An owner whom nobody tells of the new definition finds more than a batch of its snapshot before the new table."""
    whole = project.source_path.read_text()
    project.source_path.write_text(whole.partition("  item:\n")[0])
    add_tree(project.connection, [str(uuid.uuid4()) for _ in range(3)])
    project.apply()
    settings = project.settings
    endpoints = (settings.kafka(), settings.control().url, None)
    owner = Owner(endpoints, project.name, "alone", SourceMetrics(Metrics(), project.name))
    owner.start()
    try:
        wait_until(lambda: len(histories(project, ("instance", "holdings"))) == 2, "the first snapshot")
        project.execute(
            "INSERT INTO instance (id, hrid, title, source, instance_type)"
            f" SELECT gen_random_uuid(), 'i' || g, 'T', 'MARC', 'text' FROM generate_series(1, {BATCH_RECORDS_MAX}) g"
        )
        project.source_path.write_text(whole)
        assert rowcast(project, "sources", "remove", project.name, "--yes").returncode == 0
        project.apply()
        wait_agreement(project, 60)
    finally:
        owner.stop()
        owner.join(30)


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_was_streamed_before_a_new_snapshot_goes_out_as_it_was(project: TestProject, workers: WorkerPool) -> None:
    """A worker that finds both in one batch of the log publishes the update first; the snapshot finds no news."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    add_tree(project.connection, ids)
    project.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_agreement(project)
    worker.kill()
    project.execute("UPDATE item SET status = 'Missing'")
    project.change_log(lambda values: any(value.get("op") == "u" for value in values))
    assert rowcast(project, "sources", "remove", project.name, "--yes").returncode == 0
    project.apply()
    workers.start().wait_owned()
    wait_agreement(project)
    kinds = {events[0].identity.id_text: [event.kind for event in events] for events in histories(project).values()}
    assert kinds == {
        ids[0]: [EventKind.SNAPSHOT],
        ids[1]: [EventKind.SNAPSHOT],
        ids[2]: [EventKind.SNAPSHOT, EventKind.UPDATED],
    }
