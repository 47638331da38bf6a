"""The benchmark as a developer runs it, with tiny workloads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stack_fixture import SharedStack, wait_until
from test_main_job import REPOSITORY, running_in

COMMAND = (sys.executable, "-m", "benchmarks")
SPREAD = {"median", "min", "max"}


def run(*options: str) -> None:
    """Run the benchmark to its end; fails when it has no figures."""
    done = subprocess.run(
        [*COMMAND, *options], cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_every_stage_is_measured_and_its_counts_verify(stack: SharedStack, tmp_path: Path) -> None:
    """One small workload through all stages gives all documented figures, and nothing of it stays on the stack."""
    target = tmp_path / "bench.json"

    run("--workload", "trees", "--rounds", "1", "--scale", "0.02", "--stack", str(stack.folder), "--json", str(target))

    content = json.loads(target.read_text())
    assert list(content) == ["machine", "settings", "ratios", "stages", "rounds"]
    check_round(*content["rounds"])
    assert content["ratios"]["sequencer_to_debezium"]["trees"].keys() == SPREAD
    assert content["stages"]["together"]["trees"]["rows_per_s"].keys() == SPREAD
    assert content["machine"].keys() >= {"cores", "memory_mb", "cpu", "kernel", "python", "versions"}
    assert content["settings"].keys() >= {"commit", "postgresql", "connector", "consumer", "scale", "rounds"}
    assert list((stack.folder / "bench").iterdir()) == []


def check_round(figures: dict[str, Any]) -> None:
    """Every stage has counted all 1,000 rows of 100 trees, and has a rate."""
    assert {figures[stage]["trees"]["rows"] for stage in ("debezium", "sequencer", "together")} == {1000}
    assert all(figures[stage]["trees"]["rows_per_s"] > 0 for stage in ("debezium", "sequencer", "together"))
    assert figures["sequencer"]["trees"]["events"] == 1000
    assert figures["sequencer"]["trees"]["worker_pss_mb"] > 10
    assert {name: each["events"] for name, each in figures["consumer"].items()} == {
        "trees_orders": 1000,
        "trees_upsert": 1000,
        "trees_upsert_batch": 1000,
    }
    assert figures["latency"].keys() == {"50", "200", "500"}
    waits = figures["latency"]["50"]
    assert 0 <= waits["p50_ms"] <= waits["p95_ms"] <= waits["p99_ms"] <= waits["max_ms"]


@pytest.mark.matrix
@pytest.mark.timeout(240)
def test_a_takeover_is_timed(stack: SharedStack, tmp_path: Path) -> None:
    """No sooner than the lease runs out, and with an effect for every transaction."""
    target = tmp_path / "bench.json"
    run("--only", "takeover", "--rounds", "1", "--stack", str(stack.folder), "--json", str(target))
    assert 0 < json.loads(target.read_text())["rounds"][0]["takeover"]["kill"]["takeover_s"] < 30


@pytest.mark.matrix
@pytest.mark.timeout(240)
def test_interrupted_benchmark_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while the sequencer works stops everything that was started and deletes the temporary stack."""
    target, said = tmp_path / "bench.json", tmp_path / "said"
    options = ("--only", "sequencer", "--workload", "rows", "--rounds", "50", "--scale", "0.05", "--json", str(target))
    with said.open("w") as output:
        process = subprocess.Popen(
            [*COMMAND, *options], cwd=REPOSITORY, stderr=output, env={**os.environ, "TMPDIR": str(tmp_path)}
        )
    wait_until(lambda: "sequencer rows" in said.read_text() or process.poll() is not None, "a first figure", 120)

    process.send_signal(signal.SIGINT)

    assert process.wait(90) == 130, said.read_text()
    assert running_in(tmp_path) == []
    assert not target.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["said"]
