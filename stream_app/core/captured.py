"""
Whether the captured tables and their publication are as they were applied, as heartbeats tell.

What an ALTER TABLE or ALTER PUBLICATION did stands in no change of the log: a column that was dropped is missing from
the rows that follow, rows of a table that is not published are not there at all. So the types of that table are halted
from the heartbeat on that tells of it, see `stream_app.core.halting`; what is wrong with all of them stops the source,
before its position passes. What was said between the statement and the heartbeat is made up for by the resync or the
snapshot that follows. A heartbeat compares with the definition that its connector was made for; what it finds is
judged by the worker's own, so that a change that was applied since goes on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from rowcast.errors import StopError
from rowcast.sources.definition import TableDefinition
from stream_app.core.defect import Defect, TableDefectError

CAPTURED = "captured"
# Of a heartbeat, what the next one to tell is compared with.
_KEPT = ("of", "is", "publication")
_IDENTITIES = {
    "n": "NOTHING: the application's UPDATE and DELETE fail",
    "d": "DEFAULT, and no primary key has the columns that tell its rows apart",
    "i": "an index that is gone, or lacks columns that tell its rows apart",
}


# Nothing is lost by it, so that a source that was resumed afterwards passes what the log tells of it.
_HARMLESS = "REPLICA_IDENTITY_WEAK"
_NOT_BY_HAND = "do not mend it by hand, what was written meanwhile is in no event"


def follow_captured(
    source: str,
    former: Mapping[str, Any] | None,
    beat: dict[str, Any],
    tables: Mapping[str, TableDefinition],
    resumed: datetime | None,
) -> Any:
    """
    What is to be kept of what *beat* tells of *tables*; *former* is what was kept before it.

    *resumed*: when the source was resumed the last time.

    Raises:
        TableDefectError: some of these tables, or what is published of them, are not as they were applied.
        StopError: the publication is not, or nobody knows which table.

    """
    told = beat.pop(CAPTURED, None)
    if not isinstance(told, dict):
        return former
    passed = resumed is not None and datetime.fromisoformat(beat["at"]) <= resumed
    defects = [each for each in captured_defects(told, former or {}, tables) if not (passed and each.code == _HARMLESS)]
    for each in defects:
        if each.table is None:
            remedy = f"{each.mended}; then rowcast sources resnapshot {source} --yes"
            raise StopError(each.code, each.message, remedy=remedy)
    if defects:
        raise TableDefectError(source, defects)
    return {name: told[name] for name in _KEPT if name in told}


def forget_identities(captured: Mapping[str, Any], tables: Iterable[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept, *captured*, with *tables* as they are *told* to be now, whatever they were before."""
    known, now = captured.get("is"), told.get("is")
    if not (isinstance(known, dict) and isinstance(now, dict)):
        return {name: each for name, each in captured.items() if name != "is"}
    return {**captured, "is": {**known, **{name: now[name] for name in tables if name in now}}}


def captured_defects(
    told: Mapping[str, Any], former: Mapping[str, Any], tables: Mapping[str, TableDefinition]
) -> Iterator[Defect]:
    """What of *tables* and their publication is not as it was applied, as *told*; *former* is what was told before."""
    lacks = {name: each for name, each in sorted(told.get("lacks", {}).items()) if name in tables}
    yield from _publication_defects(told, former)
    if "publication" in told:
        for name, each in lacks.items():
            missing = _unpublished(tables[name], each)
            if missing:
                yield Defect("PUBLICATION_INCOMPLETE", f"the publication lacks {missing}", _NOT_BY_HAND, name)
    for name, each in lacks.items():
        if each.get("table"):
            message = f"{name}: captured, but not in the database any more"
            yield Defect("TABLE_MISSING", message, "create it again", name)
        changes = list(_column_changes(tables[name], each.get("columns", {})))
        if changes:
            mended = "put it back, or change the source file"
            yield Defect("COLUMN_CHANGED", f"{name}: {', '.join(changes)}", mended, name)
    for name, each in lacks.items():
        if each.get("identity"):
            kinds = " and ".join(_IDENTITIES[kind] for kind in each["identity"])
            mended = f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT, with its primary key"
            yield Defect(_HARMLESS, f"{name}: its replica identity is {kinds}", mended, name, lossless=True)
    if former.get("of") == told.get("of"):
        yield from _made_anew(former.get("is"), told.get("is"), lacks, tables)


def _made_anew(former: Any, now: Any, lacks: Collection[str], tables: Collection[str]) -> Iterator[Defect]:
    what, mended = "dropped, and made anew under its name: its rows or values are others", "nothing has to be put back"
    if isinstance(former, dict) and isinstance(now, dict):
        for name in sorted(former.keys() & now.keys() & set(tables) - set(lacks)):
            if former[name] != now[name]:
                yield Defect("COLUMN_CHANGED", f"{name}: it, or a captured column of it, was {what}", mended, name)
    elif isinstance(former, str) and isinstance(now, str) and former != now and not lacks:
        # A connector that was set up by a former release tells one of all tables.
        yield Defect("COLUMN_CHANGED", f"a captured table or column was {what}", mended)


def _publication_defects(told: Mapping[str, Any], former: Mapping[str, Any]) -> Iterator[Defect]:
    if "publication" not in told:
        yield Defect("PUBLICATION_MISSING", "the publication was dropped", "nothing has to be made by hand")
        return
    if former.get("publication", told["publication"]) != told["publication"]:
        yield Defect("PUBLICATION_RECREATED", "the publication was dropped, and made anew", _NOT_BY_HAND)
    if not told.get("operations", True):
        message = "the publication does not publish every operation, or not through partitioned tables"
        yield Defect("PUBLICATION_INCOMPLETE", message, _NOT_BY_HAND)


def _unpublished(table: TableDefinition, lacks: Mapping[str, Any]) -> str:
    """What of *table* is not published, in words; empty when all is."""
    columns = lacks.get("unpublished")
    if columns == []:
        return f"{table.name}, or some of its rows"
    missing = sorted(table.captured & set(columns or ()))
    return f"columns {', '.join(missing)} of {table.name}" if missing else ""


def _column_changes(table: TableDefinition, found: Mapping[str, str]) -> Iterator[str]:
    for column in table.columns:
        now = found.get(column.name)
        if now == "":
            yield f"column {column.name!r} is gone"
        elif now is not None and _form(now) != _form(column.type):
            yield f"column {column.name!r} is of type {now}, was {column.type}"


_TEXT = re.compile(r"character varying(\(\d+\))?|text")
_NUMERIC = re.compile(r"numeric\(\d+,(-?\d+)\)")
_INTEGER = re.compile(r"(smallint|integer|bigint)(?=\[|$)")


def _form(column_type: str) -> str:
    """Types of the same form have the same values in events: a longer text, a wider number."""
    text = _TEXT.sub("text", column_type, count=1) if _TEXT.match(column_type) else column_type
    return _INTEGER.sub("integer", _NUMERIC.sub(r"numeric(\1)", text))
