"""Sources on the real stack after they were applied: status, faults, recovery and removal."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest
from kafka.admin import ConfigResource
from source_fixture import ROW, connect, operations
from stack_fixture import TestProject, wait_until

from rowcast.cli.main import main
from rowcast.errors import ConfigurationError
from rowcast.sources.connector import connector_name, slot_name
from rowcast.sources.health import SourceStatus
from rowcast.sources.status import read_statuses

BIG = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n)"  # 16 kB that hardly compress


def status(project: TestProject) -> SourceStatus:
    (found,) = read_statuses(project.sources(), project.settings)
    return found


def codes(project: TestProject) -> set[str]:
    # No worker runs in these tests, and that is told too.
    return {problem.code for problem in status(project).problems} - {"NO_WORKER"}


def test_status_of_a_source_that_was_not_applied(project: TestProject) -> None:
    """Before apply everything is missing, and the remedy is to apply."""
    found = status(project)
    assert {"CONNECTOR_MISSING", "NOT_APPLIED", "SLOT_MISSING", "CHANGE_LOG_MISSING"} <= {
        p.code for p in found.problems
    }
    assert all("apply" in problem.remedy for problem in found.problems)


def test_status_of_a_running_source(project: TestProject, capsys: pytest.CaptureFixture[str]) -> None:
    """Connector, slot, lag and heartbeat are told as they are; only the worker is missed."""
    project.apply()
    wait_until(lambda: codes(project) == set(), "the source is healthy but for its worker")
    found = status(project)
    assert found.connector is not None
    assert found.connector.running
    assert found.slot is not None
    assert found.slot.active
    assert (found.slot.wal_status, found.slot.restart_lsn is not None) == ("reserved", True)
    assert found.lag_records == found.change_log_end
    assert found.heartbeat_age_s is not None
    assert found.heartbeat_age_s < 10
    assert main(["--project", str(project.folder), "sources", "status", "--json"]) == 1
    (document,) = json.loads(capsys.readouterr().out)["sources"]
    assert [problem["code"] for problem in document["problems"]] == ["NO_WORKER"]


def test_status_is_healthy_with_an_owner_that_moves(project: TestProject, capsys: pytest.CaptureFixture[str]) -> None:
    """With a lease that holds and a position that moves, status exits 0; a stopped source is told with its code."""
    project.apply()
    wait_until(lambda: codes(project) == set(), "the source is healthy but for its worker")
    command = ["--project", str(project.folder), "sources", "status"]
    with project.control() as control:
        control.execute(
            "UPDATE rowcast.source SET holder = 'w1', epoch = 1, lease_until = now() + interval '1 hour',"
            " next_offset = 3, position_at = now(), heartbeat = %s",
            (json.dumps({"at": datetime.now(UTC).isoformat()}),),
        )
        assert main(command) == 0
        assert "owned by w1, epoch 1" in capsys.readouterr().out
        control.execute(
            "UPDATE rowcast.source SET status = 'stopped', stopped_code = 'INTEGRITY', stopped_detail = 'x'"
        )
        assert main(command) == 1
        assert "INTEGRITY: the worker stopped the source: INTEGRITY: x" in capsys.readouterr().out
        late = json.dumps({"at": "2026-01-01T00:00:00.000000Z"})
        control.execute("UPDATE rowcast.source SET status = 'running', heartbeat = %s, next_offset = 999999", (late,))
        assert codes(project) == {"POSITION_OUTSIDE_LOG", "HEARTBEAT_DELAYED"}


def drop_slot(project: TestProject) -> None:
    query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"

    def dropped() -> bool:
        row = project.execute(query, slot_name(project.name)).fetchone()
        if row is not None and row[0] is not None:
            project.execute("SELECT pg_terminate_backend(%s)", row[0])
        try:
            project.execute("SELECT pg_drop_replication_slot(%s)", slot_name(project.name))
        except psycopg.errors.ObjectInUse:
            return False
        return True

    with connect(project) as client:
        client.stop(connector_name(project.name))
        # One that is still starting would make the slot again.
        client.wait_stopped(connector_name(project.name), 30)
    wait_until(dropped, "the slot is dropped")


def pause(project: TestProject) -> None:
    with connect(project) as client:
        client.stop(connector_name(project.name))


def delete_connector(project: TestProject) -> None:
    with connect(project) as client:
        client.delete(connector_name(project.name))


def drop_heartbeat_row(project: TestProject) -> None:
    project.execute("DELETE FROM rowcast.heartbeat")


FAULTS: dict[str, tuple[Callable[[TestProject], None], set[str]]] = {
    "slot gone": (drop_slot, {"SLOT_MISSING"}),
    "connector stopped": (pause, {"CONNECTOR_NOT_RUNNING", "SLOT_INACTIVE"}),
    "connector deleted": (delete_connector, {"CONNECTOR_MISSING", "SLOT_INACTIVE"}),
    "no heartbeat": (drop_heartbeat_row, {"HEARTBEAT_MISSING"}),
}


def unpublish(project: TestProject) -> None:
    project.execute(f"ALTER PUBLICATION rowcast_{project.name} DROP TABLE item")


def filter_rows(project: TestProject) -> None:
    tables = "instance, holdings, item WHERE (id IS NOT NULL)"
    project.execute(f"ALTER PUBLICATION rowcast_{project.name} SET TABLE {tables}")


def leave_out_an_operation(project: TestProject) -> None:
    project.execute(f"ALTER PUBLICATION rowcast_{project.name} SET (publish = 'insert, update, delete')")


def drop_table(project: TestProject) -> None:
    project.execute("DROP TABLE item")


NOT_CAPTURED: dict[str, tuple[Callable[[TestProject], None], str, str]] = {
    "table unpublished": (unpublish, "PUBLICATION_INCOMPLETE", "does not publish public.item"),
    "rows filtered": (filter_rows, "PUBLICATION_INCOMPLETE", "only some rows or columns of public.item"),
    "operation left out": (leave_out_an_operation, "PUBLICATION_INCOMPLETE", "does not publish every operation"),
    "table dropped": (drop_table, "TABLE_MISSING", "public.item"),
}


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("case", NOT_CAPTURED)
def test_status_names_what_is_not_captured_any_more(project: TestProject, case: str) -> None:
    """A declared table that is gone, or not published whole, is told at once, with the way to a new snapshot."""
    project.apply()
    assert codes(project) & {"PUBLICATION_INCOMPLETE", "TABLE_MISSING"} == set()
    lose, code, words = NOT_CAPTURED[case]
    lose(project)
    captured = ("PUBLICATION_INCOMPLETE", "TABLE_MISSING", "PUBLICATION_MISSING")
    (problem,) = [each for each in status(project).problems if each.code in captured]
    assert problem.code == code
    assert words in problem.message
    assert f"rowcast sources remove {project.name} --yes" in problem.remedy


def test_a_table_that_was_unpublished_comes_back_whole_with_a_new_snapshot(project: TestProject) -> None:
    """The remedy that status and apply give brings the row that was written meanwhile."""
    project.apply()
    project.execute(f"ALTER PUBLICATION rowcast_{project.name} DROP TABLE instance")
    project.execute(ROW, "in1")
    with pytest.raises(ConfigurationError, match="sources remove"):
        project.apply()
    assert main(["--project", str(project.folder), "sources", "remove", project.name, "--yes"]) == 0
    project.apply()
    project.change_log(lambda values: "r" in operations(values))
    assert codes(project) & {"PUBLICATION_INCOMPLETE", "TABLE_MISSING"} == set()


@pytest.mark.parametrize("case", FAULTS)
def test_status_names_what_is_wrong(project: TestProject, case: str) -> None:
    """Each fault shows under its code, whatever the connector says of itself."""
    project.apply()
    wait_until(lambda: codes(project) == set(), "the source is healthy but for its worker")
    break_it, expected = FAULTS[case]
    break_it(project)
    wait_until(lambda: expected <= codes(project), f"status tells {expected}")


def test_a_failed_connector_is_told_with_its_trace_and_restarted_by_apply(project: TestProject) -> None:
    """FAILED is never hidden: status shows the trace, plan the restart, apply restarts it."""
    project.apply()
    wait_until(lambda: codes(project) == set(), "the source is healthy but for its worker")
    table = f"{project.name}.changes"
    admin = project.admin()
    try:
        # A record that the topic refuses fails the task for good.
        admin.alter_configs([ConfigResource("TOPIC", table, {"max.message.bytes": "1000"})])
        project.execute(ROW.replace("'One'", BIG), "in1")
        wait_until(lambda: "CONNECTOR_FAILED" in codes(project), "the failure is told", 120)
    finally:
        admin.close()
    (problem,) = [problem for problem in status(project).problems if problem.code == "CONNECTOR_FAILED"]
    assert "RecordTooLarge" in problem.message
    changes = project.plan()
    assert [(change.action, change.area) for change in changes] == [("alter", "topics"), ("restart", "connect")]
    assert project.apply() == changes
    project.change_log(lambda values: "c" in operations(values), 90)


def test_removed_and_applied_again_takes_a_new_snapshot(project: TestProject) -> None:
    """Remove takes connector, offsets, slot and publication away; the next apply reads every row again."""
    project.execute(ROW, "in1")
    project.apply()
    project.change_log(lambda values: "r" in operations(values))
    command = ["--project", str(project.folder), "sources", "remove", project.name]
    assert main(command) == 1
    assert project.plan() == []
    assert main([*command, "--yes"]) == 0
    assert (
        project.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", slot_name(project.name)).fetchone()
        is None
    )
    assert main([*command, "--yes"]) == 0
    (problem,) = [each for each in status(project).problems if each.code == "NOT_APPLIED"]
    assert (problem.message, "apply" in problem.remedy) == ("the source was removed", True)
    changed = {change.object for change in project.apply()}
    assert changed == {
        f"row '{project.name}' of rowcast.heartbeat",
        f"publication rowcast_{project.name}",
        f"definition of {project.name}",
        f"connector rowcast-{project.name}",
    }
    project.change_log(lambda values: operations(values).count("r") == 2)


def test_a_source_without_a_file_is_told_and_can_be_removed(
    project: TestProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status names what was applied and has no file; remove works without it, and leaves nothing behind."""
    project.apply()
    wait_until(lambda: codes(project) == set(), "the source is healthy but for its worker")
    project.source_path.unlink()
    command = ["--project", str(project.folder), "sources"]
    for names in ([], [project.name]):
        assert main([*command, "status", *names, "--json"]) == 1
        (document,) = json.loads(capsys.readouterr().out)["sources"]
        assert document["source"] == project.name
        assert {each["code"] for each in document["problems"]} == {"FILE_MISSING", "NO_WORKER"}
        assert f"rowcast sources remove {project.name} --yes" in document["problems"][0]["remedy"]
        assert document["slot"]["active"]
    assert main([*command, "status", "nothing"]) == 2
    assert main([*command, "remove", project.name]) == 1
    assert f"database {project.name}" in capsys.readouterr().out
    assert main([*command, "remove", project.name, "--yes"]) == 0
    assert (
        project.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", slot_name(project.name)).fetchone()
        is None
    )
    assert project.execute("SELECT 1 FROM pg_publication").fetchone() is None
    with connect(project) as client:
        assert client.configuration(connector_name(project.name)) is None
    capsys.readouterr()
    assert main([*command, "status"]) == 2
    assert "no source file" in capsys.readouterr().err


def test_a_source_without_file_and_slot_needs_its_database_named(
    project: TestProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is guessed: without a slot to be seen the database is asked for, and a wrong one is refused."""
    project.apply()
    drop_slot(project)
    project.source_path.unlink()
    command = ["--project", str(project.folder), "sources"]
    assert main([*command, "status"]) == 1
    assert f"`rowcast sources remove {project.name} --database NAME --yes`" in capsys.readouterr().out
    assert main([*command, "remove", project.name, "--yes"]) == 2
    assert f"--database NAME; known: {project.name}" in capsys.readouterr().err
    assert main([*command, "remove", project.name, "--database", "rowcast", "--yes"]) == 2
    assert "was applied to database" in capsys.readouterr().err
    assert main([*command, "remove", project.name, "--database", project.name, "--yes"]) == 0
    assert project.execute("SELECT 1 FROM pg_publication").fetchone() is None


def test_a_control_database_of_an_older_version_is_told_as_such(project: TestProject) -> None:
    """Missing migrations are no missing source; and a source can be removed without them."""
    project.apply()
    with project.control() as control:
        control.execute("DELETE FROM rowcast.migration")
        (problem,) = [each for each in status(project).problems if each.code == "NOT_APPLIED"]
        assert "lacks migrations 0001_control.sql" in problem.message
        assert main(["--project", str(project.folder), "sources", "remove", project.name, "--yes"]) == 0
        assert control.execute("SELECT removed FROM rowcast.source").fetchone() == (True,)
