"""
Rows that are tied to their aggregates by something else than the primary key: an id inside a document.

A row *holds* the aggregate that its id names, so a row that names another one leaves the first, and a deleted row,
of which the log may have no more than the key, is found by what it held. A row that does not count,
because it is filtered out or softly deleted, holds nothing. A row whose id cannot be told goes on to
hold what it held; one that never had an id holds `row:<row key>`, a text that no id can be, so that it is refused
by a name of its own. An aggregate that two rows hold is refused until one of them lets go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rowcast.errors import MappingError
from stream_app.core.change import Columns, Operation, RowChange
from stream_app.core.column import is_unavailable
from stream_app.core.image import Image
from stream_app.core.mapping import AggregateMapping, Holding, SourceMapping
from stream_app.core.state import Key, View

WITHOUT_ID = "row:"
# A row's columns (None: there is none) and the id that it holds.
_Known = tuple[Columns | None, str | None]


class Shift(NamedTuple):
    """
    What one change does to a row: its *columns* afterwards (None: gone), and the ids that it holds before and after.

    *parent* is the parent that it names; *placed*: that could be told. *order* is its number in its transaction.
    """

    row: Key
    operation: Operation
    columns: Columns | None
    before: str | None
    after: str | None
    parent: str | None
    placed: bool
    order: int = 0

    def owners(self) -> list[Key]:
        """The aggregates that the change touches."""
        return [Key(self.row.aggregate, each) for each in dict.fromkeys((self.before, self.after)) if each is not None]


def foresee(source: SourceMapping, view: View, units: Sequence[Sequence[tuple[Key, RowChange]]]) -> list[list[Shift]]:
    """What the changes of each unit do, one after the other; the rows have to be loaded. Touches nothing."""
    known: dict[Key, _Known] = {}
    foreseen = []
    for changes in units:
        shifts = []
        left: tuple[str, int, _Known] = ("", 0, (None, None))
        for row, change in changes:
            mapping = source.by_type[row.aggregate]
            former = known.get(row) or (view.rows[row], view.owners[row])
            # A changed primary key arrives as a delete directly followed by an insert, which alone lacks values.
            moved = left[:2] == (row.aggregate, (change.order or 0) - 1) and _is_completed(mapping, change)
            shift = _shift(mapping, row, change, (former, left[2] if moved else former))
            left = (row.aggregate if change.operation is Operation.DELETE else "", change.order or 0, former)
            known[row] = shift.columns, shift.after
            shifts.append(shift._replace(order=change.order or 0))
        foreseen.append(shifts)
    return foreseen


def _is_completed(mapping: AggregateMapping, change: RowChange) -> bool:
    lacks = (not change.whole or mapping.seldom_whole) and any(map(is_unavailable, (change.after or {}).values()))
    return lacks and change.operation is Operation.CREATE


def _shift(mapping: AggregateMapping, row: Key, change: RowChange, known: tuple[_Known, _Known]) -> Shift:
    """*known*: what the row was, and what completes it."""
    former, completing = known
    if change.operation is Operation.DELETE:
        return Shift(row, change.operation, None, former[1], None, None, True)
    assert change.after is not None, "a change other than a delete has an after image"
    assert mapping.holding is not None, "the type has a holding"
    columns = mapping.keep(change.after)
    if not change.whole or mapping.seldom_whole:
        columns = completed(columns, completing[0])
    image = mapping.image(columns)
    owner = _owner(mapping.holding, image) or completing[1] or _without_id(row.id_text)
    if not _may_count(mapping.holding, image):
        return Shift(row, change.operation, columns, former[1], None, None, True)
    try:
        parent, placed = mapping.holding.parent_id_text(image), True
    except MappingError:
        parent, placed = None, False
    return Shift(row, change.operation, columns, former[1], owner, parent, placed)


def _without_id(row_key: str) -> str:
    """Behind the tenant where the row is of one, so that this is told alike of all ids."""
    tenant, slash, key = row_key.rpartition("/")
    return f"{tenant}{slash}{WITHOUT_ID}{key}"


def _owner(holding: Holding, image: Image) -> str | None:
    try:
        return holding.id_text(image)
    except MappingError:
        return None


def _may_count(holding: Holding, image: Image) -> bool:
    try:
        return holding.counts(image)
    except MappingError:
        return True  # so that it is refused, and not left out silently


def completed(columns: Columns, known: Columns | None) -> Columns:
    """*columns* with what is not in the WAL, because an UPDATE did not touch it: the values of *known*."""
    if known is None:
        return columns
    return {name: known[name] if is_unavailable(value) and name in known else value for name, value in columns.items()}


def parents_in(source: SourceMapping, view: View, shifts: Iterable[Shift]) -> list[Key]:
    """The parents that rows name; the aggregates that *shifts* touch have to be loaded."""
    found = []
    for shift in shifts:
        mapping = source.by_type[shift.row.aggregate]
        parent = mapping.definition.parent
        if parent is None:
            continue
        ids = {shift.parent}
        for key in shift.owners():
            if len(view.candidates[key]) > 1:
                # Whichever of several rows is left will say under which parent the aggregate stands.
                rows = (view.rows.get(Key(key.aggregate, each)) for each in view.candidates[key])
                ids.update(_parent(mapping, columns, None) for columns in rows if columns is not None)
        found += [Key(parent.aggregate, each) for each in ids if each is not None]
    return found


def may_move(view: View, shifts: Iterable[Shift]) -> set[Key]:
    """The aggregates whose existence or parent changes somewhere in *shifts*; they have to be loaded."""
    moving: set[Key] = set()
    parents: dict[Key, str | None] = {}
    for shift in shifts:
        moved = shift.before != shift.after
        if shift.after is not None and shift.placed:
            key = Key(shift.row.aggregate, shift.after)
            moved = moved or parents.get(key, view.state(key).parent_id_text) != shift.parent
            parents[key] = shift.parent
        if moved and shift.operation is not Operation.READ:
            moving.update(shift.owners())
    return moving


def fold_shifts(source: SourceMapping, view: View, shifts: Sequence[Shift]) -> None:
    """Fold the shifts of one unit; the aggregates that they touch have to be loaded."""
    touched: dict[Key, None] = {}
    for shift in shifts:
        view.put_held_row(shift.row, shift.columns, shift.after)
        touched.update(dict.fromkeys(shift.owners()))
    for key in touched:
        holders = view.holders(key)
        parent = None
        if holders:
            parent = view.state(key).parent_id_text
            if len(holders) == 1:
                columns = view.rows[Key(key.aggregate, holders[0])]
                assert columns is not None, "a row that is gone holds nothing"
                parent = _parent(source.by_type[key.aggregate], columns, parent)
        view.place(key, parent, present=bool(holders))


def _parent(mapping: AggregateMapping, columns: Columns, former: str | None) -> str | None:
    try:
        return mapping.parent_id_text(columns)
    except MappingError:
        # The entity cannot be mapped either, so emit refuses it; the place stays what it was.
        return former


def held_row(view: View, mapping: AggregateMapping, key: Key) -> Columns | None:
    """
    The row of a present aggregate of a type with a holding.

    Raises:
        MappingError: several rows hold it.

    """
    holders = view.holders(key)
    if len(holders) > 1:
        raise MappingError(f"{len(holders)} rows of {mapping.definition.table} have this id")
    return view.rows[Key(key.aggregate, holders[0])]


def raw_rows(view: View, mapping: AggregateMapping, key: Key) -> Columns | list[Columns | None] | None:
    """What is known of an aggregate's rows and would be published, for whoever looks at a refusal."""
    if mapping.holding is None:
        return _shown(mapping, view.rows.get(key))
    rows = [_shown(mapping, view.rows[Key(key.aggregate, each)]) for each in view.holders(key)]
    return rows[0] if len(rows) == 1 else rows or None


def _shown(mapping: AggregateMapping, columns: Columns | None) -> Columns | None:
    return None if columns is None else mapping.published_part(columns)
