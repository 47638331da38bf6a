"""A lock that holds between processes: one at a time downloads, starts or stops."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.errors import ConfigurationError

_PAUSE_S = 0.1


@contextmanager
def held_lock(path: Path, *, timeout_s: float, what: str, progress: Callable[[str], None]) -> Iterator[None]:
    """
    Hold the lock file *path*; the operating system lets go of it when the process ends, however it ends.

    *what* says who else may hold it. The file may be deleted while the lock is held; whoever waited for it
    then takes a new one.

    Raises:
        ConfigurationError: somebody else held it for *timeout_s* seconds.

    """
    deadline_s = time.monotonic() + timeout_s
    told = False
    while True:
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() > deadline_s:
                fix = "wait for it, or end it, then try again"
                raise ConfigurationError(f"{what} has held this lock for too long", where=str(path), fix=fix) from None
            if not told:
                progress(f"waiting for {what}")
                told = True
            time.sleep(_PAUSE_S)
            continue
        if _is_current(handle, path):
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # the folder was deleted in between by whoever held the lock


def _is_current(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
