"""More than fits into memory at once: large transactions, and parents with many descendants."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, add_tree, histories, read_topics, wait_agreement, wait_published

SLOW = pytest.mark.slow
TAKEOVER_S = 30
# More than are worked through in memory (DESCENDANTS_MAX).
ITEMS = 6_000
MANY = 100_000
# What a chunk and what it is made of take; a hundred thousand aggregates at once would take several times that.
GROWTH_MB_MAX = 80
MANY_S = 300


def new_ids() -> list[str]:
    return [str(uuid.uuid4()) for _ in range(3)]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("", marks=pytest.mark.matrix),
        "in_commit=kill@8",
        *(pytest.param(each, marks=SLOW) for each in ("in_staging=kill@2",)),
        pytest.param("after_publish=kill@3", marks=pytest.mark.matrix),
    ],
)
def test_a_transaction_too_large_for_memory_is_staged_and_gives_one_event_for_each_aggregate(
    project: TestProject, workers: WorkerPool, step: str
) -> None:
    """Its events go out after END in chunks; a kill while they do repeats nothing, and forgets no moved parent's."""
    project.apply()
    moved, ids = new_ids(), new_ids()
    add_tree(project.connection, moved)
    first = workers.start(f"sequencer.{step}" if step else "")
    first.wait_owned()
    wait_until(lambda: len(read_topics(project)) == 3, "the first events", 30)
    with project.connection.transaction():
        add_tree(project.connection, ids)
        project.execute("UPDATE holdings SET instance_id = %s WHERE id = %s", ids[0], moved[1])
        project.execute(
            "INSERT INTO instance (id, hrid, title, source, instance_type)"
            " SELECT gen_random_uuid(), 'bulk' || g, 'T' || g, 'MARC', 'text' FROM generate_series(1, 21000) g"
        )
        project.execute("UPDATE instance SET title = 'last' WHERE hrid LIKE 'bulk1%%'")
        project.execute("DELETE FROM instance WHERE hrid LIKE 'bulk2%%'")
    if step:
        assert first.wait_ended(60) == -9
        workers.start().wait_owned(TAKEOVER_S)
    # One for each row that is there now but the two that moved, whose item stays where it is and is corrected too.
    (count,) = project.execute("SELECT count(*) + 6 FROM instance").fetchone() or (0,)
    wait_until(lambda: len(read_topics(project)) >= count, "all events", 60)
    wait_agreement(project)

    assert len(read_topics(project)) == count
    with project.control() as control:
        assert control.execute("SELECT count(*) FROM rowcast.staged_change").fetchone() == (0,)
        assert control.execute("SELECT count(*) FROM rowcast.pending").fetchone() == (0,)


@SLOW
@pytest.mark.guarantee("Order per aggregate")
def test_a_large_transaction_that_is_delivered_again_changes_nothing(project: TestProject, workers: WorkerPool) -> None:
    """Whole, then from its middle, as a connector sends it that writes without Kafka transactions, or dies twice."""
    project.apply()
    worker = workers.start(settings={"ROWCAST_LIMITS": "transaction_changes=40,chunk_aggregates=25,descendants=60"})
    worker.wait_owned()
    with project.connection.transaction():
        xid = str((project.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",))[0])
        for _ in range(30):
            add_tree(project.connection, new_ids())
    project.execute("UPDATE item SET status = 'Missing'")
    wait_until(lambda: len(read_topics(project)) >= 120, "the events of both", 60)

    log = project.change_log(lambda values: any(id_of(each) == xid and each.get("status") == "END" for each in values))
    sent = [each for each in log if id_of(each) == xid]
    assert len(sent) == 92
    producer = Producer({"bootstrap.servers": project.stack.brokers})
    for each in [*sent, *sent[30:]]:
        producer.produce(f"{project.name}.changes", orjson.dumps(each), partition=0)
    assert producer.flush(30) == 0
    with project.connection.transaction():
        project.execute("UPDATE instance SET title = 'again'")
        project.execute("UPDATE holdings SET hrid = hrid || '!'")
    wait_until(lambda: len(read_topics(project)) >= 180, "the events of the next large one", 60)
    wait_agreement(project)
    assert len(read_topics(project)) == 180
    assert {events[-1].version for events in histories(project).values()} == {2}


def id_of(value: dict[str, Any]) -> str:
    """The xid of a record of the change log."""
    return str((value.get("transaction") or value).get("id", "")).partition(":")[0]


@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.parametrize(
    "step",
    [
        pytest.param("", marks=pytest.mark.matrix),
        "after_publish=kill@3",
        pytest.param("in_commit=kill@3", marks=pytest.mark.matrix),
    ],
)
def test_a_moved_parent_of_many_corrects_all_of_them_in_chunks(
    project: TestProject, workers: WorkerPool, step: str
) -> None:
    """Each descendant gets one event of the move's transaction, whatever chunk the worker dies in."""
    old, new = new_ids(), new_ids()
    add_tree(project.connection, old)
    add_tree(project.connection, new)
    project.execute(
        "INSERT INTO item (id, hrid, holdings_id, material_type, status)"
        f" SELECT gen_random_uuid(), 'x' || g, %s, 'book', 'Available' FROM generate_series(1, {ITEMS}) g",
        old[1],
    )
    project.apply()
    first = workers.start()
    first.wait_owned()
    wait_agreement(project, 60)
    first.process.terminate()
    first.wait_ended()
    before = len(read_topics(project))
    moving = workers.start(f"sequencer.{step}" if step else "")
    moving.wait_owned()
    with project.connection.transaction():
        project.execute("UPDATE item SET status = 'Missing' WHERE id = %s", old[2])
        project.execute("UPDATE holdings SET instance_id = %s WHERE id = %s", new[0], old[1])
        project.execute("UPDATE item SET status = 'Missing' WHERE id = %s", new[2])
    if step:
        assert moving.wait_ended(60) == -9
        workers.start().wait_owned(TAKEOVER_S)
    count = before + ITEMS + 3
    wait_until(lambda: len(read_topics(project)) >= count, "all events", 60)
    wait_agreement(project)

    assert len(read_topics(project)) == count
    moved = [events[-1] for events in histories(project).values() if events[-1].version == 2]
    assert {event.position for event in moved} == {moved[0].position}
    below = [event for event in moved if event.identity.aggregate == "item" and event.identity.id_text != new[2]]
    assert len(below) == ITEMS + 1
    for event in below:
        assert event.ancestors == {"holdings": [old[1]], "instance": [new[0]]}
        assert event.before is not None
        assert event.before["ancestors"] == {"holdings": [old[1]], "instance": [old[0]]}


@pytest.mark.matrix
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_parent_of_a_hundred_thousand_moves_in_little_memory_and_others_wait_for_it_only_so_long(
    project: TestProject, workers: WorkerPool
) -> None:
    """One event for each child, also when the worker dies between two chunks; what was committed behind it follows."""
    old, new, other = new_ids(), new_ids(), new_ids()
    for ids in (old, new, other):
        add_tree(project.connection, ids)
    project.apply()
    first = workers.start()
    first.wait_owned()
    project.execute(
        "INSERT INTO item (id, hrid, holdings_id, material_type, status)"
        f" SELECT gen_random_uuid(), 'x' || g, %s, 'book', 'Available' FROM generate_series(1, {MANY}) g",
        old[1],
    )
    wait_published(project, "item", 1, MANY + 3, MANY_S)
    first.process.terminate()
    first.wait_ended()
    moving = workers.start("sequencer.after_publish=kill@20")
    moving.wait_owned()
    project.execute("UPDATE holdings SET instance_id = %s WHERE id = %s", new[0], old[1])
    project.execute("UPDATE instance SET title = 'behind it' WHERE id = %s", other[0])
    assert moving.wait_ended(MANY_S) == -9
    last = workers.start()
    last.wait_owned(TAKEOVER_S)
    before_mb = last.memory_mb("VmRSS")
    wait_published(project, "instance", 2, 1, MANY_S)
    wait_published(project, "item", 2, MANY + 1, 10)
    grown_mb = last.memory_mb("VmHWM") - before_mb

    print(f"the worker grew by {grown_mb:.0f} MiB")
    assert grown_mb < GROWTH_MB_MAX
    moved = [events for events in histories(project).values() if events[-1].ancestors.get("holdings") == [old[1]]]
    assert len(moved) == MANY + 1
    assert {len(events) for events in moved} == {2}
    assert {(events[-1].position, tuple(events[-1].ancestors["instance"] or ())) for events in moved} == {
        (moved[0][-1].position, (new[0],))
    }
