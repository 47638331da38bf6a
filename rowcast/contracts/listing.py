"""The JSON files of a schemas folder, found in one walk: a check of many contracts asks for each of its folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class Listing:
    """The JSON files under *top*, by folder. What cannot be read counts as empty."""

    def __init__(self, top: Path) -> None:
        self._names: dict[str, list[str]] = {}
        waiting = [str(top)]
        while waiting:
            folder = waiting.pop()
            self._names[folder] = names = []
            try:
                entries = os.scandir(folder)
            except OSError:
                continue
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.name.endswith(".json"):
                        names.append(entry.name)

    def files(self, folder: str) -> list[str]:
        """The JSON files of one folder, in order; of none, where there is no such folder."""
        names = self._names.get(folder)
        if names is None:
            # The walk does not follow links, which may lead in circles; a single folder may be one.
            try:
                names = [name for name in os.listdir(folder) if name.endswith(".json")]  # noqa: PTH208 - names, not paths
            except OSError:
                return []
        return [f"{folder}/{name}" for name in sorted(names)]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Folder and path of every file, in order."""
        for folder in sorted(self._names):
            for file in self.files(folder):
                yield folder, file
