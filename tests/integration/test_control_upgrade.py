"""A control database that an older version has worked with, and the worker that goes on with it."""

from __future__ import annotations

import pytest
from stack_fixture import TestProject
from worker_fixture import WorkerPool, add_tree, histories, wait_agreement

from rowcast.event import EventKind

# What migration 0008 added.
UNDO = """
ALTER TABLE rowcast.aggregate DROP COLUMN majors;
ALTER TABLE rowcast.source DROP COLUMN live_majors, DROP COLUMN opening;
DELETE FROM rowcast.migration WHERE name LIKE '0008%'
"""


@pytest.mark.slow
@pytest.mark.guarantee("Order per aggregate")
def test_a_state_from_before_several_majors_goes_on_without_an_opening(
    project: TestProject, workers: WorkerPool
) -> None:
    """The one major that each type had is what it still has: no aggregate gets an event but the one that changes."""
    ids = ["1", "2", "3"]
    add_tree(project.connection, [f"00000000-0000-4000-8000-00000000000{each}" for each in ids])
    project.apply()
    worker = workers.start()
    wait_agreement(project)
    worker.kill()
    former = {name: len(events) for name, events in histories(project).items()}
    with project.control() as control:
        control.execute(UNDO)

    assert [each.action for each in project.plan()] == ["alter"]
    project.apply()
    workers.start()
    project.execute("UPDATE instance SET title = 'Another'")
    wait_agreement(project)

    new = {name: events[former[name] :] for name, events in histories(project).items()}
    assert [event.kind for events in new.values() for event in events] == [EventKind.UPDATED]
