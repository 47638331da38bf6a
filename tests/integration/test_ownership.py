"""Leases and fences in a real control database."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import psycopg
import pytest
from stack_fixture import TestProject, wait_until

from rowcast.database import connect, unavailable_when_broken
from rowcast.errors import DatabaseUnavailableError, OwnershipLostError
from rowcast.sources.definition import SourceDefinition
from stream_app.contract import compile_validators
from stream_app.core.change import Operation, RowChange
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.state import ABSENT, AggregateState, Emptied, Key, Lookup, Refusal, View
from stream_app.core.statement import Statement
from stream_app.lease import application, claim, held, read_definition, renew
from stream_app.metrics import Metrics, SourceMetrics
from stream_app.owner import Owner
from stream_app.pending import Pending
from stream_app.position import Position, read_position
from stream_app.staging import Staging
from stream_app.state_reader import StateReader
from stream_app.stated import StatedEvents
from stream_app.step import Step
from stream_app.store import Ownership, Store

TRUNCATE = RowChange(Operation.TRUNCATE, "public.instance", None, None, 7, 0, 100, 0)
SLOW_STAGING = """
CREATE FUNCTION rowcast.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
CREATE TRIGGER slow BEFORE DELETE ON rowcast.staged_change EXECUTE FUNCTION rowcast.slow()
"""


def claimed(connection: psycopg.Connection, project: TestProject, holder: str) -> Ownership:
    found = claim(connection, project.name, holder)
    assert found is not None
    return found[0]


def compiled(connection: psycopg.Connection, project: TestProject) -> SourceMapping:
    definition, _ = read_definition(connection, project.name)
    return compile_mapping(definition, compile_validators(definition))


def store_of(connection: psycopg.Connection, project: TestProject, holder: str, mapping: SourceMapping) -> Store:
    _, revision = read_definition(connection, project.name)
    return Store(connection, claimed(connection, project, holder), mapping, revision)


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
@pytest.mark.parametrize("place", ["copy", "pipeline"])
def test_an_owner_that_froze_where_no_limit_counts_loses_its_session_to_the_next_claim(
    project: TestProject, place: str
) -> None:
    """
    The server would wait for the rest of a COPY until the statement times out, and behind a pipeline for ever; the next
    owner waits for the row.
    """
    project.apply()
    owner = connect(project.settings.control().url, application=application(project.name))
    with project.control() as control:
        claimed(control, project, "one")
        owner.execute("SELECT 1 FROM rowcast.source FOR UPDATE")
        if place == "copy":
            owner.pgconn.exec_(b"COPY rowcast.pending FROM STDIN")
        else:
            with owner.pipeline():
                owner.execute("SELECT 1")
        pid = owner.info.backend_pid
        # Whether the server counts behind a pipeline depends on how the bytes arrive: then it has ended the session.
        held_yet = (
            "SELECT 1 FROM rowcast.source WHERE source = %s AND lease_until > clock_timestamp() - interval '1 s'"
            " UNION ALL SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            " AND query_start > clock_timestamp() - interval '9 s'"
        )
        wait_until(lambda: control.execute(held_yet, (project.name, pid)).fetchone() is None, "the lease runs out", 20)
        started_s = time.monotonic()
        claimed(control, project, "two")
        assert time.monotonic() - started_s < 5
        there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: control.execute(there, (pid,)).fetchone() is None, "the end of the session", 5)
    owner.pgconn.finish()


def test_what_is_staged_may_take_longer_than_a_statement_may(project: TestProject) -> None:
    """Millions of rows: a worker whose time ran out would begin anew for ever."""
    project.apply()
    with project.control() as control:
        mapping = compiled(control, project)
        staging = Staging(control, mapping, store_of(control, project, "one", mapping).hold)
        staging.stage(staging.lines([(1, TRUNCATE)]))
        control.execute("SET statement_timeout = '500ms'")
        control.execute(SLOW_STAGING)
        try:
            assert staging.apply_truncates() == [Emptied("instance")]
            staging.clear()
        finally:
            control.execute("DROP TRIGGER slow ON rowcast.staged_change; DROP FUNCTION rowcast.slow")


@pytest.mark.guarantee("Effects exactly once")
def test_a_former_owner_can_stage_clear_and_commit_nothing(project: TestProject) -> None:
    """Staged rows of a large transaction belong to the newest claim: an older one is turned away."""
    project.apply()
    row = {"id": "1", "hrid": "h", "title": "t", "source": "s", "instance_type": "text"}
    change = RowChange(Operation.CREATE, "public.instance", None, row, 7, 1, 100, 0)
    with project.control() as control:
        mapping = compiled(control, project)
        former = Staging(control, mapping, store_of(control, project, "one", mapping).hold)
        former.stage(former.lines([(0, TRUNCATE), (1, change)]))
        control.execute("UPDATE rowcast.source SET lease_until = clock_timestamp()")
        newer = Staging(control, mapping, store_of(control, project, "two", mapping).hold)
        newer.clear()
        newer.stage(newer.lines([(2, change)]))

        for attempt in (lambda: former.stage(former.lines([(3, change)])), former.clear, former.apply_truncates):
            with pytest.raises(OwnershipLostError):
                attempt()
        query = "SELECT array_agg(ord) FROM rowcast.staged_change"
        assert control.execute(query).fetchone() == ([2],)


@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.parametrize("count", [3, 300])
def test_a_former_owner_commits_nothing_over_what_the_new_one_has_written(project: TestProject, count: int) -> None:
    """Few rows and many: it is turned away before the same rows are, because it is too late and not wrong."""
    project.apply()
    view = View()
    for number in range(count):
        key = Key("instance", f"{number:03}")
        view.aggregates[key] = ABSENT
        view.put_row(key, {"id": str(number), "title": "a\\b\tc\nd"}, None)
        view.put(
            key, AggregateState(1, None, True, b'{"after": "\\\\"}', Refusal("why\t", "{}", "2024-01-01T00:00Z", 7))
        )
    position = Position(change_log_topic_id="t", next_offset=5, commit_lsn=9, end_offsets={})
    with project.control() as control:
        mapping = compiled(control, project)
        former = store_of(control, project, "one", mapping)
        former.prepare()
        control.execute("UPDATE rowcast.source SET lease_until = clock_timestamp()")
        newer = store_of(control, project, "two", mapping)
        newer.commit(view, Step(generation=4), None, position)
        for after in (None, position):
            with pytest.raises(OwnershipLostError):
                former.commit(view, Step(), after, replace(position, next_offset=6))

        read = View()
        StateReader(control, mapping).load(Lookup(frozenset(view.aggregates)), read)
        assert read.rows == view.rows
        changed = {key: state._replace(refusal=None) for key, state in view.aggregates.items()}
        assert {key: state._replace(refusal=None) for key, state in read.aggregates.items()} == changed
        assert {state.refusal and state.refusal.reason for state in read.aggregates.values()} == {"why\t"}
        read.dirty, read.dirty_rows = view.dirty, view.dirty_rows
        newer.commit(read, Step(generation=5), position, replace(position, next_offset=6))
        counted = "SELECT count(*), min(generation), (SELECT count(*) FROM rowcast.aggregate) FROM rowcast.row_state"
        assert control.execute(counted).fetchone() == (count, 5, count)


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_small_batch_leaves_what_was_stated_and_children_for_chunks(project: TestProject) -> None:
    """What waits for chunks is committed with few rows as with many."""
    project.apply()
    key = Key("instance", "1")
    view = View()
    view.aggregates[key] = ABSENT
    view.put_row(key, {"id": "1"}, None)
    step = Step(pending=[key], pending_children=True, statements=[Statement(1, key, "noted", b"{}")])
    with project.control() as control:
        mapping = compiled(control, project)
        store = store_of(control, project, "one", mapping)
        store.commit(view, step, None, Position(change_log_topic_id="t", next_offset=5, commit_lsn=9, end_offsets={}))
        assert Pending(control, mapping).next(5, None) == [key]
        _, stated = StatedEvents(control, mapping).of([key])
        assert [(each.event, each.data) for each in stated[key]] == [("noted", b"{}")]


def test_a_commit_writes_what_is_new_alone(project: TestProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last heartbeat stays until there is another one, and nothing of a commit grows with the definition."""
    project.apply()
    first = Position(change_log_topic_id="t", next_offset=5, commit_lsn=9, end_offsets={}, heartbeat={"counter": 1})
    positions = [first, replace(first, next_offset=6), replace(first, next_offset=7, heartbeat={"counter": 2})]
    positions += [replace(positions[-1], next_offset=8), replace(first, next_offset=9, heartbeat=None)]
    with project.control() as control:
        store = store_of(control, project, "one", compiled(control, project))
        monkeypatch.setattr(SourceDefinition, "to_json", None)
        former = None
        for position in positions:
            store.commit(View(), Step(), former, position)
            former = position
            assert read_position(control, project.name) == position
        query = "SELECT revision = position_revision FROM rowcast.source WHERE source = %s"
        assert control.execute(query, (project.name,)).fetchone() == (True,)


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
