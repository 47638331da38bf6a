"""The main job on a stack that Rowcast did not start: TLS and logins everywhere, and nobody has a right too many."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from secured_kafka import PASSWORD
from secured_stack import CONNECT_GROUP, DATABASE_PASSWORD, SecuredStack

from examples.inventory import catalogue
from examples.main_job.job import TOPICS
from examples.main_job.pipeline import bring_declarations
from rowcast.connect import ConnectClient

REPOSITORY = Path(__file__).resolve().parents[2]
# What each part logs in to Kafka as, and with which settings.
ROLES = {"operator": "rowcast", "worker": "rowcast-worker", "consumer": "orders"}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Project folders, one for each role, on *stack*; commands are the operator's."""

    stack: SecuredStack
    folder: Path

    def write(self) -> None:
        """The settings of each role: its own logins, every secret in a file of its own."""
        secrets = self.folder / "secrets"
        secrets.mkdir()
        (secrets / "kafka").write_text(PASSWORD + "\n")
        (secrets / "database").write_text(DATABASE_PASSWORD + "\n")
        connect_secrets = self.stack.folder / "databases.properties"
        connect_secrets.write_text("inventory=" + DATABASE_PASSWORD.replace("=", "\\=").replace("#", "\\#") + "\n")
        logins = {"rowcast": "control", "orders": "orders", "inventory": "reader", "inventory_application": "inventory"}
        databases = {"operator": tuple(logins), "worker": ("rowcast",), "consumer": ("orders",)}
        for role, user in ROLES.items():
            lines = [
                f'brokers = "{self.stack.kafka.brokers}"',
                f'connect_url = "{self.stack.connect.url}"',
                f'connect.ssl_cafile = "{self.stack.kafka.ca}"',
                '[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "SCRAM-SHA-512"',
                f'sasl_plain_username = "{user}"\nssl_cafile = "{self.stack.kafka.ca}"',
                f'sasl_plain_password = "${{dir:{secrets}:kafka}}"',
                f'[acl]\nconnect_group = "{CONNECT_GROUP}"',
                f"consumers.orders = {{principal = 'User:orders', events = {json.dumps(TOPICS)}}}",
            ]
            for name in databases[role]:
                database = name.removesuffix("_application")
                lines += [
                    f"[databases.{name}]",
                    f'url = "{self.stack.url(database, logins[name])}"',
                    f'password = "${{dir:{secrets}:database}}"',
                ]
                if name == "inventory":
                    lines.append(f'connect_password = "${{file:{connect_secrets}:inventory}}"')
            (self.folder / role).mkdir()
            (self.folder / role / "rowcast.toml").write_text("\n".join(lines) + "\n")
        bring_declarations(self.folder / "operator")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of `rowcast` as the operator."""
        command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(self.folder / "operator"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def json(self, *arguments: str) -> dict[str, Any]:
        """What a verb prints as JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode in {0, 1}, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def prepare(self) -> None:
        """What DBA and Kafka administrator do once."""
        stack = self.stack
        for login in ("control", "orders", "reader", "inventory"):
            stack.create_login(login)
        stack.create_database("rowcast", "postgres", "control")
        stack.create_database("orders", "orders")
        stack.create_database("inventory", "inventory", "reader")
        with psycopg.connect(stack.url("inventory", "inventory", DATABASE_PASSWORD), autocommit=True) as owner:
            catalogue.create_schema(owner)
        for script in self.json("sources", "plan", "--sql")["scripts"]:
            with stack.dba("inventory" if script["purpose"].startswith("Source ") else "rowcast") as dba:
                for statement in script["statements"]:
                    dba.execute(statement.encode())
        stack.kafka.allow(self.run("sources", "plan", "--acl").stdout.splitlines())

    def main_job(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the main job, each part with the settings of its role."""
        roles = [f"--role={role}={self.folder / role}" for role in ("worker", "consumer")]
        command = [sys.executable, "-m", "examples.main_job", "--project", str(self.folder / "operator"), "--stack"]
        return subprocess.run(
            [*command, *roles, *options], capture_output=True, text=True, check=False, timeout=200, cwd=REPOSITORY
        )

    def texts(self) -> str:
        """Everything that was logged, and what Connect keeps."""
        with ConnectClient(self.stack.connect) as connect:
            told = [json.dumps(connect.configuration("rowcast-inventory"))]
        logs = [*self.stack.logs, *(self.folder / "operator/.rowcast/logs").iterdir()]
        return "\n".join([*told, *(path.read_text(errors="replace") for path in logs)])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_main_job_is_clean_with_the_least_rights(secured_stack: SecuredStack, tmp_path: Path) -> None:
    """
    Roles made from what `plan --sql` and `plan --acl` print are enough for a clean verdict.

    No secret is in a log, in Connect, or in what commands print.
    """
    deployment = Deployment(secured_stack, tmp_path)
    deployment.write()
    deployment.prepare()
    secured_stack.start_connect()
    target = tmp_path / "out.json"
    try:
        done = deployment.main_job(
            "--seconds", "10", "--rate", "40", "--instances", "300", "--json", str(target), "--down"
        )
        said = [deployment.run("sources", "status", *form).stdout for form in ((), ("--json",))]
    finally:
        deployment.main_job("--stop")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(target.read_text())
    assert figures["transactions"] > 300
    assert figures["pss_mb"]["kafka"] is None
    everything = "\n".join([deployment.texts(), done.stdout, done.stderr, *said])
    assert "rowcast-inventory" in everything
    assert [
        secret for secret in (PASSWORD, DATABASE_PASSWORD, secured_stack.state.password) if secret in everything
    ] == []
