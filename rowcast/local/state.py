"""
What a stack remembers in its state folder: identity, ports, passwords, programs, processes.

``state.json`` is private to this package and written as soon as something changes, so that a stack can be
stopped whatever happened to the command that started it. ``stack.json`` is for the rest of Rowcast and only
there while the stack is meant to be up.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rowcast.errors import ConfigurationError
from rowcast.local.processes import RunningProcess
from rowcast.local.program import Program
from rowcast.secret_file import properties_text, write_private

# The parts of the stack write their files as everything private is written.
__all__ = ["StackState", "properties_text", "refuse_unusable", "stack_mark", "write_private"]

# These characters end or split a value in the files that Kafka and Connect read.
_UNUSABLE = ',:{}"\n\r'


class StackState:
    """The remembered values of the stack in *folder*; every change is on disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._values: dict[str, Any] = _read(folder / "state.json")

    @property
    def exists(self) -> bool:
        """Whether a stack was ever started here and not wiped."""
        return (self.folder / "state.json").exists()

    def create(self) -> None:
        """Make the folder and the identity of a new stack; keeps those of an existing one."""
        (self.folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock:
            if "id" not in self._values:
                self.folder.chmod(0o700)  # the lock made it
                self._values |= {"id": secrets.token_hex(6), "password": secrets.token_urlsafe(24)}
                self._save()

    @property
    def stack_id(self) -> str:
        """A random name, different for every stack on this machine."""
        return str(self._values["id"])

    @property
    def password(self) -> str:
        """The password of PostgreSQL's superuser."""
        return str(self._values["password"])

    def get(self, name: str) -> Any:
        """The remembered value, None when there is none."""
        return self._values.get(name)

    def put(self, name: str, value: Any) -> None:
        """Remember *value* (JSON) on disk; None forgets."""
        with self._lock:
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value
            self._save()

    def process(self, part: str) -> RunningProcess | None:
        """The process last started for *part*."""
        entry = self._values.get(f"process.{part}")
        return None if entry is None else RunningProcess(int(entry["pid"]), float(entry["started_at"]))

    def put_process(self, part: str, process: RunningProcess | None) -> None:
        """Remember the process of *part*; None after an orderly stop."""
        entry = None if process is None else {"pid": process.pid, "started_at": process.started_at}
        self.put(f"process.{part}", entry)

    def program(self, part: str) -> Program | None:
        """The program that *part* was started with last, or is about to be."""
        entry = self._values.get(f"program.{part}")
        return None if entry is None else Program(**entry)

    def put_program(self, part: str, program: Program) -> None:
        """Remember the program of *part*."""
        self.put(f"program.{part}", asdict(program))

    def _save(self) -> None:
        write_private(self.folder / "state.json", json.dumps(self._values, indent=1) + "\n")


def refuse_unusable(folder: Path) -> None:
    """
    Refuse a *folder* that the configuration of Kafka or Connect cannot name.

    Raises:
        ConfigurationError: its path has a character that ends or splits a value there.

    """
    unusable = sorted({character for character in str(folder) if character in _UNUSABLE})
    if unusable:
        raise ConfigurationError(
            f"the path contains {' '.join(map(repr, unusable))}", where=str(folder), fix="use another folder"
        )


def stack_mark(folder: Path) -> str:
    """What every process of the stack in *folder* carries in its arguments, so that `down` finds also lost ones."""
    return f"rowcast.stack={folder}"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(str(error), where=str(path), fix="run `rowcast down --wipe`") from error
    if not isinstance(values, dict):
        raise ConfigurationError("not a JSON object", where=str(path), fix="run `rowcast down --wipe`")
    return values
