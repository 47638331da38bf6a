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
from dataclasses import replace
from datetime import datetime
from typing import Any

from rowcast.errors import StopError
from rowcast.sources.definition import TableDefinition
from rowcast.sources.tenant import TableNames
from stream_app.core.defect import Defect, TableDefectError
from stream_app.core.partition import Capture

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
# At the end of what tells a table of a tenant apart: it was published before it had any row.
_EMPTY = "+"
# What was not told the last time; nothing before it: rows of it were seen, and it was not told yet.
_LACKED = "-"
# It was told once, and not published.
_YOUNG = "?"
_PARTITIONED = "partitioned"
_NOT_BY_HAND = "do not mend it by hand, what was written meanwhile is in no event"


def follow_captured(source: str, former: Mapping[str, Any] | None, beat: dict[str, Any], capture: Capture) -> Any:
    """
    What is to be kept of what *beat* tells of the tables that *capture* asks; *former* is what was kept before it.

    Raises:
        TableDefectError: some of these tables, or what is published of them, are not as they were applied.
        StopError: the publication is not, or nobody knows which table.

    """
    told = beat.pop(CAPTURED, None)
    if not isinstance(told, dict):
        return former
    passed = capture.resumed is not None and datetime.fromisoformat(beat["at"]) <= capture.resumed
    found = captured_defects(told, former or {}, capture.asked)
    defects = [each for each in found if not (passed and each.code == _HARMLESS)]
    defects = [each for each in defects if each.tenant is None or each.tenant not in capture.halted_tenants]
    for each in defects:
        if each.table is None:
            remedy = f"{each.mended}; then rowcast sources resnapshot {source} --yes"
            raise StopError(each.code, each.message, remedy=remedy)
    if defects:
        raise TableDefectError(source, defects)
    kept = {name: told[name] for name in _KEPT if name in told}
    names = TableNames(capture.tables)
    missed, young = _missed(told, former or {}, names), _young(told, former or {}, names)
    if missed or young:
        kept["is"] = {**missed, **_identities(told), **dict.fromkeys(young, _YOUNG)}
    return kept


def _young(told: Mapping[str, Any], former: Mapping[str, Any], names: TableNames) -> set[str]:
    """
    Tables of tenants that are told for the first time, and not published: they may lack their keys yet.

    What makes them may take several transactions, so they are asked for the next time.
    """
    known = former.get("is")
    if not isinstance(known, dict):
        return set()
    unpublished = (name for name, each in told.get("lacks", {}).items() if each.get("unpublished") == [])
    return {name for name in unpublished if name not in known and _tenant_in(names, name) is not None}


def _missed(told: Mapping[str, Any], former: Mapping[str, Any], names: TableNames) -> dict[str, str]:
    """
    The tables of tenants that *told* lacks, and that may be there all the same.

    They may have come while it was said, with rows that are in the log before it; so what it lacks is kept, marked, and
    was dropped where the next one lacks it, too. A definition that knew other tables tells nothing of those.
    """
    same = former.get("of") == told.get("of")
    missed = {}
    for name, identity in _identities(former).items():
        if name in _identities(told) or _tenant_in(names, name) is None:
            continue
        if not same:
            missed[name] = identity
        elif not identity.endswith(_LACKED):
            missed[name] = identity + _LACKED
    return missed


def dropped_tables(
    told: Mapping[str, Any], former: Mapping[str, Any], tables: Mapping[str, TableDefinition]
) -> Iterator[tuple[str, str]]:
    """The tables of tenants, by declared name and tenant, that neither *told* nor the last but it has any more."""
    if former.get("of") != told.get("of") or not isinstance(told.get("is"), dict):
        return
    names = TableNames(tables)
    for name, identity in sorted(_identities(former).items()):
        declared, tenant = names.find(name) or ("", None)
        if tenant is not None and name not in told["is"] and identity.endswith(_LACKED):
            yield declared, tenant


def note_seen(captured: Mapping[str, Any], tables: Iterable[str]) -> Mapping[str, Any]:
    """What is kept, *captured*, with *tables* of tenants of which there were rows: they are there."""
    known = _identities(captured)
    new = {name: known.get(name, "").removesuffix(_LACKED) for name in tables}
    new = {name: each for name, each in new.items() if known.get(name) != each}
    if not new:
        return captured
    return {**{name: captured[name] for name in _KEPT if name in captured}, "is": {**known, **new}}


def _identities(captured: Mapping[str, Any]) -> Mapping[str, str]:
    found = captured.get("is")
    return found if isinstance(found, dict) else {}


def _tenant_in(names: TableNames, table: str) -> str | None:
    return (names.find(table) or ("", None))[1]


def forget_tenants_identities(
    captured: Mapping[str, Any], names: TableNames, tenants: Collection[str], told: Mapping[str, Any]
) -> dict[str, Any]:
    """What is kept, *captured*, with the tables of *tenants* among *names* as they are *told* to be now."""
    others = {name: each for name, each in _identities(captured).items() if _tenant_in(names, name) not in tenants}
    theirs = {name: each for name, each in _identities(told).items() if _tenant_in(names, name) in tenants}
    return {**captured, "is": {**others, **theirs}}


def forget_identities(captured: Mapping[str, Any], tables: Iterable[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept, *captured*, with *tables* as they are *told* to be now, whatever they were before."""
    known, now = captured.get("is"), told.get("is")
    if not (isinstance(known, dict) and isinstance(now, dict)):
        return {name: each for name, each in captured.items() if name != "is"}
    names = TableNames(tables)
    return {**captured, "is": {**known, **{name: now[name] for name in now if name in names}}}


def captured_defects(
    told: Mapping[str, Any], former: Mapping[str, Any], tables: Mapping[str, TableDefinition]
) -> Iterator[Defect]:
    """What of *tables* and their publication is not as it was applied, as *told*; *former* is what was told before."""
    names = TableNames(tables)
    young = _young(told, former, names)
    lacks = {name: each for name, each in sorted(told.get("lacks", {}).items()) if name in names and name not in young}
    yield from _publication_defects(told, former)
    if "publication" in told:
        for name, each in lacks.items():
            missing = _unpublished(_applied(tables, names, name), each)
            if missing:
                yield _defect("PUBLICATION_INCOMPLETE", f"the publication lacks {missing}", _NOT_BY_HAND, names, name)
    for name, each in lacks.items():
        if each.get("table") == _PARTITIONED:
            message = f"{name}: it is partitioned, which tables of tenants may not be"
            yield _defect("TABLE_MISSING", message, "make it a plain table", names, name)
        elif each.get("table"):
            message = f"{name}: captured, but not in the database any more"
            yield _defect("TABLE_MISSING", message, "create it again", names, name)
        changes = list(_column_changes(_applied(tables, names, name), each.get("columns", {})))
        if changes:
            mended = "put it back, or change the source file"
            yield _defect("COLUMN_CHANGED", f"{name}: {', '.join(changes)}", mended, names, name)
    for name, each in lacks.items():
        if each.get("identity"):
            kinds = " and ".join(_IDENTITIES[kind] for kind in each["identity"])
            mended = f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT, with its primary key"
            message = f"{name}: its replica identity is {kinds}"
            yield _defect(_HARMLESS, message, mended, names, name)._replace(lossless=True)
    if former.get("of") == told.get("of"):
        yield from _made_anew(former.get("is"), told.get("is"), lacks, names)
    if isinstance(former.get("is"), dict):
        yield from _published_late(former["is"], told, {*lacks, *young}, names)


def _applied(tables: Mapping[str, TableDefinition], names: TableNames, name: str) -> TableDefinition:
    """The table *name* of the database as it was applied."""
    return replace(tables[(names.find(name) or (name, None))[0]], name=name)


def _defect(code: str, message: str, mended: str, names: TableNames, name: str) -> Defect:
    table, tenant = names.find(name) or (name, None)
    return Defect(code, message, mended, table, tenant=tenant)


def _published_late(
    former: Mapping[str, str], told: Mapping[str, Any], lacks: Collection[str], names: TableNames
) -> Iterator[Defect]:
    """Tables of tenants that are new, and may have had rows before they were published."""
    for name, identity in sorted(_identities(told).items()):
        if former.get(name, "") in {"", _YOUNG} and name not in lacks and not identity.endswith(_EMPTY):
            if _tenant_in(names, name) is None:
                continue
            message = f"{name}: it was published later than it was made, so rows of it may be in no event"
            yield _defect("PUBLICATION_INCOMPLETE", message, "nothing has to be made by hand", names, name)


def _made_anew(former: Any, now: Any, lacks: Collection[str], tables: TableNames) -> Iterator[Defect]:
    what, mended = "dropped, and made anew under its name: its rows or values are others", "nothing has to be put back"
    if isinstance(former, dict) and isinstance(now, dict):
        for name in sorted(each for each in (former.keys() & now.keys()) - set(lacks) if each in tables):
            if former[name].removesuffix(_LACKED) not in {"", _YOUNG, now[name]}:
                message = f"{name}: it, or a captured column of it, was {what}"
                yield _defect("COLUMN_CHANGED", message, mended, tables, name)
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
