"""`rowcast worker` as a process, where neither Kafka nor a database answers: it comes up and waits for them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

LEVELS = ("debug", "info", "warning", "error")
# Port 1 on loopback answers nothing.
_NOWHERE = {
    "ROWCAST_BROKERS": "127.0.0.1:1",
    "ROWCAST_CONNECT_URL": "http://127.0.0.1:1",
    "ROWCAST_DATABASE_ROWCAST": "postgresql://nobody@127.0.0.1:1/rowcast",
}


class Command:
    """One `rowcast worker` with these *arguments*."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder / f"{time.monotonic_ns()}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rowcast.cli.main", "--project", str(folder), "worker", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_NOWHERE},
            )

    @property
    def text(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def wait_port(self, timeout_s: float = 30) -> int:
        """The port that it says it listens on."""
        deadline = time.monotonic() + timeout_s
        while not (found := re.findall(r"http://127\.0\.0\.1:(\d+)/health and /metrics", self.text)):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)
        (port,) = found
        return int(port)

    def wait_healthy(self, port: int, timeout_s: float = 30) -> None:
        """Wait until it answers on *port*."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).json()["owned"] == []
            except requests.ConnectionError:
                assert self.process.poll() is None, self.text
                assert time.monotonic() < deadline, self.text
                time.sleep(0.1)
            else:
                return


@pytest.fixture
def commands() -> Iterator[list[Command]]:
    """Commands that are killed at the end, when they still run."""
    started: list[Command] = []
    yield started
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_worker_starts_with_every_log_level(commands: list[Command], tmp_path: Path) -> None:
    """Each choice of the help is one that a worker can be started with."""
    ports = [free_port() for _ in LEVELS]
    for level, port in zip(LEVELS, ports, strict=True):
        commands.append(Command(tmp_path, "--web-port", str(port), "--log-level", level))
    for command, port in zip(commands, ports, strict=True):
        command.wait_healthy(port)
        command.process.send_signal(signal.SIGTERM)
    assert [command.process.wait(30) for command in commands] == [0] * len(LEVELS)


def test_more_workers_of_one_machine_each_find_a_port(commands: list[Command], tmp_path: Path) -> None:
    """Without --web-port any number of workers starts, and each names its address in one line."""
    commands += [Command(tmp_path) for _ in range(3)]
    ports = [command.wait_port() for command in commands]
    assert len(set(ports)) == 3
    for command, port in zip(commands, ports, strict=True):
        command.wait_healthy(port)


def test_a_worker_logs_what_is_news_and_leaves_no_files(
    commands: list[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address, one line for the database that is away, its end; no banner, no services of the framework."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    commands.append(Command(tmp_path))
    commands[0].wait_healthy(commands[0].wait_port())
    # The database is tried once a second, and told of once.
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        time.sleep(0.1)
    commands[0].process.send_signal(signal.SIGTERM)
    assert commands[0].process.wait(30) == 0
    lines = [line.partition("]: ")[2] or line.rpartition("] ")[2] for line in commands[0].text.splitlines()]
    assert [line.partition(":")[0].strip() for line in lines] == ["health and metrics", "control database", "stopping"]
    assert list(temporary.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".log"] == ["temporary"]


@pytest.mark.parametrize("variable", [False, True], ids=["option", "variable"])
def test_a_port_that_was_asked_for_and_is_taken_is_one_line(
    commands: list[Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    """Nothing is started, nothing is traced; the exit code is that of wrong usage."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        if variable:
            monkeypatch.setenv("ROWCAST_WEB_PORT", port)
        commands.append(Command(tmp_path, *([] if variable else ["--web-port", port])))
        assert commands[0].process.wait(30) == 2
    (line,) = commands[0].text.splitlines()
    assert line.startswith(f"rowcast: --web-port: port {port} cannot be listened on: Address already in use")
