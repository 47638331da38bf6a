"""Rounds of the campaign as anybody runs them."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from stack_fixture import REPOSITORY

REPEATS = 3
LONGEST_ROUND_S = 120  # on average, on a machine with much other work
STOPPED_S = 120


@pytest.mark.timeout(5400)
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Fresh")
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize(
    "rounds", [pytest.param(10, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.matrix)]
)
def test_rounds_of_the_campaign_are_clean(tmp_path: Path, rounds: int) -> None:
    """Fresh seeds of all themes, told where one fails. On a stack of their own, because they kill its servers."""
    found, ledger = tmp_path / "found.json", tmp_path / "ledger.jsonl"
    options = ["--seeds", str(rounds), "--repeats", str(REPEATS)]
    process = subprocess.Popen(
        [str(REPOSITORY / "scripts/campaign"), *options, "--json", str(found), "--ledger", str(ledger)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=LONGEST_ROUND_S * rounds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=STOPPED_S)
        pytest.fail(f"not over after {LONGEST_ROUND_S * rounds} s:\n{said[-4000:]}")
    finally:
        process.kill()
    print(said)
    assert process.returncode == 0
    content = json.loads(found.read_text())
    assert not any(content["sums"]["checks"].values())
    assert content["sums"]["rounds"] == rounds, f"{content['sums']['void']} were void, with {REPEATS} of them repeated"
    assert [json.loads(line)["seed"] for line in ledger.read_text().splitlines()] == [
        each["seed"] for each in content["rounds"]
    ]
