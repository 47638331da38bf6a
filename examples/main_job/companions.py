"""
The worker and the consumer: started as processes of their own, remembered in the state folder.

A later run finds them by pid and start time and goes on with them; nothing else is ever signalled.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rowcast.local.processes import Command, RunningProcess, log_tail, start_detached

_STOP_TIMEOUT_S = 15.0


class CompanionError(Exception):
    """A process that has to run ended; the message carries the end of its log."""


class Companions:
    """The processes around the stack whose state is in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "main_job.json"
        self._processes = _read(self._file)
        self.started: list[str] = []

    @property
    def processes(self) -> Mapping[str, RunningProcess]:
        """Those that were started and not stopped, by name."""
        return self._processes

    def ensure(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Start a Python program as *name* unless it runs; returns whether it was started."""
        running = self._processes.get(name)
        if running is not None and running.alive():
            return False
        command = Command([sys.executable, *arguments], self.log(name), self._folder, dict(environment))
        self._processes[name] = start_detached(command)
        self.started.append(name)
        self._save()
        return True

    def check(self) -> None:
        """
        See that all of them are alive.

        Raises:
            CompanionError: one has ended.

        """
        for name, process in self._processes.items():
            if not process.alive():
                tail = "\n".join(f"  | {line}" for line in log_tail(self.log(name)))
                raise CompanionError(f"the {name} ended; {self.log(name)} says:\n{tail}")

    def stop(self, names: Sequence[str]) -> list[str]:
        """Stop these in order and forget them; returns those that were alive."""
        stopped = []
        for name in names:
            process = self._processes.pop(name, None)
            if process is not None and process.alive():
                process.stop(signal.SIGTERM, timeout_s=_STOP_TIMEOUT_S)
                stopped.append(name)
        self._save()
        return stopped

    def log(self, name: str) -> Path:
        """Where *name* writes what it has to say."""
        return self._folder / "logs" / f"{name}.log"

    def _save(self) -> None:
        if self._processes:
            self._file.write_text(json.dumps({name: asdict(each) for name, each in self._processes.items()}))
        else:
            self._file.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, RunningProcess]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        path.unlink()  # cut short by a crash while it was written: nobody can be found by it
        return {}
    return {name: RunningProcess(entry["pid"], entry["started_at"]) for name, entry in content.items()}
