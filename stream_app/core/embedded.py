"""
Embedded rows, followed from change to change to the aggregates that they stand in.

A change of one is a change of the aggregate that it stood in before and of the one that it stands in now. Which
these are is found by going up, a level at a time, from each row to the one that owns it. Whoever goes up takes every
owner that a row has had in the batch: an aggregate too many is looked at and found unchanged.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rowcast.errors import MappingError
from stream_app.core.change import Columns, Operation, RowChange
from stream_app.core.defect import without_id
from stream_app.core.embedding import EmbeddedMapping, LinkMapping
from stream_app.core.holding import Shift, completed
from stream_app.core.link import bind, index_link
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import Key, Lookup, View

Lookups = Generator[Lookup, None, None]
_Known = tuple[Columns | None, str | None]


class EmbeddedChange(NamedTuple):
    """
    What one change does to an embedded row: *columns* afterwards (None: gone), and its owner before and after.

    *parent*: the id of the parent that a link row names. *order* is its number in its transaction.
    """

    row: Key
    columns: Columns | None
    before: str | None
    after: str | None
    parent: str | None = None
    order: int = 0


class EmbeddedChanges(NamedTuple):
    """
    The changes of embedded rows in one unit, and the aggregates that they touch.

    *parents* are those that link rows name afterwards; *bound* the aggregates whose link rows change. *first* has the
    number of the first change of each aggregate, where that was asked for.
    """

    changes: Sequence[EmbeddedChange]
    touched: frozenset[Key]
    parents: frozenset[Key] = frozenset()
    bound: frozenset[Key] = frozenset()
    first: Mapping[Key, int] = {}


NOTHING = EmbeddedChanges((), frozenset())


def foresee_embedded(
    source: SourceMapping,
    view: View,
    units: Sequence[Sequence[RowChange]],
    shifts: Sequence[Sequence[Shift]],
    ordered: Sequence[bool],
) -> Generator[Lookup, None, list[EmbeddedChanges]]:
    """
    What the rows of embedded tables in each of *units* do, one after the other. Folds nothing.

    *shifts*: what the same units do to root rows that are tied to their aggregates by a holding; *ordered*: whether it
    is asked which change of an aggregate is the first.

    Raises:
        TableDefectError: a row has no key.

    """
    changes = [[(_key(source, row), row) for row in rows] for rows in units]
    yield from _load_rows(view, (key for each in changes for key, _ in each))
    known: dict[Key, _Known] = {}
    foreseen = [_foresee(source, view, each, known) for each in changes]
    owners: dict[Key, set[str]] = {}
    for found in foreseen:
        for change in found:
            owners.setdefault(change.row, set()).update(
                each for each in (change.before, change.after) if each is not None
            )
    roots = yield from _climb(source, view, owners)
    yield from _load_rows(view, (row for found in roots.values() for row in found if row.aggregate in source.held))
    held: dict[Key, set[str]] = {}
    for each in shifts:
        for shift in each:
            held.setdefault(shift.row, set()).update(id_text for id_text in (shift.before, shift.after) if id_text)
    touching = []
    for found, in_order in zip(foreseen, ordered, strict=True):
        rows = {root for change in found for root in roots[change.row]}
        touched = frozenset(_aggregates(source, view, rows, held))
        first: dict[Key, int] = {}
        for change in found if in_order else ():
            for key in _aggregates(source, view, roots[change.row], held):
                first.setdefault(key, change.order)
        touching.append(EmbeddedChanges(found, touched, *_bound(source, found), first))
    names = {link.aggregate: link.name for link in source.embedded.values() if isinstance(link, LinkMapping)}
    bound = (Key(names[key.aggregate], key.id_text) for each in touching for key in each.bound)
    missing = frozenset(each for each in bound if each not in view.candidates)
    if missing:
        yield Lookup(frozenset(), held=missing)
    return touching


def _bound(source: SourceMapping, changes: Iterable[EmbeddedChange]) -> tuple[frozenset[Key], frozenset[Key]]:
    parents, bound = set[Key](), set[Key]()
    for change in changes:
        link = source.embedded[change.row.aggregate]
        if isinstance(link, LinkMapping):
            bound.update(Key(link.aggregate, each) for each in (change.before, change.after) if each is not None)
            if change.parent is not None:
                parents.add(Key(source.by_type[link.aggregate].ancestor_types[0], change.parent))
    return frozenset(parents), frozenset(bound)


def _key(source: SourceMapping, row: RowChange) -> Key:
    mapping = source.embedded_tables[row.table]
    image = row.before if row.operation is Operation.DELETE else row.after
    try:
        return Key(mapping.name, mapping.row_key(image or {}))
    except MappingError as error:
        raise without_id(source.definition.source, row, error) from error


def _foresee(
    source: SourceMapping, view: View, changes: Sequence[tuple[Key, RowChange]], known: dict[Key, _Known]
) -> list[EmbeddedChange]:
    found = []
    left: tuple[str, int, Columns | None] = ("", 0, None)
    for row, change in changes:
        former = known.get(row) or (view.rows[row], view.owners[row])
        if change.operation is Operation.DELETE:
            foreseen = EmbeddedChange(row, None, former[1], None)
            left = (row.aggregate, change.order or 0, former[0])
        else:
            # A changed primary key arrives as a delete directly followed by an insert, which alone lacks values.
            moved = change.operation is Operation.CREATE and left[:2] == (row.aggregate, (change.order or 0) - 1)
            foreseen = _embedded_change(source, row, change, (former, left[2] if moved else former[0]))
        known[row] = foreseen.columns, foreseen.after
        found.append(foreseen._replace(order=change.order or 0))
    return found


def _embedded_change(
    source: SourceMapping, row: Key, change: RowChange, known: tuple[_Known, Columns | None]
) -> EmbeddedChange:
    """*known*: what the row was, and what completes it."""
    mapping = source.embedded_tables[change.table]
    former, completing = known
    assert change.after is not None, "a change other than a delete has an after image"
    columns = mapping.keep(change.after)
    if not change.whole or mapping.seldom_whole:
        columns = completed(columns, completing)
    try:
        owner = mapping.owner(columns)
    except MappingError:
        owner = former[1]  # the aggregate is refused then, because the row cannot be mapped either
    return EmbeddedChange(row, columns, former[1], owner, _parent(source, columns, change))


def _parent(source: SourceMapping, columns: Columns, change: RowChange) -> str | None:
    mapping = source.embedded_tables[change.table]
    if not isinstance(mapping, LinkMapping):
        return None
    try:
        return mapping.parent(columns)
    except MappingError as error:
        raise without_id(source.definition.source, change, error) from error


def _load_rows(view: View, rows: Iterable[Key]) -> Lookups:
    missing = frozenset(row for row in rows if row not in view.owners)
    if missing:
        yield Lookup(frozenset(), rows=missing)


def _climb(
    source: SourceMapping, view: View, owners: Mapping[Key, set[str]]
) -> Generator[Lookup, None, dict[Key, set[Key]]]:
    """The root rows above each of the rows in *owners*, which has the owners that they have in the batch."""
    above: dict[Key, set[Key]] = {}
    level = {row: set(found) for row, found in owners.items()}
    while level:
        upper: dict[Key, set[str]] = {}
        for row, found in level.items():
            mapping = source.embedded[row.aggregate]
            above[row] = {Key(mapping.above, owner) for owner in found}
            if mapping.above in source.embedded:
                upper.update((each, set()) for each in above[row] if each not in above)
        yield from _load_rows(view, upper)
        for row, found in upper.items():
            stored = view.owners[row]
            found.update(owners.get(row, ()), () if stored is None else (stored,))
        level = upper
    return {row: _tops(row, above) for row in owners}


def _tops(row: Key, above: Mapping[Key, set[Key]]) -> set[Key]:
    tops: set[Key] = set()
    for each in above[row]:
        tops |= _tops(each, above) if each in above else {each}
    return tops


def _aggregates(source: SourceMapping, view: View, rows: Iterable[Key], held: Mapping[Key, set[str]]) -> Iterable[Key]:
    """The aggregates that the root rows *rows* stand for."""
    for row in rows:
        if row.aggregate not in source.held:
            yield row
            continue
        stored = view.owners[row]
        for id_text in {*held.get(row, ()), *(() if stored is None else (stored,))}:
            yield Key(row.aggregate, id_text)


def load_embedded(source: SourceMapping, view: View, keys: Iterable[Key], changed: Iterable[Key] = ()) -> Lookups:
    """
    Load the embedded rows of the aggregates *keys*, which have to be loaded.

    *changed*: rows that the batch will fold; what is embedded in these is loaded too.
    """
    rows = set(changed)
    for key in keys:
        if source.by_type[key.aggregate].embedded:
            holders = view.candidates[key] if key.aggregate in source.held else (key.id_text,)
            rows.update(Key(key.aggregate, each) for each in holders)
    while rows:
        wanted = {Key(below.name, row.id_text) for row in rows for below in _embedded_in(source, row.aggregate)}
        missing = frozenset(each for each in wanted if each not in view.candidates)
        if missing:
            yield Lookup(frozenset(), held=missing)
        rows = {Key(each.aggregate, row_key) for each in wanted for row_key in view.candidates[each]}


def _embedded_in(source: SourceMapping, name: str) -> tuple[EmbeddedMapping, ...]:
    return source.embedded[name].below if name in source.embedded else source.by_type[name].embedded


def fold_embedded(source: SourceMapping, view: View, changes: EmbeddedChanges) -> None:
    """Fold the changes of one unit; the aggregates that they touch have to be loaded."""
    view.touched |= changes.touched
    for change in changes.changes:
        view.put_held_row(change.row, change.columns, change.after)
        link = source.embedded[change.row.aggregate]
        if isinstance(link, LinkMapping):
            index_link(view, link, change.row, (change.after, change.parent))
    for key in changes.bound:
        bound_by = source.by_type[key.aggregate].link
        assert bound_by is not None, "link rows bind"
        bind(view, bound_by, key)


def embedded_values(view: View, embedded: Iterable[EmbeddedMapping], row_key: str) -> dict[str, Any]:
    """
    What the rows embedded in the one with this key give, by property; they have to be loaded.

    Raises:
        MappingError: a value is missing, or there are several rows for a single object.

    """
    values: dict[str, Any] = {}
    for mapping in embedded:
        found = []
        for each in view.holders(Key(mapping.name, row_key)):
            columns = view.rows[Key(mapping.name, each)]
            assert columns is not None, "a row that is gone has no owner"
            image = mapping.standing(columns)
            if image is not None:
                found.append((mapping.sort_key(image), each, columns))
        found.sort(key=lambda row: row[:2])
        objects = [
            {**mapping.object(columns), **embedded_values(view, mapping.below, each)} for _, each, columns in found
        ]
        if mapping.definition.one and len(objects) > 1:
            raise MappingError(f"{len(objects)} rows of {mapping.table} stand for {mapping.definition.name!r}")
        values[mapping.definition.name] = (objects[0] if objects else None) if mapping.definition.one else objects
    return values


def raw_embedded(view: View, embedded: Iterable[EmbeddedMapping], row_key: str) -> dict[str, list[Columns | None]]:
    """What is known of the embedded rows, by table, for whoever looks at a refusal."""
    found: dict[str, list[Columns | None]] = {}
    for mapping in embedded:
        keys = view.holders(Key(mapping.name, row_key))
        rows_kept = (view.rows[Key(mapping.name, each)] for each in keys)
        found.setdefault(mapping.table, []).extend(
            None if row is None else mapping.published_part(row) for row in rows_kept
        )
        for each in keys:
            for table, rows in raw_embedded(view, mapping.below, each).items():
                found.setdefault(table, []).extend(rows)
    return found
