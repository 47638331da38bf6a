"""
Dockerfile and docker-compose.yml of a project, and those of this repository's demo: one text for both.

``python -m rowcast.draft.containers`` in the repository writes the demo's anew; a test compares them.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Literal

from rowcast import __version__

Kind = Literal["demo", "project"]
_FILES = {"docker-compose.yml": "docker-compose.yml", "Dockerfile": "Dockerfile", ".dockerignore": "dockerignore"}
# Lines between "#[kind" and "#]" are there for that kind alone.
_BLOCK = re.compile(r"^#\[(\w+)\n(.*?)^#\]\n", re.MULTILINE | re.DOTALL)


def container_files(kind: Kind) -> dict[PurePosixPath, str]:
    """The files that build and start the containers, by path below the project."""
    texts = {PurePosixPath(target): _text(name, kind) for target, name in _FILES.items()}
    # The folder is mounted, so it has to be there before the engine makes one of its own.
    return texts if kind == "demo" else texts | {PurePosixPath("secrets/.gitignore"): "*\n!.gitignore\n"}


def _text(name: str, kind: Kind) -> str:
    text = files(__package__).joinpath("frame", name).read_text(encoding="utf-8")
    chosen = _BLOCK.sub(lambda block: block[2] if block[1] == kind else "", text)
    return chosen.replace("@VERSION@", __version__)


if __name__ == "__main__":
    for path, content in container_files("demo").items():
        Path(path).write_text(content, encoding="utf-8")
