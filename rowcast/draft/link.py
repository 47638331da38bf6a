"""
Parents from foreign keys. Pure.

A table whose rows belong to rows of exactly one other table by a foreign key to its primary key has that as parent.
Where there are several, or they lead in a circle, it takes a person to say which one is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rowcast.draft.listing import ForeignKey, ListedTable
from rowcast.sources.catalogue import Table
from rowcast.sources.column_type import id_family


@dataclass(frozen=True, slots=True)
class Link:
    """The parent *aggregate*, and the *columns* that hold its id, in the order of its key."""

    aggregate: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkChoice:
    """The *link* to the parent where there is no doubt; else the *candidates*, and *notes* with the reasons."""

    link: Link | None
    candidates: tuple[Link, ...] = ()
    notes: tuple[str, ...] = ()


def find_links(
    listed: Mapping[str, ListedTable], tables: Mapping[str, Table], names: Mapping[str, str]
) -> dict[str, LinkChoice]:
    """What links each table to a parent; *names* holds the aggregates' names by table."""
    choices: dict[str, LinkChoice] = {}
    for name, each in listed.items():
        found: list[Link] = []
        notes = []
        for key in each.foreign_keys:
            reason = _unfit(key, tables[name], tables.get(key.target))
            if reason is None:
                order = [key.target_columns.index(column) for column in tables[key.target].id_columns]
                found.append(Link(names[key.target], tuple(key.columns[at] for at in order)))
            else:
                notes.append(f"{', '.join(map(repr, key.columns))} is no link to a parent: {reason}")
        found = list(dict.fromkeys(found))
        if len(found) > 1:
            notes.append(f"no parent: {len(found)} foreign keys could be the link, and there can be one")
            choices[name] = LinkChoice(None, tuple(found), tuple(notes))
        else:
            choices[name] = LinkChoice(found[0] if found else None, notes=tuple(notes))
    return _without_circles(choices, names)


def _unfit(key: ForeignKey, table: Table, target: Table | None) -> str | None:
    if key.target == table.name:
        return "it refers to the table itself"
    if target is None:
        return f"{key.target} is left out"
    if sorted(key.target_columns) != sorted(target.id_columns):
        return f"it refers to other columns of {key.target} than its primary key"
    for name, target_name in zip(key.columns, key.target_columns, strict=True):
        column, target_column = table.column(name), target.column(target_name)
        assert column is not None and target_column is not None, "keys name columns"  # noqa: PT018 - one statement
        if column.generated or name.startswith("/"):
            return f"{name!r} is generated" if column.generated else f"{name!r} would be read as a place in a document"
        if id_family(column) != id_family(target_column):
            return f"{column.type} and {target_column.type} do not give one id text"
    return None


def _without_circles(choices: Mapping[str, LinkChoice], names: Mapping[str, str]) -> dict[str, LinkChoice]:
    above = {names[table]: choice.link.aggregate for table, choice in choices.items() if choice.link is not None}
    broken = {}
    for table, choice in choices.items():
        circle = _circle(names[table], above)
        if choice.link is not None and circle:
            note = f"no parent: foreign keys lead in a circle ({' → '.join(circle)})"
            broken[table] = LinkChoice(None, (choice.link,), (*choice.notes, note))
        else:
            broken[table] = choice
    return broken


def _circle(start: str, above: Mapping[str, str]) -> list[str]:
    """The way from *start* back to itself; empty when there is none."""
    way = [start]
    while way[-1] in above and len(way) <= len(above):
        way.append(above[way[-1]])
        if way[-1] == start:
            return way
    return []
