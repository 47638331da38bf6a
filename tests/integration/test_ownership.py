"""Leases and fences in a real control database."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from stack_fixture import TestProject, wait_until

from rowcast.database import connect, unavailable_when_broken
from rowcast.errors import DatabaseUnavailableError, OwnershipLostError
from stream_app.contract import compile_validators
from stream_app.core.change import Operation, RowChange
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.lease import application, claim, held, read_definition, renew
from stream_app.metrics import Metrics, SourceMetrics
from stream_app.owner import Owner
from stream_app.staging import Staging
from stream_app.store import Ownership, Store


def claimed(connection: psycopg.Connection, project: TestProject, holder: str) -> Ownership:
    found = claim(connection, project.name, holder)
    assert found is not None
    return found[0]


def compiled(connection: psycopg.Connection, project: TestProject) -> SourceMapping:
    definition, _ = read_definition(connection, project.name)
    return compile_mapping(definition, compile_validators(definition))


def test_a_locked_source_row_neither_blocks_nor_loses_the_lease(project: TestProject) -> None:
    """While the owner's own commit holds the row, renewing passes it over at once and still owns it."""
    project.apply()
    with project.control() as control, project.control() as committing:
        claimed(control, project, "one")
        with committing.transaction():
            committing.execute("SELECT 1 FROM rowcast.source FOR UPDATE")
            started_s = time.monotonic()
            assert renew(control, project.name, "one") is None
            assert held(control, project.name, "one")
            assert time.monotonic() - started_s < 2
        assert renew(control, project.name, "one") is not None
        assert renew(control, project.name, "two") is None
        assert not held(control, project.name, "two")


def test_a_definition_that_an_older_version_applied_is_known_by_its_revision(project: TestProject) -> None:
    """What it reads back as has another one; the source would be claimed anew again and again."""
    project.apply()
    settings = project.settings
    endpoints = (settings.kafka(), settings.control().url, None)
    owner = Owner(endpoints, project.name, "alone", SourceMetrics(Metrics(), project.name))
    with project.control() as control:
        (text,) = control.execute("SELECT definition FROM rowcast.source").fetchone() or ("",)
        document = {**json.loads(text), "format": 2}
        for aggregate in document["aggregates"]:
            del aggregate["embedded"]
        control.execute("UPDATE rowcast.source SET definition = %s, revision = 'older'", (json.dumps(document),))
        owner.start()
        try:
            wait_until(lambda: owner.revision, "a claim")
            assert owner.revision == renewed_revision(control, project)
        finally:
            owner.stop()
            owner.join(30)


def renewed_revision(control: psycopg.Connection, project: TestProject) -> str:
    """What the supervisor compares it with."""
    kept = renew(control, project.name, "alone")
    assert kept is not None
    return kept[1]


@pytest.mark.guarantee("Any instance may die")
def test_an_owner_that_froze_inside_a_copy_loses_its_session_to_the_next_claim(project: TestProject) -> None:
    """The server would wait for the rest of the COPY, and the next owner for the row, until the statement times out."""
    project.apply()
    owner = connect(project.settings.control().url, application=application(project.name))
    with project.control() as control:
        claimed(control, project, "one")
        owner.execute("SELECT 1 FROM rowcast.source FOR UPDATE")
        owner.pgconn.exec_(b"COPY rowcast.pending FROM STDIN")
        pid = owner.info.backend_pid
        begun = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND query_start < clock_timestamp() - interval '9 s'"
        wait_until(lambda: control.execute(begun, (pid,)).fetchone(), "the lease runs out", 20)
        started_s = time.monotonic()
        claimed(control, project, "two")
        assert time.monotonic() - started_s < 5
        there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: control.execute(there, (pid,)).fetchone() is None, "the end of the session", 5)
    owner.pgconn.finish()


@pytest.mark.guarantee("Effects exactly once")
def test_a_former_owner_can_stage_clear_and_commit_nothing(project: TestProject) -> None:
    """Staged rows of a large transaction belong to the newest claim: an older one is turned away."""
    project.apply()
    row = {"id": "1", "hrid": "h", "title": "t", "source": "s", "instance_type": "text"}
    change = RowChange(Operation.CREATE, "public.instance", None, row, 7, 1, 100, 0)
    with project.control() as control:
        mapping = compiled(control, project)
        former = Staging(control, control, mapping, Store(control, claimed(control, project, "one"), mapping).hold)
        former.stage([(1, change)])
        control.execute("UPDATE rowcast.source SET lease_until = clock_timestamp()")
        newer = Staging(control, control, mapping, Store(control, claimed(control, project, "two"), mapping).hold)
        newer.clear()
        newer.stage([(2, change)])

        for attempt in (lambda: former.stage([(3, change)]), former.clear, former.apply_truncates):
            with pytest.raises(OwnershipLostError):
                attempt()
        query = "SELECT array_agg(ord) FROM rowcast.staged_change"
        assert control.execute(query).fetchone() == ([2],)


@pytest.mark.parametrize(
    ("statement", "transient"),
    [
        ("SELECT 'x'::int", False),
        ("SELECT 1 FROM nowhere", False),
        ("INSERT INTO rowcast.migration (name) SELECT name FROM rowcast.migration", False),
        ("DO $$ BEGIN RAISE SQLSTATE '54000'; END $$", False),
        ("SET statement_timeout = 1; SELECT pg_sleep(5)", True),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", True),
        ("DO $$ BEGIN RAISE SQLSTATE '53300'; END $$", True),
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
    ],
)
def test_errors_that_the_same_statement_meets_again_are_not_taken_for_an_outage(
    project: TestProject, statement: str, *, transient: bool
) -> None:
    """Data, names, constraints and limits stay what they are; time limits, conflicts and outages are transient."""
    project.apply()
    with (
        pytest.raises(DatabaseUnavailableError if transient else psycopg.Error),
        project.control() as control,
        unavailable_when_broken(control),
    ):
        control.execute(statement.encode())
