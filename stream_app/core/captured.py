"""
Whether the captured tables and their publication are as they were applied, as heartbeats tell.

What an ALTER TABLE or ALTER PUBLICATION did stands in no change of the log: a column that was dropped is missing from
the rows that follow, rows of a table that is not published are not there at all. So the source stops, before its
position passes the heartbeat that tells of it; what was said between the statement and the heartbeat is made up for by
the snapshot that follows. A heartbeat compares with the definition that its connector was made for; what it finds is
judged by the worker's own, so that a change that was applied since goes on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rowcast.errors import StopError
from rowcast.sources.definition import TableDefinition

CAPTURED = "captured"
# Of a heartbeat, what the next one to tell is compared with.
_KEPT = ("of", "is", "publication")
_IDENTITIES = {
    "n": "NOTHING: the application's UPDATE and DELETE fail",
    "d": "DEFAULT, and no primary key has the columns that tell its rows apart",
    "i": "an index that is gone, or lacks columns that tell its rows apart",
}


class Defect(NamedTuple):
    """What is not as it was applied: the *code* of the stop, what, and how it is *mended*."""

    code: str
    message: str
    mended: str


# Nothing is lost by it, so that a source that was resumed afterwards passes what the log tells of it.
_HARMLESS = "REPLICA_IDENTITY_WEAK"


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
        StopError: a table or the publication is not as it was applied.

    """
    told = beat.pop(CAPTURED, None)
    if not isinstance(told, dict):
        return former
    passed = resumed is not None and datetime.fromisoformat(beat["at"]) <= resumed
    defects = [each for each in _defects(told, former or {}, tables) if not (passed and each.code == _HARMLESS)]
    if defects:
        first = defects[0]
        again = "resume" if first.code == _HARMLESS else "resnapshot"
        raise StopError(
            first.code,
            "; ".join(each.message for each in defects),
            remedy=f"{first.mended}; then rowcast sources {again} {source}" + (" --yes" * (again == "resnapshot")),
        )
    return {name: told[name] for name in _KEPT if name in told}


def _defects(
    told: Mapping[str, Any], former: Mapping[str, Any], tables: Mapping[str, TableDefinition]
) -> Iterator[Defect]:
    lacks = {name: each for name, each in sorted(told.get("lacks", {}).items()) if name in tables}
    yield from _publication_defects(told, former, [_unpublished(tables[name], each) for name, each in lacks.items()])
    for name, each in lacks.items():
        if each.get("table"):
            yield Defect("TABLE_MISSING", f"{name}: captured, but not in the database any more", "create it again")
        changes = list(_column_changes(tables[name], each.get("columns", {})))
        if changes:
            yield Defect("COLUMN_CHANGED", f"{name}: {', '.join(changes)}", "put it back, or change the source file")
    for name, each in lacks.items():
        if each.get("identity"):
            kinds = " and ".join(_IDENTITIES[kind] for kind in each["identity"])
            mended = f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT, with its primary key"
            yield Defect(_HARMLESS, f"{name}: its replica identity is {kinds}", mended)
    if former.get("of") == told.get("of") and former.get("is") != told.get("is") and not lacks:
        message = "a captured table or column was dropped, and made anew under its name: its rows or values are others"
        yield Defect("COLUMN_CHANGED", message, "nothing has to be put back")


def _publication_defects(
    told: Mapping[str, Any], former: Mapping[str, Any], unpublished: Sequence[str]
) -> Iterator[Defect]:
    if "publication" not in told:
        yield Defect("PUBLICATION_MISSING", "the publication was dropped", "nothing has to be made by hand")
        return
    mended = "do not mend it by hand, what was written meanwhile is in no event"
    if former.get("publication", told["publication"]) != told["publication"]:
        yield Defect("PUBLICATION_RECREATED", "the publication was dropped, and made anew", mended)
    if not told.get("operations", True):
        message = "the publication does not publish every operation, or not through partitioned tables"
        yield Defect("PUBLICATION_INCOMPLETE", message, mended)
    lacks = [each for each in unpublished if each]
    if lacks:
        yield Defect("PUBLICATION_INCOMPLETE", f"the publication lacks {', '.join(lacks)}", mended)


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
