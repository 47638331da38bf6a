"""
Partitions of the captured tables, as heartbeats tell of them, and whose rows came or went without a trace in the WAL.

PostgreSQL writes nothing there when a table with rows is attached as a partition, or a partition is detached, dropped,
or truncated by its own name. A TRUNCATE of the whole table is written: it is a change of the log. VACUUM FULL and
whatever else rewrites a partition gives it another file like a TRUNCATE, and leaves more rows than were inserted since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rowcast.sources.definition import TableDefinition
from stream_app.core.defect import Defect, TableDefectError

# The partitions of each partitioned table: oids, those that were attached with `@<transaction>`.
PARTITIONS = "partitions"
# For each of them, by oid: see `_File`.
FILES = "files"
# Those that were found rewritten with their rows, by oid, each with its file. The server's counters may be late, so the
# next one to tell has to say the same.
_REWRITTEN = "rewritten"
# The tables of which the log has a TRUNCATE since they were told, each with its transaction.
_TRUNCATED = "truncated"

ALL = (PARTITIONS, FILES, _REWRITTEN, _TRUNCATED)
# A count may come from a sample.
_MORE = 1.25

Told = Mapping[str, Any]


class Capture(NamedTuple):
    """
    What is known of the captured tables besides what heartbeats have told.

    *begun*: what there was when the source was set up, before its first snapshot. *truncated*: tables and transactions
    of TRUNCATEs that the change log has, and no kept heartbeat. *tables*: as they were applied, by name. *resumed*:
    when the source was resumed the last time. *halted*: the tables of which nothing is asked, because all types that
    are made of them are halted; nor of those of *halted_tenants*. *seen*: the tables of tenants that a
    large transaction has rows of.
    """

    begun: Told | None = None
    truncated: frozenset[tuple[str, int]] = frozenset()
    tables: Mapping[str, TableDefinition] = {}
    resumed: datetime | None = None
    halted: frozenset[str] = frozenset()
    halted_tenants: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()

    @property
    def asked(self) -> Mapping[str, TableDefinition]:
        """The tables that are to be as they were applied."""
        return {name: table for name, table in self.tables.items() if name not in self.halted}


class _File(NamedTuple):
    """
    The *file* that holds a partition's rows, as a heartbeat tells of it: ``<file>/<xid>/<rows>/<inserted>/<seen>``.

    *xid* put its entry into the catalogue. *rows*: how many were counted last, -1 after a TRUNCATE.
    *inserted*: rows since the server's counters began. *seen*: another text when it may have been counted since.
    """

    file: str
    xid: str = ""
    rows: int = -1
    inserted: int = 0
    seen: str = ""

    @classmethod
    def read(cls, entry: str) -> _File:
        file, xid, count, inserted, seen = entry.split("/")
        return cls(file, xid, int(count), int(inserted), seen)

    def has_rows_of(self, former: _File) -> bool:
        """Whether rows that were there at *former* are still, though the file is another."""
        inserted = self.inserted - former.inserted
        if self.seen != former.seen or inserted < 0:
            return False
        # Nothing was ever inserted: there is nothing to lose.
        return self.rows > inserted * _MORE or self.rows == self.inserted == 0


_NOTHING: Told = {}


def keep_truncated(heartbeat: Told, truncated: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """*heartbeat* with TRUNCATEs that the next one to tell of partitions will show."""
    known = {(str(table), int(xid)) for table, xid in heartbeat.get(_TRUNCATED, ())}
    return {**heartbeat, _TRUNCATED: sorted([table, xid] for table, xid in {*known, *truncated})}


def follow_partitions(source: str, former: Told | None, beat: dict[str, Any], capture: Capture) -> dict[str, Any]:
    """
    *beat* with what is known of partitions after it; *former* is the heartbeat before it.

    Raises:
        TableDefectError: rows came or went of which nothing is in the WAL.

    """
    former = former or _NOTHING
    found, files = beat.pop(PARTITIONS, None), beat.pop(FILES, None)
    if not isinstance(found, dict):
        kept = {**beat, **{name: former[name] for name in ALL if name in former}}
        return keep_truncated(kept, capture.truncated) if capture.truncated else kept
    begun = capture.begun or _NOTHING
    truncated = {(str(table), int(xid)) for table, xid in former.get(_TRUNCATED, ())} | capture.truncated
    told, told_files = (former.get(name, begun.get(name)) for name in (PARTITIONS, FILES))
    changes = [] if told is None else list(_came_or_went(told, found, capture.halted))
    rewritten: dict[str, str] = {}
    if isinstance(files, dict) and told_files is not None:
        for table, now in sorted(files.items()):
            if table in capture.halted:
                continue
            replaced = _Replaced(told_files.get(table, {}), now)
            xids = {str(xid) for name, xid in truncated if name == table}
            lost = replaced.lost(xids)
            if lost:
                changes.append((table, f"{lost} partitions were truncated by their own names"))
            rewritten |= replaced.rewritten()
            files[table] = replaced.kept(former.get(_REWRITTEN, {}))
    if changes:
        tables = dict.fromkeys(table for table, _ in changes)
        raise TableDefectError(source, [_defect(table, changes) for table in tables])
    beat[PARTITIONS] = found
    if isinstance(files, dict):
        beat[FILES] = files
    return {**beat, _REWRITTEN: rewritten} if rewritten else beat


def forget_partitions(heartbeat: Told, tables: Collection[str], told: Told) -> dict[str, Any]:
    """*heartbeat* with the partitions of *tables* as they are *told* to be now, whatever they were before."""
    kept = dict(heartbeat)
    for name in (PARTITIONS, FILES):
        if name in kept:
            others = {table: each for table, each in kept[name].items() if table not in tables}
            kept[name] = others | {table: each for table, each in told.get(name, {}).items() if table in tables}
    return kept


def _defect(table: str, changes: Iterable[tuple[str, str]]) -> Defect:
    told = "; ".join(f"{table}: {what}" for changed, what in changes if changed == table)
    message = f"{told}: their rows came or went without a trace in the WAL"
    return Defect("PARTITIONS_CHANGED", message, "", table)


def _came_or_went(
    told: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]], halted: Collection[str]
) -> Iterator[tuple[str, str]]:
    for table in sorted({*told, *found} - set(halted)):
        before, now = set(told.get(table, ())), set(found.get(table, ()))
        attached = {each for each in now - before if "@" in each}
        gone = {_oid(each) for each in before} - {_oid(each) for each in now}
        if attached:
            yield table, f"{len(attached)} partitions were attached"
        if gone:
            yield table, f"{len(gone)} partitions were detached or dropped"


def _oid(partition: str) -> str:
    return partition.partition("@")[0]


class _Replaced:
    """The partitions of one table that have other files *now* than *before*; entries by oid."""

    def __init__(self, before: Mapping[str, str], now: Mapping[str, str]) -> None:
        self._before, self._now = before, now
        self._files = {oid: _File.read(entry) for oid, entry in now.items()}
        # A table begins with a file of its own number.
        former = {oid: _File.read(before[oid]) if oid in before else _File(oid) for oid in now}
        self._changed = [oid for oid, file in self._files.items() if file.file != former[oid].file]
        self._intact = {oid for oid in self._changed if self._files[oid].has_rows_of(former[oid])}

    def lost(self, truncated: Collection[str]) -> int:
        """How many may have lost rows, unless a TRUNCATE of the table, in these transactions, explains it."""
        lost = [oid for oid in self._changed if oid not in self._intact]
        written = {self._files[oid].xid for oid in lost}
        # In a savepoint the TRUNCATE of a table has a transaction of its own: one for all partitions.
        explained = written <= set(truncated) or (truncated and len(written) == 1 and len(lost) == len(self._now) > 1)
        return 0 if explained else len(lost)

    def rewritten(self) -> dict[str, str]:
        """Those that were rewritten with their rows, each with its file."""
        return {oid: self._files[oid].file for oid in self._intact}

    def kept(self, told: Mapping[str, str]) -> dict[str, str]:
        """What the next are compared with: the former entry, until *told* has said before what is found now."""
        unsure = {oid for oid, file in self.rewritten().items() if told.get(oid) != file}
        return {oid: self._before.get(oid, entry) if oid in unsure else entry for oid, entry in self._now.items()}
