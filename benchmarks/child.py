"""A process that is measured: started in a session of its own, watched, and ended with the block that started it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.errors import MeasureError
from rowcast.local.processes import Command, RunningProcess, log_tail, start_detached

REPOSITORY = Path(__file__).resolve().parent.parent
_STOP_TIMEOUT_S = 15.0
_MEMORY_INTERVAL_S = 0.5


class Child:
    """A Python program as *name*; use it as a context manager. It logs into *folder*."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._name, self._log = name, folder / f"{name}.log"
        command = Command(
            [sys.executable, *arguments], self._log, folder, {"PYTHONPATH": str(REPOSITORY), **environment}
        )
        self.process: RunningProcess = start_detached(command)
        self.memory: list[tuple[float, float]] = []  # (moment, PSS in MiB)
        self._next_sample_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.stop(signal.SIGTERM, timeout_s=_STOP_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.stop(signal.SIGKILL, timeout_s=_STOP_TIMEOUT_S)

    def look(self) -> None:
        """
        See that it is alive, and twice a second how much memory it has.

        Raises:
            MeasureError: it has ended; with the end of its log.

        """
        if time.monotonic() < self._next_sample_s:
            return
        self._next_sample_s = time.monotonic() + _MEMORY_INTERVAL_S
        if not self.process.alive():
            tail = "\n".join(f"  | {line}" for line in log_tail(self._log))
            raise MeasureError(f"the {self._name} ended; {self._log} says:\n{tail}")
        self.memory.append((time.monotonic(), self.process.pss_mb() or 0.0))

    def peak_pss_mb(self, from_s: float = 0.0, until_s: float = float("inf")) -> float:
        """The largest proportional set size that was seen between two moments; 0: none was."""
        return max((pss_mb for at_s, pss_mb in self.memory if from_s <= at_s <= until_s), default=0.0)

    def cpu_s(self) -> float:
        """Processor seconds that it has used so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)
