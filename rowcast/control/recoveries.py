"""Recoveries of sources: what they are stopped with, and which steps of a recovery are done."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from rowcast.control.halts import read_halts
from rowcast.control.remedies import BY_HAND, HALTED_STEPS, STEPS, RecoveryStep, recovery_command
from rowcast.errors import ConfigurationError

_STATE = "SELECT removed, status, stopped_code FROM rowcast.source WHERE source = %s"
_OPEN = "SELECT code, steps_done, halted FROM rowcast.recovery WHERE source = %s AND finished_at IS NULL"
_BEGIN = """
INSERT INTO rowcast.recovery AS r (source, code, asked_by, halted) VALUES (%s, %s, %s, %s)
ON CONFLICT (source) DO UPDATE SET code = excluded.code, steps_done = 0, asked_by = excluded.asked_by,
    halted = excluded.halted, begun_at = clock_timestamp(), finished_at = NULL
"""
_NOTE = """
UPDATE rowcast.recovery SET steps_done = %s, finished_at = CASE WHEN %s THEN clock_timestamp() END WHERE source = %s
"""
NOT_APPLIED = "NOT_APPLIED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """
    A recovery of *source* from *code*: *done* of its steps were taken; *begun*, when it is noted.

    *halted*: of the types that are halted with the code, while the source goes on.
    """

    source: str
    code: str
    done: int = 0
    begun: bool = False
    halted: bool = False

    @property
    def steps(self) -> Sequence[RecoveryStep]:
        """All steps, in order."""
        return HALTED_STEPS if self.halted else STEPS[self.code]

    @property
    def finished(self) -> bool:
        """Whether all steps were taken."""
        return self.done == len(self.steps)

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        steps = [{"step": step, "done": number < self.done} for number, step in enumerate(self.steps)]
        return {"source": self.source, "code": self.code, "steps": steps, "finished": self.finished}


def stopped_with(connection: psycopg.Connection, source: str) -> str | None:
    """The code that *source* is stopped with; None: it is not stopped."""
    row = connection.execute(_STATE, (source,)).fetchone()
    if row is None or row[0]:
        return NOT_APPLIED
    return str(row[2]) if row[1] == "stopped" else None


def find_recovery(connection: psycopg.Connection, source: str, code: str) -> Recovery:
    """
    The recovery of *source* from *code* that was begun and not finished, or the one that would begin.

    Raises:
        ConfigurationError: no command recovers from it, or the source is not stopped with it.

    """
    row = connection.execute(_OPEN, (source,)).fetchone()
    begun = None
    if row is not None:
        begun = Recovery(source=source, code=str(row[0]), done=int(row[1]), begun=True, halted=bool(row[2]))
    state = stopped_with(connection, source)
    halted = state is None and code in {each.code for each in read_halts(connection, source)}
    return recovery_from(Recovery(source=source, code=code, halted=halted), state, begun)


def recovery_from(wanted: Recovery, state: str | None, begun: Recovery | None) -> Recovery:
    """
    What is left of the *wanted* recovery of a source that is stopped with *state*, when one has *begun* before.

    Raises:
        ConfigurationError: no command recovers from the code, or the source is not stopped with it.

    """
    where, code = f"source {wanted.source}", wanted.code
    if state is None and begun is not None and begun.halted and begun.code == code:
        return begun  # the types may go on already, and that not be noted
    if wanted.halted:
        return wanted
    if code in BY_HAND:
        raise ConfigurationError(f"no command recovers from {code}", where=where, fix=BY_HAND[code])
    if code not in STEPS:
        raise ConfigurationError(f"no recovery is known for {code}", where=where, fix=f"known: {', '.join(STEPS)}")
    if state == code:
        return wanted
    # The steps of one that has begun resume the source, or take it out of service for a while.
    if begun is not None and begun.code == code and state in (None, NOT_APPLIED):
        return begun
    actual = "is not stopped" if state is None else f"is stopped with {state}"
    raise ConfigurationError(f"{actual}, so not with {code}", where=where, fix=_fix(wanted.source, state))


def _fix(source: str, state: str | None) -> str:
    status = f"rowcast sources status {source}"
    return BY_HAND.get(state, recovery_command(source, state)) if state is not None else status


def note_begun(connection: psycopg.Connection, recovery: Recovery) -> None:
    """Note that *recovery* begins, unless it has."""
    if not recovery.begun:
        connection.execute(_BEGIN, (recovery.source, recovery.code, getpass.getuser(), recovery.halted))


def note_done(connection: psycopg.Connection, recovery: Recovery, done: int) -> None:
    """Note that *done* steps of *recovery* were taken."""
    connection.execute(_NOTE, (done, done == len(recovery.steps), recovery.source))
