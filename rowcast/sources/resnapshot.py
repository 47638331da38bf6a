"""
A new snapshot of a source whose first one broke off, or in which something changed that the WAL does not tell.

Debezium would read the second attempt on the slot of the first, whose position does not fit. So connector,
offsets and slot go, the worker leaves the broken rows behind, and the source is applied anew. Every step may be
repeated: an interrupted call is mended by the next one.
"""

from __future__ import annotations

from collections.abc import Callable

from rowcast.control.command import wait_outcome
from rowcast.control.database import connect as connect_control
from rowcast.control.database import migrate
from rowcast.control.halts import read_halts
from rowcast.control.stops import ask_skip_snapshot, resume
from rowcast.errors import ConfigurationError
from rowcast.settings import Settings
from rowcast.sources.capture import change_log_end
from rowcast.sources.plan import apply
from rowcast.sources.removal import remove_capture
from rowcast.sources.source_file import SourceFile

# What a new snapshot makes up for.
_CODES = (
    "SNAPSHOT_INTERRUPTED",
    "PARTITIONS_CHANGED",
    "COLUMN_CHANGED",
    "DATABASE_REPLACED",
    "PUBLICATION_INCOMPLETE",
    "PUBLICATION_MISSING",
    "PUBLICATION_RECREATED",
    "SLOT_LOST",
    "TABLE_MISSING",
)


def resnapshot(source: SourceFile, settings: Settings, progress: Callable[[str], None], timeout_s: float) -> None:
    """
    Begin the snapshot of *source* again.

    Raises:
        ConfigurationError: it is not stopped for want of one, nor has halted types, or no worker has answered within
            *timeout_s*.
        TransientError: a part is not reachable.

    """
    with connect_control(settings.control().url, application="rowcast resnapshot", autocommit=True) as control:
        migrate(control)
        code = control.execute("SELECT stopped_code FROM rowcast.source WHERE source = %s", (source.source,)).fetchone()
        halted = read_halts(control, source.source)
    if code is None or not (code[0] in _CODES or (code[0] is None and halted)):
        raise ConfigurationError(
            f"is not stopped with one of {', '.join(_CODES)}, and has no halted type",
            where=source.source,
            fix="see `rowcast sources status`",
        )
    capture_anew(source, settings, progress, timeout_s)


def capture_anew(source: SourceFile, settings: Settings, progress: Callable[[str], None], timeout_s: float) -> None:
    """
    Begin the snapshot of *source* again, whatever its state is; may be repeated.

    Raises:
        ConfigurationError: no worker has answered within *timeout_s*.
        TransientError: a part is not reachable.

    """
    with connect_control(settings.control().url, application="rowcast resnapshot", autocommit=True) as control:
        remove_capture(source, settings, progress)
        # The connector is gone, so this end cannot move any more.
        end = change_log_end(settings.kafka(), source.source)
        number = ask_skip_snapshot(control, source.source, end)
        resume(control, source.source)
        outcome = wait_outcome(control, number, timeout_s)
    if outcome != "skipped":
        raise ConfigurationError(
            outcome or f"no worker has answered within {timeout_s:.0f} s; the request stands",
            where=source.source,
            fix="start a worker, then run `rowcast sources apply`",
        )
    progress(f"the worker goes on from offset {end} of the change log")
    for change in apply([source], settings):
        progress(f"{change.action} {change.object}")
