"""
Partitions of the captured tables, as heartbeats tell of them, and whose rows came or went without a trace in the WAL.

PostgreSQL writes nothing there when a table with rows is attached as a partition, or a partition is detached, dropped,
rewritten, or truncated by its own name. A TRUNCATE of the whole table is written: it is a change of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rowcast.errors import StopError

# The partitions of each partitioned table: oids, those that were attached with `@<transaction>`.
PARTITIONS = "partitions"
# For each of them, by oid: `<file>/<transaction>`, the file that holds its rows, and what put its entry into the
# catalogue.
FILES = "files"
# The tables of which the log has a TRUNCATE since they were told, each with its transaction.
_TRUNCATED = "truncated"

Told = Mapping[str, Any]


class Capture(NamedTuple):
    """
    What is known of partitions besides what heartbeats have told.

    *begun*: what there was when the source was set up, before its first snapshot. *truncated*: tables and transactions
    of TRUNCATEs that the change log has, and no kept heartbeat.
    """

    begun: Told | None = None
    truncated: frozenset[tuple[str, int]] = frozenset()


_NOTHING: Told = {}


def keep_truncated(heartbeat: Told, truncated: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """*heartbeat* with TRUNCATEs that the next one to tell of partitions will show."""
    known = {(str(table), int(xid)) for table, xid in heartbeat.get(_TRUNCATED, ())}
    return {**heartbeat, _TRUNCATED: sorted([table, xid] for table, xid in {*known, *truncated})}


def follow_partitions(source: str, former: Told | None, beat: dict[str, Any], capture: Capture) -> dict[str, Any]:
    """
    *beat* with what is known of partitions after it; *former* is the heartbeat before it.

    Raises:
        StopError: rows came or went of which nothing is in the WAL.

    """
    former = former or _NOTHING
    found, files = beat.pop(PARTITIONS, None), beat.pop(FILES, None)
    if not isinstance(found, dict):
        kept = {**beat, **{name: former[name] for name in (PARTITIONS, FILES, _TRUNCATED) if name in former}}
        return keep_truncated(kept, capture.truncated) if capture.truncated else kept
    begun = capture.begun or _NOTHING
    truncated = {(str(table), int(xid)) for table, xid in former.get(_TRUNCATED, ())} | capture.truncated
    told, told_files = (former.get(name, begun.get(name)) for name in (PARTITIONS, FILES))
    changes = [] if told is None else list(_came_or_went(told, found))
    if isinstance(files, dict) and told_files is not None:
        changes += _rewritten(told_files, files, truncated)
    if changes:
        raise StopError(
            "PARTITIONS_CHANGED",
            f"{'; '.join(changes)}: their rows came or went without a trace in the WAL",
            remedy=f"rowcast sources resnapshot {source} --yes",
        )
    return {**beat, PARTITIONS: found, **({FILES: files} if isinstance(files, dict) else {})}


def forget_partitions(heartbeat: Told | None) -> dict[str, Any] | None:
    """*heartbeat* without what it says of partitions: a new snapshot reads all of them."""
    if heartbeat is None:
        return None
    return {name: value for name, value in heartbeat.items() if name not in (PARTITIONS, FILES, _TRUNCATED)}


def _came_or_went(told: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for table in sorted({*told, *found}):
        before, now = set(told.get(table, ())), set(found.get(table, ()))
        attached = {each for each in now - before if "@" in each}
        gone = {_oid(each) for each in before} - {_oid(each) for each in now}
        if attached:
            yield f"{table}: {len(attached)} partitions were attached"
        if gone:
            yield f"{table}: {len(gone)} partitions were detached or dropped"


def _oid(partition: str) -> str:
    return partition.partition("@")[0]


def _rewritten(
    told: Mapping[str, Mapping[str, str]], found: Mapping[str, Mapping[str, str]], truncated: set[tuple[str, int]]
) -> Iterator[str]:
    for table, now in sorted(found.items()):
        before = told.get(table, {})
        # A table begins with a file of its own number.
        changed = [oid for oid, file in now.items() if _file(file) != _file(before.get(oid, oid))]
        xids = {str(xid) for name, xid in truncated if name == table}
        written = {_xid(now[oid]) for oid in changed}
        # In a savepoint the TRUNCATE of a table has a transaction of its own: one for all partitions.
        explained = written <= xids or (xids and len(written) == 1 and len(changed) == len(now) > 1)
        if changed and not explained:
            yield f"{table}: {len(changed)} partitions were truncated by their own names, or rewritten"


def _file(entry: str) -> str:
    return entry.partition("/")[0]


def _xid(entry: str) -> str:
    return entry.partition("/")[2]
