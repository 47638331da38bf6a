"""The main job on a stack that Rowcast did not start: TLS and logins everywhere, and nobody has a right too many."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import psycopg
import pytest
from secured_kafka import PASSWORD, read_acl_command
from secured_stack import DATABASE_PASSWORD, SecuredStack
from stack_fixture import wait_until

from examples.inventory import catalogue
from examples.main_job.pipeline import bring_declarations
from rowcast.connect import ConnectClient
from rowcast.secret_file import properties_text

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/how-to/secured-cluster.md").read_text()
# In the order of the page.
ROLES = ("operator", "worker", "consumer")
COMMANDS = ("sources plan --sql", "sources plan --acl", "sources plan", "sources apply", "sources status")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Project folders, one for each role, on *stack*; commands are the operator's."""

    stack: SecuredStack
    folder: Path

    def write(self) -> None:
        """The settings of the page, each in the folder of its role, with the addresses of this stack."""
        stack, secrets = self.stack, self.folder / "secrets"
        secrets.mkdir()
        for name in ("control", "reader", "orders", "inventory"):
            (secrets / name).write_text(DATABASE_PASSWORD + "\n")
        (secrets / "kafka").write_text(PASSWORD + "\n")
        connect_secrets = stack.folder / "databases.properties"
        connect_secrets.write_text(properties_text({"inventory": DATABASE_PASSWORD}))
        here = {
            "kafka-1:9093,kafka-2:9093": f"{stack.kafka.brokers},{stack.kafka.brokers}",
            "https://connect:8083": stack.connect.url,
            "host=db port=5432": f"host=127.0.0.1 port={stack.port}",
            "/etc/connect/databases.properties": str(connect_secrets),
            "/etc/rowcast/secrets": str(secrets),
            "/etc/rowcast/ca.pem": str(stack.kafka.ca),
            "/etc/connect/ca.pem": str(stack.kafka.ca),
        }
        for role, text in zip(ROLES, re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL), strict=True):
            written = reduce(lambda made, place: made.replace(*place), here.items(), text)
            (self.folder / role).mkdir()
            (self.folder / role / "rowcast.toml").write_text(written)
        # What the demo does besides: it fills the inventory, and looks into the consumer's database.
        demo = {"inventory_application": ("inventory", "inventory"), "orders": ("orders", "orders")}
        with (self.folder / "operator/rowcast.toml").open("a") as settings:
            for name, (database, login) in demo.items():
                settings.write(f'[databases.{name}]\nurl = "{stack.url(database, login)}"\n')
                settings.write(f'password = "${{dir:{secrets}:{login}}}"\n')
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
            catalogue.load(owner, catalogue.generate(300, seed=1))
        for script in self.json("sources", "plan", "--sql")["scripts"]:
            with stack.dba("inventory" if script["purpose"].startswith("Source ") else "rowcast") as dba:
                for statement in script["statements"]:
                    dba.execute(statement.encode())
        assert self.run("sources", "plan", "--sql").stdout == "-- nothing to run\n"
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


@pytest.fixture
def deployment(secured_stack: SecuredStack, tmp_path: Path) -> Deployment:
    """Settings written, rights given as they are printed, Connect started with its own."""
    made = Deployment(secured_stack, tmp_path)
    made.write()
    made.prepare()
    secured_stack.start_connect()
    return made


@pytest.mark.matrix
@pytest.mark.timeout(500)
def test_the_main_job_is_clean_with_the_least_rights(deployment: Deployment, tmp_path: Path) -> None:
    """
    The settings and commands of the page bring it up, and the main job on it is clean.

    No secret is in a log, in Connect, or in what commands print. A right that Connect lacks is told with its fix; a
    Connect without exactly-once support is noted, and the connector does without it.
    """
    stack, target = deployment.stack, tmp_path / "out.json"
    assert re.findall(r"^rowcast (sources .*?)(?: > .*)?$", PAGE, re.MULTILINE) == list(COMMANDS)
    planned, applied = deployment.run("sources", "plan"), deployment.run("sources", "apply")
    assert (planned.returncode, applied.returncode) == (1, 0), planned.stderr + applied.stderr
    try:
        done = deployment.main_job("--seconds", "10", "--rate", "40", "--json", str(target))
        said = [deployment.run("sources", "status", *form) for form in ((), ("--json",))]
        assert done.returncode == 0, done.stdout + done.stderr
        assert [each.returncode for each in said] == [0, 0], said[0].stdout
        figures = json.loads(target.read_text())
        assert figures["transactions"] > 300
        assert figures["pss_mb"]["kafka"] is None
        told = [done, planned, applied, *said]
        everything = "\n".join([deployment.texts(), *(each.stdout + each.stderr for each in told)])
        assert "rowcast-inventory" in everything
        secrets = (PASSWORD, DATABASE_PASSWORD, stack.state.password)
        assert [secret for secret in secrets if secret in everything] == []
    finally:
        deployment.main_job("--stop")
    _lose_a_right(deployment)
    _do_without_exactly_once(deployment)


def _lose_a_right(deployment: Deployment) -> None:
    """Connect may not write the change log any more: its connector fails, and status says who gives the right."""
    lines = deployment.run("sources", "plan", "--acl").stdout.splitlines()
    bindings = [each for line in lines for each in read_acl_command(line)]
    (write,) = [each for each in bindings if each.principal == "User:connect" and each.name == "inventory.changes"]
    deployment.stack.kafka.forbid(write)

    def problems() -> list[str]:
        (status,) = deployment.json("sources", "status")["sources"]
        return [each["remedy"] for each in status["problems"] if each["code"] == "CONNECTOR_FAILED"]

    (remedy,) = wait_until(problems, "the connector fails", 90)
    assert "`rowcast sources plan --acl`" in remedy
    deployment.stack.kafka.restore(write)


def _do_without_exactly_once(deployment: Deployment) -> None:
    """As many a cluster is set up."""
    deployment.stack.start_connect(**{"exactly.once.source.support": "disabled"})
    planned = deployment.json("sources", "plan")
    assert [note["object"] for note in planned["notes"]] == ["Kafka Connect"]
    assert deployment.run("sources", "apply").returncode == 0
    with ConnectClient(deployment.stack.connect) as connect:
        configuration = connect.configuration("rowcast-inventory") or {}
    assert configuration["exactly.once.support"] == "requested"
    again = deployment.run("sources", "plan")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "note: Kafka Connect: exactly.once.source.support is off" in again.stdout
