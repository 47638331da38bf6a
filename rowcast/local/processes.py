"""
Server processes that outlive the command that started them.

A process is known by its pid together with its start time, so that a pid which the system gave to somebody
else in the meantime is neither taken for alive nor ever signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PAUSE_S = 0.02
_LINE_LIMIT = 400
# psutil derives start times from clock ticks of 10 ms; two processes with one pid are further apart than this.
_SAME_START_S = 0.5
# What is safe to hand to a server: its behaviour must not depend on the shell that started it.
_PASSED_ENVIRONMENT = ("PATH", "TZ", "LANG", "LC_ALL")

# Children of this process, kept so that they are reaped and never linger as zombies.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Account:
    """The operating-system user that runs a process."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run: *arguments*, its *log* file (appended to), its folder, extra environment and account."""

    arguments: Sequence[str]
    log: Path
    folder: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process that was started: *started_at* in epoch seconds, as the operating system tells it."""

    pid: int
    started_at: float

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self._process() is not None

    def pss_mb(self) -> float | None:
        """Proportional set size in MiB, children included; None when it is gone or may not be looked at."""
        process = self._process()
        if process is None:
            return None
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return None
        total = 0
        for member in family:
            try:
                total += member.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue  # a backend that ended while we were counting
            except psutil.AccessDenied:
                return None
        return total / 2**20

    def stop(self, stop_signal: signal.Signals, *, timeout_s: float) -> bool:
        """Ask it to end with *stop_signal*, kill it and its children after *timeout_s*; True if it ended by itself."""
        process = self._process()
        if process is None:
            return True
        family = _children_of(process)
        try:
            process.send_signal(stop_signal)
        except psutil.NoSuchProcess:
            return True
        if self._ended_within(timeout_s):
            return True
        for member in (*family, *_children_of(process), process):
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        self._ended_within(10.0)
        return False

    def _ended_within(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_PAUSE_S)
        return True

    def _process(self) -> psutil.Process | None:
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            del _children[self.pid]
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) < _SAME_START_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def start_detached(command: Command) -> RunningProcess:
    """Start *command* in a session of its own: it outlives this process and does not hear its Ctrl-C."""
    child = _popen(command)
    _children[child.pid] = child
    return RunningProcess(child.pid, psutil.Process(child.pid).create_time())


def passed_environment() -> dict[str, str]:
    """What of this process's environment a server gets."""
    return {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}


def run_to_end(command: Command, *, timeout_s: float, cancelled: threading.Event) -> int | None:
    """Run *command* and return its exit code; None when it was killed for taking too long or being *cancelled*."""
    child = _popen(command)
    deadline_s = time.monotonic() + timeout_s
    try:
        while child.poll() is None and time.monotonic() < deadline_s and not cancelled.is_set():
            cancelled.wait(_PAUSE_S)
        return child.poll()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)  # its own session: what it started goes with it
            child.wait()


def marked(mark: str) -> list[RunningProcess]:
    """The processes with *mark* as an argument (``-D`` before it or not), also those that nobody wrote down."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                any(argument in (mark, f"-D{mark}") for argument in process.cmdline())
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(RunningProcess(process.pid, process.create_time()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone, or not ours to look at
    return found


def working_in(folder: Path) -> list[RunningProcess]:
    """The processes whose current folder is *folder*."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(RunningProcess(process.pid, process.create_time()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone, or not ours to look at
    return found


def log_tail(path: Path, lines: int = 15) -> list[str]:
    """The last *lines* of a log file, [] when there is none."""
    try:
        with path.open("rb") as opened:
            opened.seek(0, os.SEEK_END)
            opened.seek(max(0, opened.tell() - 16_384))
            tail = opened.read().decode(errors="replace").splitlines()[-lines:]
            return [line[:_LINE_LIMIT] for line in tail]
    except FileNotFoundError:
        return []


def _popen(command: Command) -> subprocess.Popen[bytes]:
    environment = passed_environment() | dict(command.environment)
    account = command.account
    with command.log.open("ab") as log:
        return subprocess.Popen(
            list(command.arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=command.folder,
            env=environment,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
