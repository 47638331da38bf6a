"""
A batch of finished units → events and the state that goes with them.

`sequence` is a generator: it yields the `Lookup`s it needs, the shell loads them into the view and resumes
it, so that the core itself does no I/O. First all state that the batch can touch is asked for, a level of the
hierarchy at a time; then the units are worked through in order, in memory.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from rowcast.errors import MappingError, StopError
from stream_app.core.change import CONTEXT_PREFIX, Columns, Message, Operation, RowChange
from stream_app.core.column import is_unavailable
from stream_app.core.emission import Emitted, Origin, emit, rfc3339
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import AggregateState, Key, Lookup, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import LargeTransaction, SnapshotRow, Transaction

Work = Transaction | SnapshotRow
Lookups = Generator[Lookup, None, None]
# Below this many descendants in a batch, moved parents are worked through in memory; above, in chunks.
DESCENDANTS_MAX = 5_000
# W3C Trace Context, section 3.2.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_CONTEXT_FIELDS = ("actor", "reason")


class LargeFanOutError(Exception):
    """The batch moves more descendants than fit into memory: its transactions have to be taken apart."""


def sequence(
    source: SourceMapping, view: View, units: Sequence[Work], reading: frozenset[str], out: tuple[Emitted, Tail]
) -> Lookups:
    """
    Fold *units* into *view* and collect in *out* what has to be published.

    *reading* names the aggregate types whose changes go to row state only, because their first generation is
    not complete or because their events follow in chunks.

    Raises:
        StopError: a row cannot be placed; nothing of the batch may be published.
        LargeFanOutError: moved parents have too many descendants for one step.

    """
    placed = [(unit, [place(source, row) for row in _rows(unit)]) for unit in units]
    rows = [change for _, changes in placed for change in changes]
    yield from _load(source, view, rows)
    follows = not reading.issuperset(source.by_type)
    if follows:
        yield from _load_descendants(source, view, _may_move(view, rows))
    tail = out[1]
    for unit, changes in placed:
        if isinstance(unit, SnapshotRow):
            _fold_all(source, view, changes)
            continue
        origin = origin_of(unit)
        if tail and unit.lsn > tail.position:
            yield from settle(source, view, origin, out)
        before = {change.key: view.aggregates[change.key] for change in changes}
        _fold_all(source, view, changes)
        if follows:
            for key in _touched(source, view, before):
                if key.aggregate not in reading:
                    emit(source, view, key, origin, out)


def sequence_part(
    source: SourceMapping,
    view: View,
    unit: Transaction,
    reading: frozenset[str],
    out: tuple[Emitted, Tail, list[Key]],
) -> Lookups:
    """
    Fold a part of a large transaction into *view*: all changes of some aggregates, parents' types first.

    Like `sequence`, but events go out for these aggregates only. Those that moved and stand above others are
    noted in the list of *out*: who stands below them may still be changed by another part.
    """
    changes = [place(source, row) for row in unit.rows]
    yield from _load(source, view, changes)
    moving = _may_move(view, changes)
    yield from _load_children(source, view, moving)
    emitted, tail, parents = out
    origin = origin_of(unit)
    keys = in_order(source, {change.key for change in changes})
    _fold_all(source, view, changes)
    for key in keys:
        if key.aggregate not in reading:
            emit(source, view, key, origin, (emitted, tail))
    children = [(key, child) for key in keys if key in moving for child in source.by_type[key.aggregate].child_types]
    parents += dict.fromkeys(key for key, child in children if view.children[child, key.id_text])


def _touched(source: SourceMapping, view: View, before: Mapping[Key, AggregateState]) -> Iterable[Key]:
    """What a transaction may have changed, in the order of its events: *before* and whoever stands below."""
    moved = [key for key, state in before.items() if _moved(state, view.aggregates[key])]
    below = list(_descendants(source, view, moved))
    return in_order(source, {*before, *below}) if below or len(before) > 1 else before


def emit_pending(
    source: SourceMapping, view: View, keys: Sequence[Key], origin: Origin, out: tuple[Emitted, Tail]
) -> Lookups:
    """Bring what is published of *keys* up to date; a chunk of a snapshot, a retry or a large fan-out."""
    yield from load_aggregates(source, view, keys)
    for key in keys:
        emit(source, view, key, origin, out)


def settle(source: SourceMapping, view: View, origin: Origin, out: tuple[Emitted, Tail]) -> Lookups:
    """Take over the versions of the tail that nothing repeated, and correct what they say where it is wrong."""
    _, tail = out
    keys = in_order(source, tail.keys)
    yield from load_aggregates(source, view, keys)
    for key in keys:
        match = tail.take(key)
        state = view.state(key)
        if match.version <= state.version:
            continue
        view.put(key, state._replace(version=match.version, published=match.published))
        emit(source, view, key, origin, out)


def split_truncates(source: SourceMapping, unit: Transaction) -> tuple[tuple[str, ...], Transaction]:
    """
    The aggregate types whose root tables *unit* truncates, and what of it is left to fold after that.

    Changes of a table before its last TRUNCATE have no effect; those after it stand.
    """
    last = {row.table: place for place, row in enumerate(unit.rows) if row.operation is Operation.TRUNCATE}
    rows = tuple(row for place, row in enumerate(unit.rows) if place > last.get(row.table, -1))
    types = tuple(each.name for each in source.by_rank if each.definition.table in last)
    return types, unit._replace(rows=rows)


def types_below(source: SourceMapping, types: Iterable[str]) -> list[str]:
    """*types* and all types whose ancestors they are, parents first."""
    wanted = set(types)
    return [each.name for each in source.by_rank if each.name in wanted or wanted & set(each.ancestor_types)]


def in_order(source: SourceMapping, keys: Iterable[Key]) -> list[Key]:
    """Parents' types first, then by id text: the order in which one transaction's events go out."""
    return sorted(keys, key=lambda key: (source.by_type[key.aggregate].rank, key.id_text))


def _rows(unit: Work) -> tuple[RowChange, ...]:
    return (unit.row,) if isinstance(unit, SnapshotRow) else unit.rows


def key_of(source: SourceMapping, row: RowChange) -> Key:
    """
    The aggregate whose root row *row* changes.

    Raises:
        StopError: the table is not declared, or the row has no id.

    """
    mapping = source.by_table.get(row.table)
    if mapping is None:
        raise StopError(
            "TABLE_NOT_DECLARED",
            f"the change log holds a change of {row.table}, which the applied definition does not know",
            remedy=f"rowcast sources apply {source.definition.source}",
        )
    assert row.operation is not Operation.TRUNCATE, "split_truncates comes first"
    image = row.before if row.operation is Operation.DELETE else row.after
    try:
        return Key(mapping.name, mapping.id_text(image or {}))
    except MappingError as error:
        # Without its id the row belongs to no aggregate that could be held alone.
        raise StopError("ROW_WITHOUT_ID", f"{row.table} at LSN {row.lsn}: {error}") from error


class PlacedChange(NamedTuple):
    """
    A row change and the aggregate whose root row it changes.

    *parent* is the one that the row points at. While it is not *sure*, a value of the row is missing, and only
    what is known of the row tells.
    """

    key: Key
    row: RowChange
    parent: Key | None
    sure: bool


def place(source: SourceMapping, row: RowChange) -> PlacedChange:
    """
    Whose root row *row* changes.

    Raises:
        StopError: the table is not declared, or the row has no id.

    """
    key = key_of(source, row)
    mapping = source.by_type[key.aggregate]
    parent_type = mapping.parent_type
    if parent_type is None or row.after is None:
        return PlacedChange(key, row, None, True)
    try:
        parent = mapping.parent_id_text(row.after)
    except MappingError:
        return PlacedChange(key, row, None, False)
    return PlacedChange(key, row, None if parent is None else Key(parent_type, parent), True)


def _moved(former: AggregateState, state: AggregateState) -> bool:
    return former.present is not state.present or former.parent_id_text != state.parent_id_text


def _fold_all(source: SourceMapping, view: View, changes: Sequence[PlacedChange]) -> None:
    """
    Fold the changes of one transaction, in order.

    A changed primary key arrives as a delete directly followed by an insert. Only then does an insert lack
    TOAST values: they are those of the row that went.
    """
    left: tuple[str, int, Columns | None] = ("", 0, None)
    for change in changes:
        row = change.row
        known = view.rows.get(change.key)
        if row.operation is Operation.DELETE:
            view.put_row(change.key, None, None)
            left = (row.table, row.order or 0, known)
        else:
            follows = row.operation is Operation.CREATE and left[:2] == (row.table, (row.order or 0) - 1)
            _fold(source, view, change, left[2] if follows else known)


def _fold(source: SourceMapping, view: View, change: PlacedChange, former: Columns | None) -> None:
    key, row, parent, sure = change
    mapping = source.by_type[key.aggregate]
    assert row.after is not None, "a change other than a delete has an after image"
    columns = mapping.keep(row.after)
    if not row.whole:
        _complete(columns, former)
    if sure:
        parent_id_text = None if parent is None else parent.id_text
    else:
        try:
            parent_id_text = mapping.parent_id_text(columns)
        except MappingError:
            # The entity cannot be mapped either, so emit refuses it; the place stays what it was.
            parent_id_text = view.state(key).parent_id_text
    view.put_row(key, columns, parent_id_text)


def _complete(columns: dict[str, Any], known: Columns | None) -> None:
    # A TOAST column that was not touched is not in the WAL: its value is the one we know.
    for name, value in columns.items():
        if is_unavailable(value) and known is not None and name in known:
            columns[name] = known[name]


def _load(source: SourceMapping, view: View, changes: Sequence[PlacedChange]) -> Lookups:
    touched = {change.key for change in changes}
    missing = view.missing(touched)
    if missing:
        yield Lookup(missing)
    yield from load_aggregates(source, view, {change.parent for change in changes if change.parent is not None})
    yield from load_aggregates(source, view, touched)


def load_aggregates(source: SourceMapping, view: View, keys: Iterable[Key]) -> Lookups:
    """Load *keys* and everything above them."""
    level = set(keys)
    while level:
        missing = view.missing(level)
        if missing:
            yield Lookup(missing)
        level = {parent for key in level if (parent := _parent_of(source, view, key)) is not None}


def _parent_of(source: SourceMapping, view: View, key: Key) -> Key | None:
    parent = source.by_type[key.aggregate].definition.parent
    parent_id_text = view.state(key).parent_id_text
    return None if parent is None or parent_id_text is None else Key(parent.aggregate, parent_id_text)


def _may_move(view: View, changes: Sequence[PlacedChange]) -> set[Key]:
    """The aggregates whose existence or parent changes somewhere in the batch: their descendants follow."""
    places: dict[Key, tuple[bool, str | None]] = {}
    moving = set()
    for key, row, parent, _sure in changes:
        former = places.get(key)
        if former is None:
            state = view.aggregates[key]
            former = state.present, state.parent_id_text
        new = places[key] = row.operation is not Operation.DELETE, None if parent is None else parent.id_text
        if former != new and row.operation is not Operation.READ:
            moving.add(key)
    return moving


def _load_descendants(source: SourceMapping, view: View, keys: Iterable[Key]) -> Lookups:
    level = set(keys)
    while level:
        wanted = yield from _load_children(source, view, level)
        if sum(map(len, view.children.values())) > DESCENDANTS_MAX:
            raise LargeFanOutError
        level = {Key(child, id_text) for child, parent in wanted for id_text in view.children[child, parent]}
        yield from load_aggregates(source, view, level)


def _load_children(
    source: SourceMapping, view: View, keys: Iterable[Key]
) -> Generator[Lookup, None, set[tuple[str, str]]]:
    wanted = {(child, key.id_text) for key in keys for child in source.by_type[key.aggregate].child_types}
    missing = frozenset(each for each in wanted if each not in view.children)
    if missing:
        yield Lookup(frozenset(), missing)
    return wanted


def _descendants(source: SourceMapping, view: View, keys: Iterable[Key]) -> Iterator[Key]:
    for key in keys:
        for child in source.by_type[key.aggregate].child_types:
            if ids := view.children[child, key.id_text]:
                below = [Key(child, id_text) for id_text in sorted(ids)]
                yield from below
                yield from _descendants(source, view, below)


def origin_of(unit: Transaction | LargeTransaction) -> Origin:
    """Where the events of *unit* come from."""
    context, traceparent = _context(unit.messages) if unit.messages else ({}, None)
    return Origin(unit.lsn, rfc3339(unit.time_us), context, traceparent)


def _context(messages: Iterable[Message]) -> tuple[Mapping[str, Any], str | None]:
    """What the writer attached; the last message wins, and one that cannot be read says so in `error`."""
    context: dict[str, Any] = {}
    traceparent: str | None = None
    for message in messages:
        if message.prefix != CONTEXT_PREFIX:
            continue
        try:
            content = orjson.loads(message.content)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            context = {"error": "the context message is not a JSON object"}
            continue
        context = {name: content[name] for name in _CONTEXT_FIELDS if isinstance(content.get(name), str)}
        given = content.get("traceparent")
        traceparent = given if isinstance(given, str) and _TRACEPARENT.fullmatch(given) else None
    return context, traceparent
