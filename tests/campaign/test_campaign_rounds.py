"""Rounds of the campaign as anybody runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from stack_fixture import REPOSITORY, SharedStack

SEEDS = 3


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Any instance may die")
def test_rounds_of_the_campaign_are_clean(stack: SharedStack, tmp_path: Path) -> None:
    """Fresh seeds, told where one fails; the stack goes on running."""
    found, ledger = tmp_path / "found.json", tmp_path / "ledger.jsonl"
    options = ["--seeds", str(SEEDS), "--stack", str(stack.folder)]
    done = subprocess.run(
        [str(REPOSITORY / "scripts/campaign"), *options, "--json", str(found), "--ledger", str(ledger)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stderr)
    assert done.returncode == 0
    content = json.loads(found.read_text())
    assert content["sums"]["rounds"] + content["sums"]["void"] == SEEDS
    assert content["sums"]["rounds"] > 0, "all are void"
    assert not any(content["sums"]["checks"].values())
    assert [json.loads(line)["seed"] for line in ledger.read_text().splitlines()] == [
        each["seed"] for each in content["rounds"]
    ]
