"""What the three parts of the stack have in common, as the rest of this package sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rowcast.errors import RowcastError
from rowcast.local.processes import Command, log_tail
from rowcast.local.program import Program


class StackError(RowcastError):
    """A part of the embedded stack does not start or ended; the message carries its log's last lines."""


class Part(Protocol):
    """A server of the stack: how to prepare, start, ask and stop it."""

    @property
    def name(self) -> str:
        """``postgres``, ``kafka`` or ``connect``."""

    @property
    def log(self) -> Path:
        """Where the server writes, standard output and error."""

    @property
    def ports(self) -> tuple[str, ...]:
        """The names under which its ports are remembered; the first is the one that clients use."""

    def prepare(self, cancelled: threading.Event) -> None:
        """Make data folders and write configuration; cheap when already done."""

    def command(self) -> Command:
        """How the server is started."""

    def answers(self) -> bool:
        """Whether it serves clients now, asked as a client asks."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """
    One part as `rowcast status` shows it.

    *alive*: its process runs; *answering*: it serves clients; *pss_mb*: proportional set size in MiB with all
    children, None when unknown; *log_tail*: the last lines of its log, only when it does not answer; *program*:
    what it runs on, or ran on last, None when it was never started.
    """

    name: str
    pid: int | None
    port: int | None
    alive: bool
    answering: bool
    pss_mb: float | None
    log: str
    log_tail: tuple[str, ...] = ()
    program: Program | None = None


Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody reads."""


def failure(part: Part, what: str) -> StackError:
    """The error for *part*, with the end of its log."""
    tail = "\n".join(f"  | {line}" for line in log_tail(part.log))
    return StackError(f"{part.name} {what}; the end of {part.log}:\n{tail or '  | (empty)'}")
