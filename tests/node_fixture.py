"""The reader in Node, installed from its lock file: what tests with another language's client share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[1] / "examples/node_reader"

Reader = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def node_reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A function that runs the reader with its four arguments."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("Node 18 or newer and npm are needed; on Debian: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node") / "reader"
    shutil.copytree(_FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert installed.returncode == 0, installed.stderr

    def read(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["node", "reader.js", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)

    return read
