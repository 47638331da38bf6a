"""The status of a source as text."""

from __future__ import annotations

from collections.abc import Iterator

from rowcast.cli.count import counted
from rowcast.sources.health import Position, SourceStatus


def status_lines(status: SourceStatus) -> Iterator[str]:
    """What is known of a source, part by part, then what is wrong; what could not be asked has no line."""
    yield f"{status.source}: {'healthy' if status.healthy else 'NOT HEALTHY'}"
    connector, slot = status.connector, status.slot
    if connector:
        yield f"  connector  {connector.state}, task {connector.task_state or 'missing'}"
    if slot:
        yield (
            f"  slot       {'active' if slot.active else 'inactive'}, {slot.wal_status}, confirmed"
            f" {slot.confirmed_flush_lsn}, {slot.unconfirmed_bytes} bytes behind, keeps {slot.retained_bytes} bytes"
        )
    if status.position:
        yield f"  worker     {_worker(status.position)}"
    if status.lag_records is not None:
        yield f"  change log {counted(status.lag_records, 'record')} in front of the worker"
    if status.slot or status.position:
        yield f"  heartbeat  {_beats(status)}"
    for problem in status.problems:
        yield f"  {problem.code}: {problem.message}\n    remedy: {problem.remedy}"


def _worker(position: Position) -> str:
    state = f"{position.status}, owned by {position.holder}" if position.held else "none owns the source"
    if position.status == "stopped":
        state = f"stopped, {f'owned by {position.holder}' if position.held else 'none owns the source'}"
    read = "nothing read yet" if position.next_offset is None else f"next offset {position.next_offset}"
    moved = "" if position.age_s is None else f", moved {_age(position.age_s)}"
    return f"{state}, epoch {position.epoch}, {read}{moved}, {position.refused} refused"


def _beats(status: SourceStatus) -> str:
    return f"{_age(status.heartbeat_age_s)} at the connector, {_age(status.applied_heartbeat_age_s)} at the worker"


def _age(age_s: float | None) -> str:
    return "none" if age_s is None else f"{age_s:.1f} s ago"
