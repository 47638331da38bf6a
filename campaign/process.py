"""Worker and consumer of a round: programs that are started again whenever they have died."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parent.parent
_KILL_TIMEOUT_S = 15.0
_ENDS_MAX = 3
_ERRORS_MAX = 5
_ERROR = re.compile(r"\bERROR\b")  # as worker and consumer write it


class Role:
    """
    A Python program as *name*; `keep` starts it again. Its standard output goes to a file in *folder*.

    *ended* counts how often it ended although nobody had killed it. *closed*: it is not started again.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self._arguments = name, arguments
        self.log = folder / f"{name}.log"
        self._environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY), **environment}
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self.closed = False
        self.ended = 0

    def start(self, failpoints: str = "") -> None:
        """Start it, with *failpoints* for this process alone."""
        with self._lock, self.log.open("ab") as log:
            # A session of its own: a Ctrl-C on the terminal is for the campaign, which ends it in order.
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, "ROWCAST_FAILPOINTS": failpoints},
                start_new_session=True,
            )

    def keep(self) -> None:
        """Start it again if it is dead; not one that ends again and again by itself, which is a finding."""
        with self._lock:
            if self.closed or self._process is None or self._process.poll() is None or self.ended > _ENDS_MAX:
                return
            if self._process.returncode != -signal.SIGKILL:
                self.ended += 1
            if self.ended <= _ENDS_MAX:
                self.start()

    def kill(self) -> int | None:
        """SIGKILL; the process that dies, None where none runs."""
        return self._signal(signal.SIGKILL)

    def freeze(self) -> int | None:
        """SIGSTOP; the process that is frozen now, None where none runs."""
        return self._signal(signal.SIGSTOP)

    def died(self) -> bool:
        """Whether the process is dead, or frozen by itself."""
        with self._lock:
            return self._process is not None and (self._process.poll() is not None or is_frozen(self._process.pid))

    def pid(self) -> int | None:
        """Of the process that runs, or ran last."""
        with self._lock:
            return None if self._process is None else self._process.pid

    def last_words(self) -> list[str]:
        """The last errors in its log, and its last line: for whoever looks into a finding."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        told = [line for line in lines[:-1] if _ERROR.search(line)][-_ERRORS_MAX:] + lines[-1:]
        return [f"{self.name}: {line.strip()}" for line in told]

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            self.closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait(_KILL_TIMEOUT_S)

    def _signal(self, number: signal.Signals) -> int | None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return None
            self._process.send_signal(number)
            return self._process.pid


def is_frozen(pid: int) -> bool:
    """Whether a process is stopped by SIGSTOP."""
    try:
        return "State:\tT" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def thaw(pid: int) -> None:
    """SIGCONT, if the process is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
