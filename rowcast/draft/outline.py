"""
What a draft declares: an aggregate for each table that can be captured, its parent where there is no doubt, and a note
with the reason for everything else. Pure. Nothing is guessed: where a person has to choose, nothing is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rowcast.draft.column_schema import Property, draft_property
from rowcast.draft.link import Link, LinkChoice, find_links
from rowcast.draft.listing import ListedTable
from rowcast.sources.admission import table_misfits
from rowcast.sources.catalogue import Catalogue, Table
from rowcast.sources.column_type import id_family
from rowcast.sources.property_fit import losses
from rowcast.sources.source_file import SOURCE_NAME
from rowcast.sources.tenant import TABLE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateDraft:
    """
    One aggregate as drafted: its *table*, *properties* by name, and *link* to the parent, or *candidates* for it.

    *ancestors* are the types above it, nearest first; *notes* what could not be carried, and why.
    """

    name: str
    table: Table
    comment: str
    properties: Mapping[str, Property]
    link: Link | None
    candidates: tuple[Link, ...]
    ancestors: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The aggregates, by table; and the tables *left_out*, each with its reason."""

    aggregates: tuple[AggregateDraft, ...]
    left_out: Mapping[str, str]


def nameable(table: ListedTable) -> bool:
    """Whether a source file can name *table*."""
    return TABLE_NAME.fullmatch(table.name) is not None


def draft_outline(listed: Sequence[ListedTable], catalogue: Catalogue) -> Outline:
    """The outline of *listed* tables; *catalogue* holds those that a source file can name."""
    left_out = {each.name: reason for each in listed if (reason := _unfit(each, catalogue)) is not None}
    fit = [each for each in listed if each.name not in left_out]
    names = _aggregate_names(fit)
    for each in fit:
        if isinstance(names[each.name], _Refusal):
            left_out[each.name] = str(names[each.name])
    kept = {each.name: each for each in fit if each.name not in left_out}
    tables = {name: catalogue.tables[name] for name in kept}
    links = find_links(kept, tables, {name: str(names[name]) for name in kept})
    aggregates = [_aggregate(kept[name], tables[name], str(names[name]), links[name]) for name in kept]
    return Outline(aggregates=tuple(_with_ancestors(aggregates)), left_out=dict(sorted(left_out.items())))


class _Refusal(str):
    """Why a table has no name as an aggregate."""

    __slots__ = ()


def _unfit(listed: ListedTable, catalogue: Catalogue) -> str | None:
    if listed.extension:
        return f"belongs to the extension {listed.extension}"
    if not nameable(listed):
        return "a source file names tables by ASCII letters, digits, _ and $ alone, a letter or _ first; rename it"
    table = catalogue.tables.get(listed.name)
    misfits = [f"{message}; {fix}" for message, fix in table_misfits(table, catalogue)]
    if misfits or table is None:
        return "; ".join(misfits)
    for name in dict.fromkeys((*table.row_key, *table.id_columns)):
        column = table.column(name)
        if name.startswith("/"):
            return f"the name of its key column {name!r} would be read as a place in a document"
        if column is None or id_family(column) is None:
            kind = "" if column is None else f" of type {column.type}"
            return f"key column {name!r}{kind} has no one text form that could be an id"
    return None


def _aggregate_names(tables: Sequence[ListedTable]) -> dict[str, str]:
    """The aggregate's name of each table: its own, with the schema before it where two would be the same."""
    plain = {each.name: snake_case(each.table) for each in tables}
    names = {}
    for each in tables:
        name = plain[each.name]
        if list(plain.values()).count(name) > 1:
            name = snake_case(f"{each.schema}_{name}")
        names[each.name] = name
    taken = list(names.values())
    for table, name in names.items():
        if not SOURCE_NAME.fullmatch(name):
            names[table] = _Refusal(f"{name!r} cannot be the name of an aggregate: at most 48 characters; choose one")
        elif taken.count(name) > 1:
            names[table] = _Refusal(f"another table would be called {name!r} too; choose a name for each")
    return names


def snake_case(text: str) -> str:
    """*text* as a name of this project: ``OrderDetail`` → ``order_detail``; empty when it has no ASCII letter."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    return re.sub(r"_{2,}", "_", re.sub(r"[^a-z0-9]", "_", words.lower())).strip("_").lstrip("0123456789_")


def _aggregate(listed: ListedTable, table: Table, name: str, choice: LinkChoice) -> AggregateDraft:
    targets = {key.columns[0]: key.target for key in listed.foreign_keys if len(key.columns) == 1}
    properties: dict[str, Property] = {}
    notes = []
    for column in table.columns:
        drafted = draft_property(column, listed, targets.get(column.name, ""))
        if isinstance(drafted, str):
            notes.append(f"column {column.name!r} is left out: {drafted}")
        elif lost := next(losses(column, table), None):
            notes.append(f"column {column.name!r} is left out: {lost[0]}; {lost[1]}")
        else:
            properties[column.name] = drafted
    return AggregateDraft(
        name=name,
        table=table,
        comment=listed.comment.strip(),
        properties=properties,
        link=choice.link,
        candidates=choice.candidates,
        ancestors=(),
        notes=(*notes, *choice.notes),
    )


def _with_ancestors(aggregates: Sequence[AggregateDraft]) -> Iterator[AggregateDraft]:
    by_name = {each.name: each for each in aggregates}
    for each in aggregates:
        above, link = [], each.link
        while link is not None:  # ends: there are no cycles
            above.append(link.aggregate)
            link = by_name[link.aggregate].link
        yield replace(each, ancestors=tuple(above))
