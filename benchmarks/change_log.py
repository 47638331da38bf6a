"""The change log after a workload: where its rows stand, checked against what the workload committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.course import Place
from benchmarks.errors import check
from benchmarks.topic_watch import read_all
from benchmarks.workload import Workload
from rowcast.topics import change_log_topic


@dataclass(frozen=True, slots=True)
class FilledLog:
    """*workload* in the change log of *source*: the offsets of its rows, and *end*, which is behind its last END."""

    source: str
    workload: str
    rows: list[int]
    end: int

    @property
    def place(self) -> Place:
        """The log's only partition."""
        return change_log_topic(self.source), 0

    def write(self, path: Path) -> None:
        """Keep it for another run."""
        path.write_bytes(orjson.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> FilledLog:
        """What was kept."""
        return cls(**orjson.loads(path.read_bytes()))


def read_filled(brokers: str, source: str, workload: Workload) -> FilledLog:
    """
    Read the whole log and check it.

    Raises:
        MeasureError: rows, transactions or their ENDs are not those that *workload* committed.

    """
    return place_rows(_values(brokers, source), source, workload)


def place_rows(values: Iterable[tuple[int, dict[str, Any]]], source: str, workload: Workload) -> FilledLog:
    """
    Where the rows of *workload* stand in (offset, value) of a whole change log.

    Raises:
        MeasureError: they are not those that *workload* committed.

    """
    changes: Counter[tuple[str, str]] = Counter()
    counted: Counter[str] = Counter()
    declared: dict[str, tuple[int, int]] = {}
    rows = []
    for offset, value in values:
        if value.get("op") in {"c", "u", "d", "r"}:
            changes[value["source"]["table"], value["op"]] += 1
            if not workload.initial:
                counted[_xid(value["transaction"])] += 1
            rows.append(offset)
        elif value.get("status") == "END":
            declared[_xid(value)] = value["event_count"], offset + 1
    ends = {xid: declared[xid] for xid in counted if xid in declared}
    check("row changes in the change log", dict(workload.changes), dict(changes))
    check("transactions in the change log", workload.transactions, len(counted))
    check("rows of each transaction against its END", {xid: count for xid, (count, _) in ends.items()}, dict(counted))
    end = rows[-1] + 1 if workload.initial else max(offset for _, offset in ends.values())
    return FilledLog(source, workload.name, rows, end)


def _values(brokers: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for record in read_all(brokers, [change_log_topic(source)]):
        if record.value is not None:
            yield record.offset, orjson.loads(record.value)


def _xid(carrier: dict[str, Any]) -> str:
    """BEGIN, rows and END carry ``<xid>:<LSN>``; the LSN differs between them."""
    return str(carrier["id"]).partition(":")[0]
