"""The worker on the real stack: snapshot and stream, crashes at every step, takeover, refusals, stops."""

from __future__ import annotations

import time
import uuid

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition
from stack_fixture import TestProject, wait_until
from worker_fixture import (
    Load,
    WorkerPool,
    add_tree,
    differences,
    histories,
    read_events,
    read_topics,
    rowcast,
    wait_agreement,
)

from rowcast.event import EventKind

STEPS = ("before_publish", "in_publish", "after_publish", "in_commit", "after_commit")
QUICK_STEPS = ("after_publish", "in_commit")
SLOW = pytest.mark.slow
TAKEOVER_S = 30


def new_ids() -> list[str]:
    return [str(uuid.uuid4()) for _ in range(3)]


def fill(project: TestProject, trees: int) -> None:
    for _ in range(trees):
        add_tree(project.connection, new_ids())


@pytest.mark.guarantee("Nothing committed is lost")
def test_existing_rows_come_as_snapshots_and_the_stream_follows_without_gap(
    project: TestProject, workers: WorkerPool
) -> None:
    """Rows before capture are version 1 of kind snapshot, parents first; live changes go on with version 2."""
    fill(project, 40)
    load = Load(project, seed=1)
    load.start()
    project.apply()
    workers.start()
    wait_until(lambda: any(e.kind == EventKind.UPDATED for e in read_events(project)), "streamed events", 40)
    load.finish()
    wait_agreement(project)

    first = [events[0] for events in histories(project).values()]
    assert {e.kind for e in first} == {EventKind.SNAPSHOT, EventKind.CREATED}
    assert sum(e.kind == EventKind.SNAPSHOT for e in first) >= 120


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("step", [step if step in QUICK_STEPS else pytest.param(step, marks=SLOW) for step in STEPS])
def test_a_worker_killed_at_any_step_loses_and_repeats_nothing(
    project: TestProject, workers: WorkerPool, step: str
) -> None:
    """Whatever line the worker dies at, the next one leaves dense versions and the true last state."""
    project.apply()
    first = workers.start(f"sequencer.{step}=kill@4")
    first.wait_owned()
    load = Load(project, seed=STEPS.index(step))
    load.start()
    assert first.wait_ended(60) == -9
    second = workers.start()
    second.wait_owned(TAKEOVER_S)
    wait_until(lambda: load.transactions > 100, "enough load")
    load.finish()
    wait_agreement(project)


def appended_and_not_committed_ms(project: TestProject) -> list[int]:
    """When the records behind the committed end offsets were appended, in ms since 1970."""
    with project.control() as control:
        (text,) = control.execute("SELECT end_offsets FROM rowcast.source").fetchone() or ("",)
    ends = {
        TopicPartition(topic, int(partition)): offset
        for topic, offsets in orjson.loads(text).items()
        for partition, offset in offsets.items()
    }
    consumer = KafkaConsumer(bootstrap_servers=project.stack.brokers, isolation_level="read_committed")
    try:
        consumer.assign(list(ends))
        for partition, offset in ends.items():
            consumer.seek(partition, offset)
        last, found = consumer.end_offsets(list(ends)), list[int]()

        def is_read() -> bool:
            found.extend(each.timestamp for records in consumer.poll(1_000).values() for each in records)
            return all(consumer.position(partition) >= offset for partition, offset in last.items())

        wait_until(is_read, "the records behind the committed ends")
        return found
    finally:
        consumer.close(autocommit=False)


@pytest.mark.slow
@pytest.mark.guarantee("Effects exactly once")
def test_two_batches_published_before_the_first_is_committed_are_repeated_by_nobody(
    project: TestProject, workers: WorkerPool
) -> None:
    """A batch goes out while the one before it is being committed; a worker that dies then leaves both."""
    project.apply()
    first = workers.start("sequencer.in_commit=sleep:1@2-99,sequencer.after_publish=kill@6")
    first.wait_owned()
    load = Load(project, seed=8)
    load.start()
    assert first.wait_ended(60) == -9
    appended_ms = appended_and_not_committed_ms(project)
    assert max(appended_ms) - min(appended_ms) > 500, "one batch alone was behind"
    workers.start().wait_owned(TAKEOVER_S)
    wait_until(lambda: load.transactions > 100, "enough load")
    load.finish()
    wait_agreement(project)


@pytest.mark.slow
@pytest.mark.guarantee("Effects exactly once")
def test_a_worker_killed_while_it_claims_what_another_left_half_done_changes_nothing(
    project: TestProject, workers: WorkerPool
) -> None:
    """Published, not committed, claimed, killed again: the third one finds the same and repeats nothing."""
    project.apply()
    fill(project, 3)
    assert workers.start("sequencer.after_publish=kill@1").wait_ended(60) == -9
    published = read_topics(project)
    assert workers.start("sequencer.in_claim=kill").wait_ended(60) == -9
    workers.start().wait_owned(TAKEOVER_S)
    fill(project, 1)
    wait_agreement(project)
    assert len(read_topics(project)) == 12
    assert {record.key for record in published} <= {record.key for record in read_topics(project)}


@pytest.mark.guarantee("Any instance may die")
def test_a_standby_idle_for_longer_than_any_interval_takes_over_within_30_s(
    project: TestProject, workers: WorkerPool
) -> None:
    """The standby needs no partition and no group, so it is there when the owner is killed."""
    project.apply()
    owner = workers.start()
    owner.wait_owned()
    standby = workers.start()
    fill(project, 3)
    wait_agreement(project)
    idle_since = time.monotonic()
    wait_until(lambda: standby.get("/health").ok and time.monotonic() - idle_since > 12, "12 idle seconds", 30)
    assert standby.get("/health").json()["owned"] == []
    load = Load(project, seed=3)
    load.start()
    owner.kill()
    killed_s = time.monotonic()
    standby.wait_owned(TAKEOVER_S)
    assert time.monotonic() - killed_s < TAKEOVER_S
    wait_until(lambda: load.transactions > 100, "load after the takeover")
    load.finish()
    wait_agreement(project)


@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize("step", ["in_publish", pytest.param("after_publish", marks=pytest.mark.matrix), "in_commit"])
def test_a_frozen_worker_delays_by_at_most_30_s_and_does_no_harm_when_woken(
    project: TestProject, workers: WorkerPool, step: str
) -> None:
    """Frozen with undelivered records, or inside the control database's transaction, it is fenced."""
    project.apply()
    frozen = workers.start(f"sequencer.{step}=stop@3")
    frozen.wait_owned()
    load = Load(project, seed=10 + len(step))
    load.start()
    frozen.wait_stopped()
    frozen_s = time.monotonic()
    standby = workers.start()
    standby.wait_owned(TAKEOVER_S)
    before = len(read_topics(project))
    wait_until(lambda: len(read_topics(project)) > before, "events of the new owner", TAKEOVER_S)
    assert time.monotonic() - frozen_s < TAKEOVER_S
    frozen.resume()
    lost = b"rowcast_session_faults_total"
    wait_until(lambda: lost in frozen.get("/metrics").content, "the woken worker noticed its loss")
    wait_until(lambda: load.transactions > 150, "load after the wake-up")
    load.finish()
    wait_agreement(project)
    wait_until(lambda: frozen.get("/health").json()["owned"] == [], "the woken worker let go")


@pytest.mark.guarantee("Order per aggregate")
def test_a_mapping_changed_between_publish_and_commit_gives_no_two_contents_for_one_id(
    project: TestProject, workers: WorkerPool
) -> None:
    """The published versions stand, and the new mapping numbers on above them."""
    project.apply()
    fill(project, 1)
    first = workers.start("sequencer.after_publish=kill@1")
    assert first.wait_ended(60) == -9
    published = {(record.key, dict(record.headers)["ce_id"]): record for record in read_topics(project)}
    assert len(published) == 3
    lines = project.source_path.read_text()
    table = "table: public.instance\n"
    project.source_path.write_text(lines.replace(table, f"{table}    fields: {{title: hrid}}\n"))
    assert project.apply()
    workers.start().wait_owned()
    wait_until(lambda: len(read_topics(project)) > 3, "the correcting event")

    after = read_topics(project)
    assert {(r.key, dict(r.headers)["ce_id"]): r for r in after if (r.key, dict(r.headers)["ce_id"]) in published} == (
        published
    )
    (instance,) = [events for events in histories(project).values() if events[0].identity.aggregate == "instance"]
    assert [event.version for event in instance] == [1, 2]
    assert instance[1].after is not None
    assert instance[1].after["title"] == instance[1].after["hrid"]


@pytest.mark.guarantee("Contracts hold")
def test_a_refused_aggregate_is_listed_shown_and_retried_and_others_go_on(
    project: TestProject, workers: WorkerPool
) -> None:
    """What the contract rejects takes no version; after the mend a retry publishes the current state."""
    project.apply()
    worker = workers.start()
    worker.wait_owned()
    ids, others = new_ids(), new_ids()
    with project.connection.transaction():
        project.execute(
            "INSERT INTO instance (id, hrid, title, source, instance_type, contributors)"
            " VALUES (%s, 'bad', 'T', 'MARC', 'text', '[{\"name\": 5}]')",
            ids[0],
        )
        add_tree(project.connection, others)
    wait_until(lambda: len(read_topics(project)) == 3, "the other events")
    wait_until(lambda: f"refused instance {ids[0]}" in worker.log.read_text(), "the warning")
    listed = rowcast(project, "refused", "list", "--json")
    (refused,) = orjson.loads(listed.stdout)
    shown = rowcast(project, "refused", "show", project.name, "instance", ids[0], "--json")
    again = rowcast(project, "refused", "retry", project.name, "instance", ids[0])

    assert listed.returncode == 1
    assert (refused["id"], refused["version"]) == (ids[0], 0)
    assert "contributors" in refused["reason"]
    assert orjson.loads(shown.stdout)["record"]["hrid"] == "bad"
    assert again.returncode == 1
    assert "still refused" in again.stdout

    project.execute("UPDATE instance SET contributors = '[]' WHERE id = %s", ids[0])
    wait_until(lambda: len(read_topics(project)) == 4, "the closing event")
    assert rowcast(project, "refused", "list").returncode == 0
    wait_agreement(project)


def test_truncate_gives_an_event_for_each_aggregate(project: TestProject, workers: WorkerPool) -> None:
    """Every aggregate of a truncated table ends with deleted, and what is inserted after it stands, also by old ids."""
    project.apply()
    workers.start().wait_owned()
    fill(project, 5)
    again, ids = new_ids(), new_ids()
    add_tree(project.connection, again)
    wait_agreement(project)
    with project.connection.transaction():
        project.execute("TRUNCATE item")
        add_tree(project.connection, ids)
        project.execute(
            "INSERT INTO item (id, hrid, holdings_id, material_type, status) VALUES (%s, 'again', %s, 'map', 'Lost')",
            again[2],
            again[1],
        )
    wait_agreement(project)

    deleted = [event for event in read_events(project) if event.kind == EventKind.DELETED]
    assert len(deleted) == 5
    assert {event.identity.aggregate for event in deleted} == {"item"}
    # The state behind the events is right too: a moved parent needs it.
    project.execute("UPDATE holdings SET instance_id = %s WHERE id = %s", ids[0], again[1])
    wait_agreement(project)


def test_health_and_metrics_tell_what_the_worker_does(project: TestProject, workers: WorkerPool) -> None:
    """Rows, events, refusals, position and stage times are there, on loopback."""
    project.apply()
    worker = workers.start()
    worker.wait_owned()
    fill(project, 2)
    wait_agreement(project)
    # Counted when it is committed, which is a moment after it can be read.
    counted = f'rowcast_events_total{{source="{project.name}"}} 6.0'
    wait_until(lambda: counted in worker.get("/metrics").text, "the count of the events")
    metrics = worker.get("/metrics").text

    assert worker.get("/health").json()["owned"] == [project.name]
    for name in ("rows_total", "refusals_total", "position_timestamp_seconds", "stage_seconds_bucket"):
        assert f"rowcast_{name}" in metrics


def test_a_worker_without_a_source_says_that_it_waits(project: TestProject, workers: WorkerPool) -> None:
    """Nothing applied, or everything owned by others: one line each, and it goes on by itself."""
    worker = workers.start()
    wait_until(lambda: "no source is applied; waiting" in worker.log.read_text(), "the line")
    project.apply()
    worker.wait_owned()
    second = workers.start()
    wait_until(lambda: "every source is owned by another worker; standing by" in second.log.read_text(), "the line")
    worker.process.terminate()
    second.wait_owned()
    assert worker.log.read_text().count("waiting") == 1
    assert second.log.read_text().count("standing by") == 1


@pytest.mark.slow
def test_a_foreign_record_on_a_domain_topic_stops_the_source(project: TestProject, workers: WorkerPool) -> None:
    """Only the owner appends: anything else is named, and nothing is published on top of it."""
    from confluent_kafka import Producer

    project.apply()
    producer = Producer({"bootstrap.servers": project.stack.brokers})
    worker = workers.start()
    worker.wait_owned()
    worker.kill()
    producer.produce(f"{project.name}.item.v1", key=b"x", value=b"{}")
    assert producer.flush(10) == 0
    second = workers.start()
    wait_until(lambda: b"FOREIGN_WRITER" in second.log.read_bytes(), "the stop", 40)

    with project.control() as control:
        row = control.execute("SELECT status, stopped_code, holder IS NOT NULL FROM rowcast.source").fetchone()
    assert row == ("stopped", "FOREIGN_WRITER", True)
    assert second.get("/health").status_code == 503


def test_a_worker_told_to_stop_leaves_at_once_and_gives_its_sources_up(
    project: TestProject, workers: WorkerPool
) -> None:
    """SIGTERM ends the worker in an orderly way, and the next one need not wait for the lease."""
    project.apply()
    worker = workers.start()
    worker.wait_owned()
    worker.process.terminate()
    assert worker.wait_ended(15) == 0

    with project.control() as control:
        assert control.execute("SELECT holder FROM rowcast.source").fetchone() == (None,)


def test_an_unexpected_error_is_counted_and_tried_again_without_loss(project: TestProject, workers: WorkerPool) -> None:
    """An error before and after publishing is counted at its offset, and the next try publishes everything once."""
    project.apply()
    worker = workers.start("sequencer.before_publish=error@1,sequencer.after_publish=error@1")
    worker.wait_owned()
    fill(project, 2)
    wait_agreement(project)

    assert b"try 1" in worker.log.read_bytes()
    assert not differences(project)
