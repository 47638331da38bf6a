"""
A planned change: what would be done to which object and why, and the call that does it.

`plan` prints changes, `apply` makes them; both come from one list, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Area = Literal["control database", "source database", "topics", "connect"]
Action = Literal["create", "alter", "restart"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change: *action* on *object* in *area* for *source*, and the *reason*."""

    source: str
    area: Area
    action: Action
    object: str
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """
    A change and what makes it; *run* may be called again after a failure.

    *statement* is the SQL that makes it, where it is made in a source's database.
    """

    change: Change
    run: Callable[[], object]
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something about *object* that is not as it should be, though `apply` can go on: what, and the *fix*."""

    source: str
    object: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.source}: note: {self.object}: {self.message} ({self.fix})"


Tell = Callable[[Note], None]


def untold(_note: Note) -> None:
    """Where nobody reads notes."""
