"""What stops a source, that it stays stopped, and what brings it back."""

from __future__ import annotations

import uuid

import orjson
import pytest
from kafka.admin import KafkaAdminClient, NewTopic
from stack_fixture import TestProject, wait_until
from worker_fixture import Worker, WorkerPool, add_tree, read_topics, rowcast, wait_agreement


def add_trees(project: TestProject, count: int) -> None:
    for _ in range(count):
        add_tree(project.connection, [str(uuid.uuid4()) for _ in range(3)])


def stopped_code(project: TestProject) -> str | None:
    with project.control() as control:
        row = control.execute("SELECT stopped_code FROM rowcast.source WHERE status = 'stopped'").fetchone()
    return None if row is None else str(row[0])


def committed_ends(project: TestProject) -> dict[str, dict[str, int]]:
    """The end offsets of the domain topics that the control database holds."""
    with project.control() as control:
        row = control.execute("SELECT end_offsets FROM rowcast.source").fetchone()
    return dict(orjson.loads(row[0])) if row else {}


def running_worker(project: TestProject, workers: WorkerPool, failpoints: str = "") -> Worker:
    project.apply()
    worker = workers.start(failpoints)
    worker.wait_owned()
    return worker


@pytest.mark.guarantee("Nothing committed is lost")
def test_the_third_unexpected_error_at_one_offset_stops_the_source_until_resume(
    project: TestProject, workers: WorkerPool
) -> None:
    """Three tries, then a stop that outlives the worker; after resume everything comes, once."""
    worker = running_worker(project, workers, "sequencer.before_publish=error@1-99")
    add_trees(project, 2)
    wait_until(lambda: stopped_code(project) == "UNEXPECTED_ERROR", "the stop")
    assert [b"try %d" % number in worker.log.read_bytes() for number in (2, 3, 4)] == [True, True, False]
    wait_until(lambda: worker.get("/health").status_code == 503, "the health page says so")
    assert 'rowcast_stopped{code="UNEXPECTED_ERROR"' in worker.get("/metrics").text
    assert f"; remedy: rowcast sources resume {project.name}\n" in worker.log.read_text().replace(" \n", "\n")

    worker.kill()
    second = workers.start()
    wait_until(lambda: second.get("/health").json()["owned"] == [project.name], "the takeover", 30)
    wait_until(lambda: second.get("/health").status_code == 503, "the new owner keeps it stopped")
    add_trees(project, 1)
    assert stopped_code(project) == "UNEXPECTED_ERROR"
    assert read_topics(project) == []

    resumed = rowcast(project, "sources", "resume", project.name)
    assert (resumed.returncode, "was UNEXPECTED_ERROR" in resumed.stdout) == (0, True)
    wait_agreement(project)
    wait_until(lambda: second.get("/health").status_code == 200, "the health page says so")
    assert rowcast(project, "sources", "resume", project.name).returncode == 1


@pytest.mark.slow
def test_a_domain_topic_that_lost_its_events_stops_the_source(project: TestProject, workers: WorkerPool) -> None:
    """A topic that ends before what was written to it is named; nothing is numbered on top of the hole."""
    worker = running_worker(project, workers)
    add_trees(project, 3)
    wait_agreement(project)
    topic = f"{project.name}.item.v1"
    wait_until(lambda: sum(committed_ends(project)[topic].values()) >= 3, "the committed end of the topic")
    worker.kill()
    admin = project.admin()
    try:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), "the topic is gone")
        wait_until(lambda: _created(admin, topic), "the topic is there again")
    finally:
        admin.close()
    workers.start()
    wait_until(lambda: stopped_code(project) == "DOMAIN_TOPIC_TRUNCATED", "the stop", 40)


def _created(admin: KafkaAdminClient, topic: str) -> bool:
    # The broker deletes in the background and refuses the name until it has.
    answers = admin.create_topics([NewTopic(topic, 6, 1)], raise_errors=False)
    return topic in admin.list_topics() and answers is not None


@pytest.mark.guarantee("Order per aggregate")
def test_a_topic_without_a_stored_end_is_read_back_from_its_beginning(
    project: TestProject, workers: WorkerPool
) -> None:
    """What it holds already is not published a second time, and the versions go on above it."""
    worker = running_worker(project, workers)
    add_trees(project, 3)
    wait_agreement(project)
    worker.kill()
    before = len(read_topics(project))
    ends = committed_ends(project)
    del ends[f"{project.name}.item.v1"]
    with project.control() as control:
        control.execute("UPDATE rowcast.source SET end_offsets = %s", (orjson.dumps(ends).decode(),))
    workers.start().wait_owned()
    project.execute("UPDATE item SET status = 'Missing'")
    wait_agreement(project)
    assert len(read_topics(project)) == before + 3


def test_heartbeats_of_others_are_ignored(project: TestProject, workers: WorkerPool) -> None:
    """Every role of the database may emit messages: what is not our heartbeat changes nothing."""
    running_worker(project, workers)
    foreign = orjson.dumps({"source": "another", "at": "2001-01-01T00:00:00Z"}).decode()
    for content in ("garbage", "[]", '{"at": 5}', f'{{"source": "{project.name}", "at": "never"}}', foreign):
        project.execute("SELECT pg_logical_emit_message(true, 'rowcast.heartbeat', %s)", content)
    add_trees(project, 1)
    wait_agreement(project)
    with project.control() as control:
        query = "SELECT heartbeat FROM rowcast.source WHERE heartbeat IS NOT NULL"
        (text,) = wait_until(lambda: control.execute(query).fetchone(), "a heartbeat")
    assert orjson.loads(text)["source"] == project.name
    assert orjson.loads(text)["at"] > "2002"


@pytest.mark.slow
def test_a_position_that_leaves_the_window_is_named_in_time(project: TestProject, workers: WorkerPool) -> None:
    """The alarm comes at half of the window, while the change log still has what was not processed."""
    lines = project.source_path.read_text().replace("change_log: 7d", "change_log: 16s")
    project.source_path.write_text(lines + "allow_short_windows: true\n")
    worker = running_worker(project, workers, "sequencer.before_publish=error@1-99")
    add_trees(project, 1)
    wait_until(lambda: stopped_code(project) == "UNEXPECTED_ERROR", "the stop")

    def named() -> bool:
        status = rowcast(project, "sources", "status", "--json")
        return "POSITION_LEAVES_WINDOW" in {
            each["code"] for each in orjson.loads(status.stdout)["sources"][0]["problems"]
        }

    assert not named()
    wait_until(named, "the problem", 20)
    wait_until(lambda: b"POSITION_LEAVES_WINDOW" in worker.log.read_bytes(), "the worker's warning")
    age = next(line for line in worker.get("/metrics").text.splitlines() if line.startswith("rowcast_change_log_age"))
    assert float(age.split()[-1]) > 8
    # Another worker takes the stopped source over, and goes on warning.
    worker.kill()
    second = workers.start()
    wait_until(lambda: b"POSITION_LEAVES_WINDOW" in second.log.read_bytes(), "the second worker's warning", 30)
    rowcast(project, "sources", "resume", project.name)
    wait_agreement(project)
    assert not named()
