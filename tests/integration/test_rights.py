"""The least rights: what `plan --sql` prints is enough for each login, and nothing of it is too much."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_fixture import new_database, running
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from stack_fixture import TestProject, random_name, wait_until
from worker_fixture import WorkerPool, add_tree, wait_agreement

from rowcast.cli.main import main
from rowcast.consumer import Consumer, DomainEvent
from rowcast.errors import ConfigurationError
from rowcast.secret_file import properties_text


@dataclass
class Restricted:
    """A project whose logins may do nothing yet but connect; *owners* are urls that may do everything."""

    project: TestProject
    owners: dict[str, str]
    roles: dict[str, str]
    passwords: dict[str, str]

    def execute(self, database: str, *statements: str) -> None:
        """Run statements as the DBA."""
        with psycopg.connect(self.owners[database], autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def scripts(self, capsys: pytest.CaptureFixture[str], expected: int) -> list[dict[str, Any]]:
        """What `plan --sql --json` prints; it has to end with *expected*."""
        assert main(["--project", str(self.project.folder), "sources", "plan", "--sql", "--json"]) == expected
        scripts: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["scripts"]
        return scripts

    def grant(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Run what the DBA has to run."""
        for script in self.scripts(capsys, 1):
            self.execute("source" if script["purpose"].startswith("Source ") else "control", *script["statements"])

    def url(self, database: str, owner: str) -> str:
        """The url of *owner* with the restricted login of *database*."""
        login = {"user": self.roles[database], "password": self.passwords[database]}
        return make_conninfo(**{**conninfo_to_dict(owner), **login})


@pytest.fixture
def restricted(project: TestProject) -> Iterator[Restricted]:
    """The demo project, with a login for its source and one for its control database."""
    settings = project.settings
    owners = {"source": settings.database(project.name).url, "control": settings.control().url}
    roles = {name: random_name(name) for name in ("source", "control", "service")}
    made = Restricted(project, owners, roles, {name: secrets.token_hex(8) for name in roles})
    for name, role in roles.items():
        made.execute("source", f"CREATE ROLE {role} LOGIN PASSWORD '{made.passwords[name]}'")
    for name in owners:
        made.execute(
            name,
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "DO $$BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());"
            f" EXECUTE format('GRANT CONNECT ON DATABASE %I TO {roles[name]}', current_database()); END$$",
        )
    secret = project.stack.folder / ".rowcast/secrets" / f"{project.name}.properties"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text(properties_text({"password": made.passwords["source"]}))
    _declare(made, secret)
    try:
        yield made
    finally:
        # The connector has to go before its login can.
        project._connection = psycopg.connect(owners["source"], autocommit=True)
        project.close()
        project._connection = psycopg.connect(owners["source"], autocommit=True)
        for name in owners:
            made.execute(name, *(f"REASSIGN OWNED BY {role} TO CURRENT_USER" for role in roles.values()))
            made.execute(name, *(f"DROP OWNED BY {role}" for role in roles.values()))
        made.execute("source", *(f"DROP ROLE {role}" for role in roles.values()))
        secret.unlink()


def _declare(made: Restricted, secret: Path) -> None:
    stack, name = made.project.stack, made.project.name
    (made.project.folder / "rowcast.toml").write_text(
        f'brokers = "{stack.brokers}"\nconnect_url = "{stack.connect_url}"\n'
        f'[databases.{name}]\nurl = "{made.url("source", made.owners["source"])}"\n'
        f'connect_password = "${{file:{secret}:password}}"\n'
        f'[databases.rowcast]\nurl = "{made.url("control", made.owners["control"])}"\n'
    )


@pytest.mark.slow
def test_a_missing_right_is_refused_and_named(restricted: Restricted, capsys: pytest.CaptureFixture[str]) -> None:
    """Each right that the script grants is needed: without it plan tells which, and the script has it again."""
    project, role = restricted.project, restricted.roles["source"]
    with pytest.raises(ConfigurationError, match="the login may not replicate"):
        project.plan()
    restricted.grant(capsys)
    assert restricted.scripts(capsys, 0) == []
    assert {change.area for change in project.plan()} == {"control database", "topics", "connect"}
    for right, message in {
        f"ALTER ROLE {role} NOREPLICATION": "the login may not replicate",
        f"REVOKE SELECT ON public.item FROM {role}": "public.item: the login may not read it",
        f"REVOKE USAGE ON SCHEMA public FROM {role}": "public.holdings: the login may not read it",
        f"REVOKE UPDATE ON rowcast.heartbeat FROM {role}": "table rowcast.heartbeat: the login may not read and count",
        f"REVOKE USAGE ON SCHEMA rowcast FROM {role}": "table rowcast.heartbeat: the login may not read and count",
        "ALTER TABLE public.item ENABLE ROW LEVEL SECURITY": "public.item: row-level security hides rows",
    }.items():
        restricted.execute("source", right)
        with pytest.raises(ConfigurationError, match=message):
            project.plan()
        restricted.grant(capsys)
        assert restricted.scripts(capsys, 0) == []
    assert main(["--project", str(project.folder), "sources", "plan", "--sql"]) == 0
    assert capsys.readouterr().out == "-- nothing to run\n"


def test_the_script_is_what_psql_takes(restricted: Restricted, capsys: pytest.CaptureFixture[str]) -> None:
    """Statements end with a semicolon; all else is a comment, and no password is in it."""
    assert main(["--project", str(restricted.project.folder), "sources", "plan", "--sql"]) == 1
    text = capsys.readouterr().out
    assert not [password for password in restricted.passwords.values() if password in text]
    source, control = text.split("\n\n-- Control database")
    restricted.execute("source", source)
    restricted.execute("control", "-- " + control)
    assert restricted.scripts(capsys, 0) == []


@pytest.mark.slow
@pytest.mark.guarantee("No harm")
@pytest.mark.guarantee("Low coupling")
def test_a_pipeline_runs_with_the_least_rights(
    restricted: Restricted, workers: WorkerPool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Snapshot, changes, status and consumer, with exactly what the script grants, and nothing owned in the source."""
    project = restricted.project
    restricted.grant(capsys)
    with psycopg.connect(restricted.owners["source"], autocommit=True) as dba:
        add_tree(dba, ["00000000-0000-0000-0000-00000000000" + digit for digit in "123"])
        project.apply()
        worker = workers.start()
        worker.wait_owned()
        # Truth is read by somebody who may read it.
        project._connection = dba
        wait_agreement(project)
        add_tree(dba, ["00000000-0000-0000-0000-00000000000" + digit for digit in "456"])
        dba.execute("UPDATE item SET status = 'Missing'")
        wait_agreement(project)
        wait_until(lambda: main(["--project", str(project.folder), "sources", "status"]) == 0, "all is healthy")
        grants = dba.execute(
            "SELECT table_schema || '.' || table_name, string_agg(privilege_type, ',' ORDER BY privilege_type)"
            " FROM information_schema.role_table_grants WHERE grantee = %s GROUP BY 1",
            (restricted.roles["source"],),
        ).fetchall()
        assert dict(grants) == {
            **dict.fromkeys(("public.holdings", "public.instance", "public.item"), "SELECT"),
            "rowcast.heartbeat": "SELECT,UPDATE",
        }
        owned = "SELECT count(*) FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE r.rolname = %s"
        assert dba.execute(owned, (restricted.roles["source"],)).fetchone() == (0,)
        _consume(restricted)


def _consume(restricted: Restricted) -> None:
    """A consumer makes its inbox with CREATE on its database, and needs no more than its tables afterwards."""
    project, role = restricted.project, sql.Identifier(restricted.roles["service"])
    seen: list[str] = []

    def consumer(url: str) -> Consumer:
        made = Consumer("least", url, project.stack.brokers)

        @made.on(f"{project.name}.item", major=1)
        def changed(event: DomainEvent, _connection: psycopg.Connection) -> None:
            seen.append(event.id)

        return made

    with new_database(project.stack.settings) as owner, psycopg.connect(owner, autocommit=True) as dba:
        database = sql.Identifier(dba.info.dbname)
        dba.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, role))
        with running(consumer(restricted.url("service", owner))):
            wait_until(lambda: len(seen) == 4, "the events arrive")
        dba.execute(sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(database, role))
        dba.execute("ALTER SCHEMA rowcast_inbox OWNER TO CURRENT_USER")
        for (table,) in dba.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'rowcast_inbox'").fetchall():
            dba.execute(sql.SQL("ALTER TABLE rowcast_inbox.{} OWNER TO CURRENT_USER").format(sql.Identifier(table)))
        dba.execute(sql.SQL("GRANT USAGE ON SCHEMA rowcast_inbox TO {}").format(role))
        dba.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA rowcast_inbox TO {}").format(role))
        with running(consumer(restricted.url("service", owner))):
            project.execute("UPDATE item SET status = 'Available'")
            wait_until(lambda: len(seen) == 6, "later events arrive")
