"""
A recovery: the steps that bring a stopped source back, each noted when it is done.

A call that dies is gone on with by the next one. Each step may be repeated, because it may be done and not yet noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import psycopg

from rowcast.control.database import connect, migrate
from rowcast.control.halts import read_halts
from rowcast.control.recoveries import Recovery, find_recovery, note_begun, note_done
from rowcast.control.remedies import RecoveryStep
from rowcast.control.stops import resume
from rowcast.errors import ConfigurationError
from rowcast.failpoint import failpoint
from rowcast.sources.plan import apply
from rowcast.sources.resnapshot import capture_anew
from stream_app.drift import SUPERSEDED
from stream_app.rebuild import Rebuilding, declared, hold_lock, rebuild
from stream_app.resync import resync_source

# Whoever recovers a source holds this lock, with the hash of the source's name.
_LOCK = 0x5265_6376


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovering:
    """What is asked for: recover from *code*, as *rebuilding* says otherwise; a worker has *timeout_s* to answer."""

    code: str
    rebuilding: Rebuilding
    timeout_s: float

    @property
    def source(self) -> str:
        """The name of the source."""
        return self.rebuilding.file.source


def recover(asked: Recovering) -> Recovery:
    """
    Take the steps that are not done yet; only say which they are, unless it is really asked for.

    Raises:
        ConfigurationError: the source is not stopped with the code, no command recovers from it, or something has to be
            mended before; steps that were done stay done.
        TransientError: a part is not reachable; likewise.

    """
    url = asked.rebuilding.settings.control().url
    with connect(url, application="rowcast sources recover", autocommit=True) as control:
        migrate(control)
        hold_lock(control, _LOCK, asked.source)
        recovery = find_recovery(control, asked.source, asked.code)
        declared(asked.rebuilding)  # refuses what the file and the database do not allow, before anything is touched
        if not asked.rebuilding.really:
            return recovery
        note_begun(control, recovery)
        for number, step in enumerate(recovery.steps, 1):
            if number <= recovery.done:
                continue
            asked.rebuilding.progress(f"step {number} of {len(recovery.steps)}: {step}")
            if recovery.halted and step is RecoveryStep.RESYNC:
                _resync_halted(control, asked)
            else:
                _TAKEN[step](asked)
            failpoint("recovery.in_step")
            note_done(control, recovery, number)
            failpoint("recovery.after_step")
    return replace(recovery, done=len(recovery.steps), begun=True)


def _apply(asked: Recovering) -> None:
    for change in apply([asked.rebuilding.file], asked.rebuilding.settings):
        asked.rebuilding.progress(f"{change.action} {change.object}")


def _resume(asked: Recovering) -> None:
    url = asked.rebuilding.settings.control().url
    with connect(url, application="rowcast sources recover", autocommit=True) as control:
        resume(control, asked.source)


def _resnapshot(asked: Recovering) -> None:
    rebuilding = asked.rebuilding
    capture_anew(rebuilding.file, rebuilding.settings, rebuilding.progress, asked.timeout_s)


def _resync_halted(control: psycopg.Connection, asked: Recovering) -> None:
    """Read the tables of all tenants, and of all types, anew that are halted with the code because of themselves."""
    for halt in read_halts(control, asked.source):
        if halt.code == asked.code and halt.aggregate == halt.cause:
            _resync(asked, None if halt.tenant else halt.aggregate, halt.tenant)


def _resync(asked: Recovering, aggregate: str | None = None, tenant: str | None = None) -> None:
    deadline_s = time.monotonic() + asked.timeout_s
    chosen = (aggregate, tenant)
    resynced = resync_source(asked.source, asked.rebuilding.settings, asked.timeout_s, chosen)
    # The step before may have applied another definition, which the worker takes over within seconds.
    while SUPERSEDED in resynced.outcome and time.monotonic() < deadline_s:
        resynced = resync_source(asked.source, asked.rebuilding.settings, asked.timeout_s, chosen)
    asked.rebuilding.progress(resynced.outcome)
    if not resynced.applied:
        raise ConfigurationError(
            "the database is not compared yet", where=f"source {asked.source}", fix="start a worker, then run it again"
        )


def _rebuild(asked: Recovering) -> None:
    rebuild(asked.rebuilding)


_TAKEN: Mapping[RecoveryStep, Callable[[Recovering], None]] = {
    RecoveryStep.APPLY: _apply,
    RecoveryStep.RESUME: _resume,
    RecoveryStep.RESNAPSHOT: _resnapshot,
    RecoveryStep.RESYNC: _resync,
    RecoveryStep.REBUILD: _rebuild,
}
