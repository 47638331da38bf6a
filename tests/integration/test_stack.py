"""The embedded stack as a user meets it: real servers, started, killed, mended and removed by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from rowcast.local.postgres import PostgresPart
from rowcast.local.processes import marked
from rowcast.local.stack import Stack
from rowcast.local.state import StackState, stack_mark
from rowcast.settings import Settings, load_settings

_DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose stack is up, with a space and an umlaut in its path."""
    folder = tmp_path_factory.mktemp("pröject one")
    (folder / "connectors").mkdir()
    (folder / "connectors" / "shop.yaml").write_text("database: shop\n")
    started = _rowcast(folder, "up", "--database", "orders")
    assert started.returncode == 0, started.stderr
    yield folder
    Stack(folder).down(wipe=True)


@pytest.fixture
def second_project(tmp_path: Path) -> Iterator[Path]:
    """A project without a stack; whatever a test starts in it is removed."""
    yield tmp_path
    Stack(tmp_path).down(wipe=True)


@pytest.fixture
def settings(project: Path) -> Settings:
    """The settings that the rest of Rowcast sees."""
    return load_settings(project, {})


def _rowcast(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(project), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def _public(project: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project / ".rowcast" / "stack.json").read_text())
    return content


def _data(project: Path) -> Path:
    """PostgreSQL's data, which lie elsewhere when its account cannot reach the project."""
    return PostgresPart(StackState(project / ".rowcast")).home / "data"


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {_DEADLINE_S} s: {what}"
        threading.Event().wait(0.05)


def _processes(project: Path) -> list[int]:
    return [process.pid for process in marked(stack_mark(project / ".rowcast"))]


def test_databases_exist_and_need_the_password(settings: Settings) -> None:
    """The control database, those of connector files and those asked for exist; without password nobody enters."""
    for name in ("rowcast", "shop", "orders"):
        with psycopg.connect(settings.database(name).url) as connection:
            assert connection.execute("SELECT current_database(), current_setting('wal_level')").fetchone() == (
                name,
                "logical",
            )

    wrong = {**settings.control().parameters(), "password": "wrong"}
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**wrong)


def test_connect_resolves_the_password_by_reference(project: Path, settings: Settings) -> None:
    """The connector class is there, and its configuration works with a reference instead of the password."""
    server = settings.control().parameters()
    configuration = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "name": "probe",
        "topic.prefix": "probe",
        "plugin.name": "pgoutput",
        "database.hostname": server["host"],
        "database.port": server["port"],
        "database.user": server["user"],
        "database.password": settings.control().connect_password,
        "database.dbname": "rowcast",
    }
    path = f"{settings.need_connect_url()}/connector-plugins/PostgresConnector/config/validate"

    answer = requests.put(path, json=configuration, timeout=30).json()

    errors = {entry["value"]["name"]: entry["value"]["errors"] for entry in answer["configs"]}
    assert answer["error_count"] == 0, {name: messages for name, messages in errors.items() if messages}
    assert _public(project)["postgres"]["password"] not in json.dumps(configuration)


def test_status_of_a_running_stack(project: Path) -> None:
    """Every part answers, with pid, port and memory; exit code 0; all together well below 1.1 GB."""
    shown = _rowcast(project, "status", "--json")
    parts = json.loads(shown.stdout)["parts"]

    assert shown.returncode == 0
    assert [(part["name"], part["alive"], part["answering"]) for part in parts] == [
        ("postgres", True, True),
        ("kafka", True, True),
        ("connect", True, True),
    ]
    assert {part["pid"] for part in parts} == {part["pid"] for part in _public(project)["parts"].values()}
    assert sum(part["pss_mb"] for part in parts) < 1100
    assert _rowcast(project, "status").stdout.count("answers") == 3


def test_secrets_are_private(project: Path) -> None:
    """Nothing that holds the password can be read by another user of the machine."""
    password = _public(project)["postgres"]["password"]
    holders = [path for path in (project / ".rowcast").glob("*") if path.is_file() and password in path.read_text()]

    assert {"stack.json", "state.json", "secrets.properties"} == {path.name for path in holders}
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)


def test_up_again_changes_nothing(project: Path) -> None:
    """`up` on a running stack says so, succeeds, and leaves processes and ports as they are."""
    before = _public(project)

    again = _rowcast(project, "up")

    assert again.returncode == 0
    assert again.stderr.count("runs already") == 3
    assert _public(project) == before


def test_second_stack_beside_the_first(project: Path, second_project: Path) -> None:
    """A stack of another project has its own server, port, password and data at the same time."""
    state = StackState(second_project / ".rowcast")
    state.create()
    second = Stack(second_project)

    second.start("postgres")

    first_port = _public(project)["postgres"]["port"]
    assert second.status()[0].answering
    assert state.password != _public(project)["postgres"]["password"]
    assert second.status()[0].port != first_port
    assert Stack(project).status()[0].answering


def test_killed_parts_are_reported_and_mended_with_their_data(project: Path, settings: Settings) -> None:
    """After kill -9 status names the dead parts with their logs; `up` brings them back, same ports, same data."""
    control = settings.control().url
    with psycopg.connect(control) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with KafkaAdminClient(bootstrap_servers=settings.need_brokers()) as client:
        client.create_topics([NewTopic(name="kept", num_partitions=3, replication_factor=1)])
    before = _public(project)
    for name in ("postgres", "kafka"):
        os.kill(before["parts"][name]["pid"], signal.SIGKILL)
    _wait_until(lambda: not any(part.alive for part in Stack(project).status()[:2]), "both are dead")

    shown = _rowcast(project, "status", "--json")
    told = _rowcast(project, "status")
    mended = _rowcast(project, "up")

    parts = {part["name"]: part for part in json.loads(shown.stdout)["parts"]}
    assert shown.returncode == 1
    assert not parts["kafka"]["alive"]
    assert "database system is ready" in "\n".join(parts["postgres"]["log_tail"])
    assert "end of" in told.stdout
    assert mended.returncode == 0, mended.stderr
    assert "connect runs already" in mended.stderr
    after = _public(project)
    assert (after["brokers"], after["postgres"]) == (before["brokers"], before["postgres"])
    assert after["parts"]["kafka"]["pid"] != before["parts"]["kafka"]["pid"]
    with psycopg.connect(control) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    with KafkaAdminClient(bootstrap_servers=settings.need_brokers()) as client:
        assert "kept" in client.list_topics()


def test_interrupted_and_failed_up_leave_nothing_running(second_project: Path) -> None:
    """Ctrl-C on the way up stops what was started; so does a part that cannot start, and its log is shown."""
    command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(second_project), "up"]
    interrupted = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    folder = second_project / ".rowcast"
    _wait_until(lambda: StackState(folder).process("postgres") is not None, "PostgreSQL starts")
    interrupted.send_signal(signal.SIGINT)
    interrupted.communicate(timeout=_DEADLINE_S)

    assert interrupted.returncode == 130
    assert _processes(second_project) == []
    assert not (second_project / ".rowcast" / "stack.json").exists()

    (_data(second_project) / "PG_VERSION").write_text("9.6\n")
    failed = _rowcast(second_project, "up")

    assert failed.returncode == 2
    assert "postgres ended while starting" in failed.stderr
    assert "initialized by PostgreSQL version 9.6" in failed.stderr
    assert _processes(second_project) == []


def test_down_and_wipe_leave_nothing(project: Path) -> None:
    """`down` ends every process and keeps the data; `down --wipe` keeps nothing on disk either."""
    data = _data(project)

    stopped = _rowcast(project, "down")

    assert stopped.returncode == 0
    assert _processes(project) == []
    assert data.exists()
    assert not (project / ".rowcast" / "stack.json").exists()
    assert _rowcast(project, "status").returncode == 0

    wiped = _rowcast(project, "down", "--wipe")

    assert wiped.returncode == 0
    assert [path.name for path in project.iterdir()] == ["connectors"]
    assert not data.parent.exists()
    assert "no stack" in _rowcast(project, "status").stdout
