"""Planted bugs: each patch in `mutants/` breaks one rule, and the campaign finds it within ten rounds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack_fixture import REPOSITORY

from campaign.finding import Checker
from campaign.stand import Stand

MUTANTS = sorted((Path(__file__).parent / "mutants").glob("*.patch"))
ROUNDS = 10
PACKAGES = ("benchmarks", "campaign", "examples", "rowcast", "stream_app")


def header(mutant: Path) -> dict[str, str]:
    """The lines before the patch: ``Checker``, which finds it, and ``Breaks``, the rule."""
    lines = mutant.read_text().partition("diff --git")[0].splitlines()
    return {name: value for name, _, value in (line.partition(": ") for line in lines if line)}


def git_apply(mutant: Path, folder: Path, *options: str) -> None:
    """Apply a patch to the tree in *folder*."""
    # A tree inside of a checkout, and none of its own, would be passed over without a word.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(
        ["git", "apply", *options, str(mutant)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{mutant.name} does not fit the code any more: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.stem)
def test_a_mutant_fits_the_code(mutant: Path) -> None:
    """It names a checker and a rule, and can be applied."""
    assert header(mutant).keys() == {"Checker", "Breaks"}
    assert header(mutant)["Checker"] in set(Checker)
    git_apply(mutant, REPOSITORY, "--check")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    The folder of a stack that all mutants share.

    The first campaign starts it, and not the tests: a server that another process kills would stay a child of theirs
    that has ended, and so in the way of its successor.
    """
    folder = tmp_path_factory.mktemp("campaign")
    try:
        yield folder
    finally:
        Stand(folder).wipe()


@pytest.mark.matrix
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.stem)
def test_the_campaign_finds_a_planted_bug(mutant: Path, standing: Path, tmp_path: Path) -> None:
    """Within ten rounds, by the checker that the patch names."""
    tree, found = tmp_path / "tree", tmp_path / "found.json"
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    git_apply(mutant, tree)
    wanted = header(mutant)["Checker"]
    command = [sys.executable, "-m", "campaign", "--seeds", str(ROUNDS), "--until", wanted]
    done = subprocess.run(
        [*command, "--stack", str(standing), "--keep", "--json", str(found)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    checks = json.loads(found.read_text())["sums"]["checks"]
    assert checks[wanted] > 0, f"{checks}\n{done.stderr[-3000:]}"
