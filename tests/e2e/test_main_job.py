"""The main job as a user runs it: real processes from start to stop, small numbers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from rowcast.local.stack import Stack
from rowcast.settings import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = {
    "transactions",
    "changes",
    "events",
    "applied",
    "refused",
    "lost",
    "duplicate_effects",
    "out_of_order",
    "invalid",
    "setup_s",
    "seconds_to_first_event",
    "commit_to_applied_ms",
    "pss_mb",
}
DEFECTS = ("lost", "duplicate_effects", "out_of_order", "invalid")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The job as `scripts/run` starts it, on a project folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "examples.main_job", "--project", str(folder), *options],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def run(folder: Path, *options: str, timeout_s: float = 240) -> tuple[int, str]:
    """Run the job to its end: exit code and everything it said."""
    process = start(folder, *options)
    try:
        output, said = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, said = process.communicate(timeout=60)
        pytest.fail(f"the job did not end:\n{said}\n{output}")
    return process.returncode, said + output


def running_in(folder: Path) -> list[str]:
    """Processes that name *folder* on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if str(folder) in line and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {line[:150]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone, or not ours
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A project folder of which nothing is left afterwards, neither processes nor data."""
    yield tmp_path
    run(tmp_path, "--stop")
    Stack(tmp_path).down(wipe=True)


@pytest.mark.timeout(600)
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Effects exactly once")
def test_runs_are_clean_until_a_defect_is_planted(folder: Path) -> None:
    """
    A first run and a second one on what it left up are clean; an effect that is there twice turns the third.

    `--down` leaves no process behind.
    """
    options = ("--instances", "300", "--rate", "40", "--seconds", "4", "--json", str(folder / "out.json"))

    code, said = run(folder, *options)
    assert code == 0, said
    first = json.loads((folder / "out.json").read_text())
    check_figures(first)
    assert first["transactions"] + first["rolled_back"] == 160
    assert "What to try next" in said
    assert running_in(folder)

    code, said = run(folder, *options, "--seed", "2")
    assert code == 0, said
    second = json.loads((folder / "out.json").read_text())
    check_figures(second)
    assert second["events"] == first["events"] + second["live_events"]
    assert "runs already" in said

    plant_duplicate(folder)
    code, said = run(folder, *options, "--seconds", "1", "--down")
    assert code == 1, said
    third = json.loads((folder / "out.json").read_text())
    assert {name: third[name] for name in DEFECTS} == {**dict.fromkeys(DEFECTS, 0), "duplicate_effects": 1}
    assert "NOT CLEAN" in said
    assert running_in(folder) == []


def plant_duplicate(folder: Path) -> None:
    """Let one effect of the first run stand in the consumer's database twice."""
    with psycopg.connect(load_settings(folder, {}).database("orders").url) as connection:
        connection.execute(
            "INSERT INTO applied_event (event_id, aggregate, id_text, version, kind)"
            " SELECT event_id, aggregate, id_text, version, kind FROM applied_event ORDER BY seq LIMIT 1"
        )


def check_figures(content: dict[str, Any]) -> None:
    """All declared figures are there and make sense together."""
    assert content.keys() >= FIGURES
    assert {name: content[name] for name in DEFECTS} == dict.fromkeys(DEFECTS, 0)
    assert content["applied"] == content["events"] > 0
    assert content["refused"] == 0
    assert content["changes"] >= content["transactions"] > 0
    assert content["live_events"] > 100
    waits = content["commit_to_applied_ms"]
    assert 0 <= waits["p50"] <= waits["p95"] <= waits["p99"] <= waits["max"]
    assert content["pss_mb"].keys() == {"postgres", "kafka", "connect", "worker", "consumer"}
    assert all(size > 10 for size in content["pss_mb"].values())
    assert content["setup_s"].keys() == {"download", "install"}
    assert content["seconds_to_first_event"] > 0


@pytest.mark.timeout(300)
def test_interrupted_run_leaves_nothing_running(folder: Path) -> None:
    """Ctrl-C in the middle of the live load stops everything that the run started, and no figures are written."""
    target = folder / "out.json"
    target.write_text("from before")
    process = start(folder, "--instances", "60", "--rate", "20", "--seconds", "300", "--json", str(target))
    said = wait_for_line(process, "live load", 180)
    assert re.search(r"\n  waiting for the snapshot of \d+ rows: \d+ events published, \d+ applied\n", said), said

    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=90)

    assert process.returncode == 130, said + "".join(rest)
    assert running_in(folder) == []
    assert not target.exists()


def wait_for_line(process: subprocess.Popen[str], text: str, timeout_s: float) -> str:
    """Read what the job says until a line holds *text*."""
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + timeout_s
    while text not in said:
        line = process.stderr.readline()
        assert line, f"ended early:\n{said}"
        assert time.monotonic() < deadline, said
        said += line
    return said


@pytest.mark.timeout(120)
def test_nothing_to_compare_gives_code_2_and_no_file(folder: Path) -> None:
    """When the pipeline cannot be brought up, the exit code is 2 and no figures are written."""
    target = folder / "out.json"
    target.write_text("from before")
    (folder / ".rowcast").write_text("a file where the state folder should be")
    try:
        code, said = run(folder, "--json", str(target), timeout_s=90)
    finally:
        (folder / ".rowcast").unlink()

    assert code == 2, said
    assert not target.exists()
