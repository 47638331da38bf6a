"""Plan and apply on the real stack: what is made, what is refused, what is mended, what is captured."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kafka import KafkaConsumer
from kafka.admin import ConfigResource
from psycopg.conninfo import conninfo_to_dict
from source_fixture import ROW, connect, is_beat, operations
from stack_fixture import SharedStack, TestProject, wait_until

from rowcast.cli.main import main
from rowcast.errors import ConfigurationError
from rowcast.sources.change_log_size import read_activity
from rowcast.sources.connector import connector_name, slot_name
from rowcast.sources.definition import SourceDefinition
from rowcast.topics import PROGRESS_TOPIC

HASHED_ITEM = (
    "DROP TABLE item; CREATE TABLE item (id uuid PRIMARY KEY, hrid text NOT NULL, holdings_id uuid NOT NULL,"
    " barcode text, material_type text NOT NULL, status text NOT NULL, price numeric(10,2),"
    " updated_at timestamptz NOT NULL DEFAULT now()) PARTITION BY HASH (id);"
    "CREATE TABLE item_0 PARTITION OF item FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
    "CREATE TABLE item_1 PARTITION OF item FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
)

EIGHT_ITEMS = (
    "INSERT INTO item SELECT gen_random_uuid(), 'it' || n, gen_random_uuid(), NULL, 'book', 'Available'"
    " FROM generate_series(1, 8) n"
)


def untouched(project: TestProject) -> bool:
    admin = project.admin()
    try:
        topics = [name for name in admin.list_topics() if name.startswith(project.name)]
    finally:
        admin.close()
    schema = project.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'rowcast'").fetchone()
    publication = project.execute("SELECT 1 FROM pg_publication").fetchone()
    return not topics and schema is None and publication is None


def test_apply_makes_what_plan_shows_and_nothing_twice(project: TestProject) -> None:
    """Plan lists every change and touches nothing; apply makes exactly those; afterwards both find nothing."""
    planned = project.plan()
    assert untouched(project)
    objects = [change.object for change in planned if change.object != f"topic {PROGRESS_TOPIC}"]
    assert objects == [
        "schema rowcast",
        "schema rowcast",
        "table rowcast.heartbeat",
        f"row '{project.name}' of rowcast.heartbeat",
        f"publication rowcast_{project.name}",
        f"topic {project.name}.changes",
        f"topic {project.name}.instance.v1",
        f"topic {project.name}.holdings.v1",
        f"topic {project.name}.item.v1",
        f"definition of {project.name}",
        f"connector rowcast-{project.name}",
    ]
    assert {change.action for change in planned} == {"create"}
    assert project.apply() == planned
    assert project.plan() == []
    assert project.apply() == []


def test_plan_tells_a_control_schema_that_is_made_from_one_that_is_altered(project: TestProject) -> None:
    """The control database's schema is created where there is none, and altered where it stands already."""
    with project.control() as control:
        assert project.plan()[0].action == "create"
        control.execute("CREATE SCHEMA rowcast")
        change = project.plan()[0]
    assert (change.action, change.area, change.object) == ("alter", "control database", "schema rowcast")
    assert project.apply()[0] == change


def test_exit_codes_of_the_commands(project: TestProject, capsys: pytest.CaptureFixture[str]) -> None:
    """plan: 1 when something would change, 0 when nothing; 2 when refused; apply: 0 and what it did."""
    command = ["--project", str(project.folder), "sources"]
    assert main([*command, "plan", "--json"]) == 1
    planned = json.loads(capsys.readouterr().out)["changes"]
    assert {change["area"] for change in planned} == {"control database", "source database", "topics", "connect"}
    assert main([*command, "apply"]) == 0
    assert re.search(r"^1[12] changes$", capsys.readouterr().out, re.MULTILINE)
    assert main([*command, "plan"]) == 0
    assert main([*command, "apply"]) == 0
    assert capsys.readouterr().out.count("0 changes") == 2
    assert main([*command, "plan", "nothing"]) == 2
    assert f"known sources: {project.name}" in capsys.readouterr().err


def test_plan_estimates_the_change_log_and_does_not_count_it_as_a_change(
    project: TestProject, capsys: pytest.CaptureFixture[str]
) -> None:
    """The estimate, or why there is none yet, stands in text and JSON; the exit code tells of changes alone."""
    project.apply()
    project.execute("SELECT pg_stat_reset()")
    command = ["--project", str(project.folder), "sources", "plan"]
    assert main(command) == 0
    line = f"change log {project.name}.changes: no estimate of its size can be made yet (the statistics span less than"
    assert capsys.readouterr().out.startswith(line)
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["changes"] == []
    (estimate,) = document["estimates"]
    assert (estimate["topic"], estimate["window_s"]) == (f"{project.name}.changes", 604_800)
    assert estimate["growth"] is None


def test_the_estimate_is_based_on_what_postgresql_counted(project: TestProject) -> None:
    """Inserts, updates and deletes of each table since the statistics began, and rows with their size."""
    for number in range(5):
        project.execute(ROW, f"in{number}")
    project.execute("UPDATE instance SET title = 'Two' WHERE hrid IN ('in1', 'in2')")
    project.execute("DELETE FROM instance WHERE hrid = 'in3'")
    project.execute(HASHED_ITEM)
    project.execute(EIGHT_ITEMS)
    project.execute("SELECT pg_stat_force_next_flush()")
    instance, item = read_activity(project.connection, ["public.item", "public.instance"]).tables
    assert (instance.name, instance.inserts, instance.updates, instance.deletes) == ("public.instance", 5, 2, 1)
    assert (instance.rows, instance.size_bytes >= 8192) == (4, True)
    assert (item.name, item.inserts, item.rows, item.size_bytes >= 2 * 8192) == ("public.item", 8, 8, True)
    project.execute("ANALYZE")
    assert [each.rows for each in read_activity(project.connection, ["public.item"]).tables] == [8]
    (began,) = project.execute("SELECT stats_reset FROM pg_stat_bgwriter").fetchone() or ()
    assert read_activity(project.connection, []).since == began
    project.execute("SELECT pg_stat_reset()")
    again = read_activity(project.connection, ["public.instance"])
    assert began < again.since <= again.until
    assert [each.inserts for each in again.tables] == [0]


def test_the_definition_is_what_workers_read(project: TestProject) -> None:
    """The control database holds the compiled definition; a changed file changes it and nothing else in its row."""
    project.apply()
    with project.control() as control:
        control.execute("UPDATE rowcast.source SET epoch = 7, next_offset = 42")
        project.write_source(stop_above="0.1")
        assert [change.object for change in project.apply()] == [f"definition of {project.name}"]
        row = control.execute("SELECT definition, revision, epoch, next_offset, status FROM rowcast.source").fetchone()
    assert row is not None
    definition = SourceDefinition.from_json(row[0])
    assert (definition.revision, definition.refused_share_max) == (row[1], 0.1)
    assert row[2:] == (7, 42, "running")


def test_everything_of_a_source_is_in_one_log_in_order(project: TestProject) -> None:
    """Snapshot, transactions, messages and dense heartbeats arrive in one topic; undeclared columns do not."""
    project.execute(ROW, "in1")
    project.apply()
    project.change_log(lambda values: any(value.get("type") == "COMPLETED" for value in values))
    with project.connection.transaction():
        project.execute("SELECT pg_logical_emit_message(true, 'rowcast.context', %s)", '{"actor": "me"}')
        project.execute("UPDATE instance SET title = 'Two'")
        holdings = "INSERT INTO holdings SELECT gen_random_uuid(), 'ho1', id, 'Main' FROM instance RETURNING id"
        (holdings_id,) = project.execute(holdings).fetchone() or ()
        item = "VALUES (gen_random_uuid(), 'it1', %s::uuid, NULL, 'book', 'Available', 9.5, 'a note', 'reader 7')"
        project.execute(f"INSERT INTO item {item}", holdings_id)
    project.execute("BEGIN; UPDATE instance SET title = 'rolled back'; ROLLBACK")
    project.execute("TRUNCATE item")
    values = project.change_log(lambda values: beats(values) >= [1, 2, 3] and "t" in operations(values))
    assert operations(values) == ["r", "m", "u", "c", "c", "t"]
    assert beats(values) == list(range(1, len(beats(values)) + 1))
    text = json.dumps(values)
    assert "reader 7" not in text
    assert "a note" not in text
    assert "rolled back" not in text


def beats(values: list[dict[str, Any]]) -> list[int]:
    contents = [json.loads(b64decode(value["message"]["content"])) for value in values if is_beat(value)]
    for content in contents:
        told = {"partitions", "files", "captured"} if content["counter"] == 1 else set[str]()
        assert {"system_identifier", "timeline", "at", "counter", "source"} | told == content.keys()
    return [content["counter"] for content in contents]


REFUSED: dict[str, tuple[str, str]] = {
    "no key": ("ALTER TABLE holdings DROP CONSTRAINT holdings_pkey CASCADE", "ADD PRIMARY KEY"),
    "identity nothing": ("ALTER TABLE holdings REPLICA IDENTITY NOTHING", "UPDATE and DELETE of the application"),
    "full with a generated column": (
        "ALTER TABLE holdings ADD shout text GENERATED ALWAYS AS (upper(hrid)) STORED, REPLICA IDENTITY FULL",
        "generated column 'shout'",
    ),
    "unlogged": ("ALTER TABLE item SET UNLOGGED", "not in the WAL"),
    "missing": ("DROP TABLE item", "public.item: does not exist"),
    "view": ("ALTER TABLE item RENAME TO items; CREATE VIEW item AS SELECT * FROM items", "is a view"),
    "missing column": ("ALTER TABLE item DROP barcode", "'barcode'"),
    "other type": ("ALTER TABLE item ALTER price TYPE double precision", "gives number"),
    "inheritance": (
        "CREATE TABLE thing (hrid text NOT NULL); ALTER TABLE item INHERIT thing",
        "inherits from public.thing",
    ),
}


@pytest.mark.guarantee("No harm")
@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_would_hurt_or_be_blind_is_refused_untouched(project: TestProject, case: str) -> None:
    """The refusal names file, line or property, table and fix, and comes before anything is touched."""
    statements, words = REFUSED[case]
    place = rf"{project.name}(\.yaml:\d+|/item/v1\.0\.json#/properties/\w+): "
    project.execute(statements)
    for attempt in (project.plan, project.apply):
        with pytest.raises(ConfigurationError, match=place) as refused:
            attempt()
        assert words in str(refused.value)
    assert untouched(project)


def test_the_harm_is_real(project: TestProject) -> None:
    """Publishing a table without identity makes the application's own UPDATE fail: why it is refused."""
    project.execute(ROW, "in1")
    project.execute("ALTER TABLE instance REPLICA IDENTITY NOTHING; CREATE PUBLICATION harm FOR TABLE instance")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        project.execute("UPDATE instance SET title = 'x'")
    project.execute("DROP PUBLICATION harm")


def test_drifted_topic_settings_are_mended(project: TestProject) -> None:
    """A topic setting that somebody changed is planned and set back."""
    project.apply()
    admin, topic = project.admin(), f"{project.name}.item.v1"
    try:
        drift = {"cleanup.policy": "delete", "min.compaction.lag.ms": "0"}
        admin.alter_configs([ConfigResource("TOPIC", topic, drift)])
        (change,) = wait_until(project.plan, "the drift is seen")
        assert (change.action, change.object) == ("alter", f"topic {topic}")
        assert "cleanup.policy delete → compact" in change.reason
        assert project.apply() == [change]
        assert project.plan() == []
    finally:
        admin.close()


def test_another_partition_count_is_refused(project: TestProject) -> None:
    """A partition count is for ever: neither the file nor the topic may change it."""
    project.apply()
    project.write_source(partitions="5")
    with pytest.raises(ConfigurationError, match="has 3 partitions, 5 are declared"):
        project.apply()
    project.write_source(replication_factor="3")
    with pytest.raises(ConfigurationError, match="replication factor 1, 3 is declared"):
        project.apply()


def test_more_replicas_than_brokers_are_refused_untouched(project: TestProject) -> None:
    """What the brokers could not create is refused before the database is touched."""
    project.write_source(replication_factor="3")
    with pytest.raises(ConfigurationError, match="needs as many brokers; there are 1"):
        project.apply()
    assert untouched(project)


DRIFTED: dict[str, tuple[str, str, str]] = {
    "table dropped": ("ALTER PUBLICATION {} DROP TABLE item", "add public.item", "does not publish public.item"),
    "rows filtered": (
        "ALTER PUBLICATION {} SET TABLE instance, holdings, item WHERE (id IS NOT NULL)",
        "whole rows of public.item",
        "publishes only some rows or columns of public.item",
    ),
    "operation left out": (
        "ALTER PUBLICATION {} SET (publish = 'insert, update')",
        "every operation",
        "does not publish every operation",
    ),
    "partitions on their own": (
        "ALTER PUBLICATION {} SET (publish_via_partition_root = false)",
        "through partitioned tables",
        "does not publish through partitioned tables",
    ),
}


def test_a_publication_without_a_slot_is_mended(project: TestProject) -> None:
    """Before the first snapshot nothing can be missed: an interrupted apply, or a DBA's draft, is made as declared."""
    publication = f"rowcast_{project.name}"
    project.execute(f"CREATE PUBLICATION {publication} FOR TABLE instance, holdings, item")
    for statement, reason, _refusal in DRIFTED.values():
        project.execute(statement.format(publication))
        assert any(
            reason in change.reason for change in project.plan() if change.object == f"publication {publication}"
        )
    assert "alter" in {change.action for change in project.apply() if change.object == f"publication {publication}"}
    assert project.plan() == []


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_publication_that_lost_something_while_it_was_read_is_refused(project: TestProject) -> None:
    """What was not published meanwhile can never be read: only a new snapshot brings it, and apply does not hide it."""
    project.apply()
    publication = f"rowcast_{project.name}"
    for statement, _reason, refusal in DRIFTED.values():
        project.execute(statement.format(publication))
        for attempt in (project.plan, project.apply):
            with pytest.raises(ConfigurationError, match=f"publication {publication}: {refusal}.*sources remove"):
                attempt()
        whole = "SET TABLE instance, holdings, item"
        project.execute(f"ALTER PUBLICATION {publication} {whole}")
        operations_again = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
        project.execute(f"ALTER PUBLICATION {publication} SET ({operations_again})")
    assert project.plan() == []


def test_a_table_that_is_published_too_much_is_taken_out(project: TestProject) -> None:
    """A table that nobody declared is no loss: apply takes it out of the publication."""
    project.apply()
    project.execute("CREATE TABLE public.other (id int PRIMARY KEY)")
    project.execute(f"ALTER PUBLICATION rowcast_{project.name} ADD TABLE public.other")
    (change,) = project.plan()
    assert "drop public.other" in change.reason
    assert project.apply() == [change]
    assert project.plan() == []


def test_a_drifted_connector_is_mended(project: TestProject) -> None:
    """A setting that somebody changed in Connect is set back, and the connector runs."""
    project.apply()
    name = connector_name(project.name)
    with connect(project) as client:
        settings = client.configuration(name)
        assert settings is not None
        client.put_configuration(name, {**settings, "skipped.operations": "t", "poll.interval.ms": "500"})
        (change,) = project.plan()
        assert change.reason == "other settings: poll.interval.ms, skipped.operations"
        project.apply()
        assert client.configuration(name) == settings
    assert project.plan() == []


def test_the_password_is_nowhere_in_connect(project: TestProject) -> None:
    """Neither the REST interface nor Connect's own topic holds the database's password."""
    project.apply()
    password = conninfo_to_dict(project.settings.database(project.name).url)["password"]
    assert isinstance(password, str)
    with connect(project) as client:
        shown = json.dumps(client.configuration(connector_name(project.name)))
    assert password not in shown
    assert "${file:" in shown
    consumer = KafkaConsumer(
        "rowcast.connect.configs",
        bootstrap_servers=project.stack.brokers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=2_000,
    )
    kept = b"".join(record.value or b"" for record in consumer)
    consumer.close()
    assert f"rowcast-{project.name}".encode() in kept or project.name.encode() in kept
    assert password.encode() not in kept


def test_a_database_without_password_reference_is_refused_untouched(project: TestProject) -> None:
    """A password that would end up in Connect in plain text is refused with the fix."""
    toml = project.folder / "rowcast.toml"
    toml.write_text(re.sub(r"connect_password = .*", "", toml.read_text()))
    with pytest.raises(ConfigurationError, match="connect_password"):
        project.apply()
    assert untouched(project)


def test_a_slot_of_another_database_is_refused(project: TestProject) -> None:
    """Slots belong to the whole server: another database's slot of that name is not taken over."""
    other = project.stack.new_database("other")
    name = slot_name(project.name)
    with psycopg.connect(other.url, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
        try:
            with pytest.raises(ConfigurationError, match="exists already, for database"):
                project.apply()
            assert untouched(project)
        finally:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def test_a_slot_older_than_its_publication_is_refused(project: TestProject) -> None:
    """A publication that is made after the slot cannot be read from it: start over instead."""
    project.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot_name(project.name))
    with pytest.raises(ConfigurationError, match="sources remove"):
        project.apply()


def test_one_topic_has_one_writing_source(stack: SharedStack, project: TestProject, tmp_path: Path) -> None:
    """A second source that would publish into the same domain topic is refused."""
    project.apply()
    other = stack.new_project(tmp_path / "other")
    try:
        shutil.copytree(project.folder / "schemas" / project.name, other.folder / "schemas" / project.name)
        text = other.source_path.read_text().replace(f"domain: {other.name}", f"domain: {project.name}")
        other.source_path.write_text(text)
        toml = other.folder / "rowcast.toml"
        toml.write_text(toml.read_text().replace(other.settings.control().url, project.settings.control().url))
        with pytest.raises(ConfigurationError, match=f"is written by source '{project.name}' already"):
            other.apply()
    finally:
        other.close()


def test_a_refused_connector_shows_why(project: TestProject) -> None:
    """A configuration that Connect would not take comes back with its message, before anything is touched."""
    toml = project.folder / "rowcast.toml"
    good = toml.read_text()
    toml.write_text(good.replace("${file:", "${file:/nowhere"))
    with pytest.raises(ConfigurationError, match=r"would not take database\..*connect_password"):
        project.apply()
    assert untouched(project)
    toml.write_text(good)
    assert f"connector rowcast-{project.name}" in [change.object for change in project.apply()]


def test_a_partitioned_table_is_captured_under_its_own_name(project: TestProject) -> None:
    """Rows of partitions arrive as rows of the declared, partitioned table."""
    project.execute(HASHED_ITEM)
    project.execute(EIGHT_ITEMS)
    project.apply()
    project.change_log(lambda values: operations(values).count("r") == 8)
    project.execute(EIGHT_ITEMS)
    values = project.change_log(lambda values: operations(values).count("c") == 8)
    assert {value["source"]["table"] for value in values if value.get("op") in {"r", "c"}} == {"item"}
