"""
A batch of finished units → events and the state that goes with them.

`sequence` is a generator: it yields the `Lookup`s it needs, the shell loads them into the view and resumes
it, so that the core itself does no I/O. First all state that the batch can touch is asked for, a level of the
hierarchy at a time; then the units are worked through in order, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from rowcast.annotation import CONTEXT_BYTES_MAX, CONTEXT_PREFIX, TRACEPARENT
from rowcast.errors import MappingError, StopError
from stream_app.core.change import Columns, Message, Operation, RowChange
from stream_app.core.defect import without_id
from stream_app.core.embedded import NOTHING, EmbeddedChanges, fold_embedded, foresee_embedded, load_embedded
from stream_app.core.emission import Emitted, Origin, emit, emit_stated, rfc3339, taken_over
from stream_app.core.holding import Shift, completed, fold_shifts, foresee, may_move
from stream_app.core.loading import (
    Lookups,
    load_children,
    load_descendants,
    load_touched,
    load_whole,
)
from stream_app.core.mapping import AggregateMapping, SourceMapping
from stream_app.core.state import AggregateState, Emptied, Key, Lookup, View
from stream_app.core.statement import Statement, statements_in
from stream_app.core.tail import Tail
from stream_app.core.tenant import tenant_of_row
from stream_app.core.transaction import LargeTransaction, SnapshotRow, Transaction

Work = Transaction | SnapshotRow
_CONTEXT_FIELDS = ("actor", "reason")
_CREATE, _DELETE, _READ, _TRUNCATE = Operation.CREATE, Operation.DELETE, Operation.READ, Operation.TRUNCATE
# Named tuples by this are made in half the time that they take to make themselves.
_new = tuple.__new__
_NOTHING_STATED: Mapping[Key, Sequence[Statement]] = {}


def sequence(
    source: SourceMapping, view: View, units: Sequence[Work], reading: frozenset[str], out: tuple[Emitted, Tail]
) -> Lookups:
    """
    Fold *units* into *view* and collect in *out* what has to be published.

    *reading* names the aggregate types whose changes go to row state only, because their first generation is
    not complete or because their events follow in chunks; then their statements are collected for these.

    Raises:
        StopError: a row cannot be placed; nothing of the batch may be published.
        LargeFanOutError: moved parents have too many descendants for one step.

    """
    apart = source.references or source.embedded_tables
    rows_of: Callable[[Work], Iterable[RowChange]] = partial(_root_rows, source) if apart else _rows
    placed = [[place(source, row) for row in rows_of(unit)] for unit in units]
    shifts: Sequence[Sequence[Shift]] = ((),) * len(units)
    if source.held:
        placed, shifts = yield from _foresee(source, view, placed)
    stated = [
        _stated(source, unit, out[0]) if isinstance(unit, Transaction) and unit.messages else () for unit in units
    ]
    embedded: Sequence[EmbeddedChanges] = (NOTHING,) * len(units)
    if source.embedded_tables:
        rows_below = [_embedded_rows(source, unit) for unit in units]
        embedded = yield from foresee_embedded(source, view, rows_below, shifts, list(map(bool, stated)))
    rows = [change for changes in placed for change in changes]
    held = [shift for each in shifts for shift in each]
    touched = {key for key, _, _, _ in rows}
    touched.update(key for shift in held for key in shift.owners())
    if source.embedded_tables:
        touched.update(key for each in embedded for key in each.touched)
    if any(stated):
        touched.update(each.key for said in stated for each in said)
    yield from load_touched(source, view, touched, _parents(rows), (held, embedded))
    follows = not reading.issuperset(source.by_type)
    if follows:
        bound = {key for each in embedded for key in each.bound}
        below = yield from load_descendants(source, view, _may_move(source, view, rows) | may_move(view, held) | bound)
        if source.embedded_tables:
            changed = [shift.row for shift in held] + [each.row for changes in embedded for each in changes.changes]
            yield from load_embedded(source, view, touched | below, changed)
    tail = out[1] if out[1] else None
    for unit, changes, shifted, inner, said in zip(units, placed, shifts, embedded, stated, strict=True):
        if source.references:
            _fold_references(source, view, unit)
        if isinstance(unit, SnapshotRow):
            _fold_read(source, view, changes)
            fold_shifts(source, view, shifted)
            fold_embedded(source, view, inner)
            continue
        origin = origin_of(unit)
        if tail and unit.lsn > tail.position:
            yield from settle(source, view, origin, out)
        before = _fold_transaction(source, view, changes, (shifted, inner))
        by_key = _by_key(said, changes, (shifted, inner)) if said else _NOTHING_STATED
        if follows:
            _emit_touched(source, view, (before, by_key), (reading, origin), out)
        if by_key:
            _put_off(source, view, by_key, (reading, origin), out)


def _emit_touched(
    source: SourceMapping,
    view: View,
    about: tuple[Mapping[Key, AggregateState], Mapping[Key, Sequence[Statement]]],
    at: tuple[frozenset[str], Origin],
    out: tuple[Emitted, Tail],
) -> None:
    """The events of one transaction: of what the aggregates were *before* that it touched, and of what was stated."""
    (before, stated), (reading, origin) = about, at
    touched = _touched(source, view, before)
    if not stated:
        silent = reading | out[0].unready if out[0].unready else reading
        for key in touched:
            if key.aggregate not in silent:
                emit(source, view, key, origin, out)
        return
    for key in in_order(source, {*touched, *stated}):
        if key.aggregate not in reading:
            emit_with(source, view, (key, stated.get(key, ())), origin, out)


def _fold_transaction(
    source: SourceMapping,
    view: View,
    changes: Sequence[PlacedChange],
    others: tuple[Sequence[Shift], EmbeddedChanges],
) -> dict[Key, AggregateState]:
    """Fold all that a transaction changes; what the aggregates were that it touches."""
    shifts, embedded = others
    aggregates = view.aggregates
    before = {key: aggregates[key] for key, _, _, _ in changes}
    if shifts:
        before.update((key, view.aggregates[key]) for shift in shifts for key in shift.owners())
    if embedded.touched:
        before.update((key, view.aggregates[key]) for key in embedded.touched)
    _fold_all(source, view, changes)
    if shifts:
        fold_shifts(source, view, shifts)
    if embedded.changes:
        fold_embedded(source, view, embedded)
    return before


def sequence_part(
    source: SourceMapping,
    view: View,
    part: tuple[Transaction, Sequence[Key]],
    kept: tuple[frozenset[str], frozenset[Key]],
    out: tuple[Emitted, Tail, list[Key]],
) -> Lookups:
    """
    Fold a part of a large transaction into *view*: all changes of some aggregates, parents' types first.

    Like `sequence`, but with the keys of its rows, and events go out for these aggregates only. Those that moved and
    stand above others are noted in the list of *out*: who stands below them may still be changed by another part. Only
    for types of one row: those of several parts may belong to one aggregate. No events go out for the types and
    aggregates of *kept*: their first generation is not complete, or statements wait for the chunks that follow.
    """
    (unit, named), (reading, waiting) = part, kept
    changes = [_pointed(source, key, row) for key, row in zip(named, unit.rows, strict=True)]
    touched = set(named)
    yield from load_touched(source, view, touched, _parents(changes), ((), ()))
    moving = _may_move(source, view, changes)
    yield from load_children(source, view, moving, one_each=True)
    emitted, tail, parents = out
    origin = origin_of(unit)
    keys = in_order(source, touched)
    _fold_all(source, view, changes)
    for key in keys:
        if key.aggregate not in reading and key not in waiting:
            emit(source, view, key, origin, (emitted, tail))
    children = [(key, child) for key in keys if key in moving for child in source.by_type[key.aggregate].child_types]
    parents += dict.fromkeys(key for key, child in children if view.children[child, key.id_text])


def _touched(source: SourceMapping, view: View, before: Mapping[Key, AggregateState]) -> Iterable[Key]:
    """What a transaction may have changed, in the order of its events: *before* and whoever stands below."""
    aggregates, above = view.aggregates, source.above
    level = []
    for key, former in before.items():
        state = aggregates[key]
        if (former.present is not state.present or former.parent_id_text != state.parent_id_text) and key[0] in above:
            level.append(key)
    if not level:
        return in_order(source, before) if len(before) > 1 else before
    touched = {*before}
    children, seen = view.children, {*level}
    while level:
        below = set()
        for name, id_text in level:
            for child in source.by_type[name].child_types:
                if ids := children[child, id_text]:
                    below.update([_new(Key, (child, each)) for each in ids])
        level = [key for key in below if key[0] in above and key not in seen]
        seen.update(level)
        touched |= below
    return in_order(source, touched) if len(touched) > 1 else touched


def _foresee(
    source: SourceMapping, view: View, placed: Sequence[list[PlacedChange]]
) -> Generator[Lookup, None, tuple[list[list[PlacedChange]], list[list[Shift]]]]:
    """Part off the changes of types with a holding: the others, and what those do."""
    plain = [[change for change in changes if change[0].aggregate not in source.held] for changes in placed]
    held = [[(key, row) for key, row, _, _ in changes if key.aggregate in source.held] for changes in placed]
    missing = frozenset(key for changes in held for key, _ in changes if key not in view.owners)
    if missing:
        yield Lookup(frozenset(), rows=missing)
    return plain, foresee(source, view, held)


def emit_pending(
    source: SourceMapping,
    view: View,
    keys: Sequence[Key],
    origin: Origin,
    out: tuple[Emitted, Tail],
    stated: Mapping[Key, Sequence[Statement]] = _NOTHING_STATED,
) -> Lookups:
    """
    Bring what is published of *keys* up to date; a chunk of a snapshot, a retry or a large fan-out.

    With what was *stated* of them in the transaction that left them pending.
    """
    yield from load_whole(source, view, keys)
    aggregates, stored = view.aggregates, view.stored
    # Nobody asks any more what was read alone, so all of them are written, also those that have no event.
    view.dirty.update([key for key in keys if key not in stored and aggregates[key].present])
    for key in keys:
        emit_with(source, view, (key, stated.get(key, ())), origin, out)


def _stated(source: SourceMapping, unit: Transaction, emitted: Emitted) -> list[Statement]:
    refused = emitted.refused_statements
    known = len(refused)
    found = statements_in(source, unit.messages, (unit.lsn, rfc3339(unit.time_us)), refused)
    emitted.refused += len(refused) - known
    return found


def _by_key(
    said: Iterable[Statement], changes: Iterable[PlacedChange], others: tuple[Iterable[Shift], EmbeddedChanges]
) -> dict[Key, list[Statement]]:
    """What is *said* of each aggregate, in order, and whether it stands before the first of its rows."""
    shifts, embedded = others
    first = dict(embedded.first)
    own = [(key, row.order or 0) for key, row, _, _ in changes]
    own += [(key, shift.order) for shift in shifts for key in shift.owners()]
    for key, order in own:
        first[key] = min(first.get(key, order), order)
    by_key: dict[Key, list[Statement]] = {}
    for each in said:
        placed = each._replace(former=each.order < first.get(each.key, 0))
        by_key.setdefault(each.key, []).append(placed)
    return by_key


def _put_off(
    source: SourceMapping,
    view: View,
    by_key: Mapping[Key, Sequence[Statement]],
    at: tuple[frozenset[str], Origin],
    out: tuple[Emitted, Tail],
) -> None:
    """Refuse what was stated of types that have no events yet; let wait what belongs to events in chunks."""
    reading, origin = at
    for key, said in by_key.items():
        if key.aggregate in out[0].unready:
            emit_with(source, view, (key, said), origin, out)
        elif key.aggregate in reading:
            out[0].statements += said


def emit_with(
    source: SourceMapping,
    view: View,
    about: tuple[Key, Sequence[Statement]],
    origin: Origin,
    out: tuple[Emitted, Tail],
) -> None:
    """
    The event of what has changed of an aggregate, among those that were stated of it.

    Those stand where they are said, except where the aggregate is not: all behind its creation, all before its end.
    """
    key, said = about
    state = view.aggregates[key]
    before, behind = not state.present, state.published is None
    later = []
    for each in said:
        if before or (each.former and not behind):
            emit_stated(source, view, each, origin, out)
        else:
            later.append(each)
    if key.aggregate not in out[0].unready:
        emit(source, view, key, origin, out)
    for each in later:
        emit_stated(source, view, each, origin, out)


def settle(source: SourceMapping, view: View, origin: Origin, out: tuple[Emitted, Tail]) -> Lookups:
    """Take over the versions of the tail that nothing repeated, and correct what they say where it is wrong."""
    _, tail = out
    keys = in_order(source, tail.keys)
    yield from load_whole(source, view, keys)
    for key in keys:
        match = tail.take(key)
        state = view.state(key)
        if match.version <= state.version:
            continue
        view.put(key, taken_over(source.by_type[key.aggregate], state, match))
        if key.aggregate not in out[0].unready:
            emit(source, view, key, origin, out)


def split_truncates(source: SourceMapping, unit: Transaction) -> tuple[tuple[Emptied, ...], Transaction]:
    """
    What *unit* truncates of aggregate types, embedded and reference tables, and what of it is left to fold after that.

    Changes of a table before its last TRUNCATE have no effect; those after it stand.
    """
    last = {(row.table, row.tenant): place for place, row in enumerate(unit.rows) if row.operation is _TRUNCATE}
    rows = tuple(row for place, row in enumerate(unit.rows) if place > last.get((row.table, tenant_of_row(row)), -1))
    kinds = [(each.table, each.name) for each in source.of_aggregates]
    kinds += [(table, each.name) for table, each in source.references.items()]
    emptied = [Emptied(name, tenant) for table, name in kinds for emptied, tenant in last if emptied == table]
    return tuple(emptied), unit._replace(rows=rows)


def types_below(source: SourceMapping, types: Iterable[str]) -> list[str]:
    """*types*, those in which they are embedded, and all types whose ancestors they are, parents first."""
    wanted = {source.embedded[each].aggregate if each in source.embedded else each for each in types}
    return [each.name for each in source.by_rank if each.name in wanted or wanted & set(each.ancestor_types)]


def emptied_below(source: SourceMapping, emptied: Iterable[Emptied]) -> tuple[list[str], list[Emptied]]:
    """Likewise for what a TRUNCATE *emptied*: the types, and those of which it was one tenant's alone."""
    names: dict[str | None, list[str]] = {}
    for each in emptied:
        names.setdefault(each.tenant, []).append(each.name)
    below = [Emptied(name, tenant) for tenant, types in names.items() for name in types_below(source, types)]
    return [each.name for each in below if each.tenant is None], [each for each in below if each.tenant is not None]


def in_order(source: SourceMapping, keys: Iterable[Key]) -> list[Key]:
    """Parents' types first, then by id text: the order in which one transaction's events go out."""
    ranks = source.ranks
    ranked: dict[int, list[Key]] = {}
    for key in keys:
        ranked.setdefault(ranks[key[0]], []).append(key)
    return [key for rank in sorted(ranked) for key in sorted(ranked[rank])]


def _rows(unit: Work) -> tuple[RowChange, ...]:
    return (unit.row,) if isinstance(unit, SnapshotRow) else unit.rows


def _root_rows(source: SourceMapping, unit: Work) -> Iterable[RowChange]:
    return [
        row for row in _rows(unit) if row.table not in source.references and row.table not in source.embedded_tables
    ]


def _embedded_rows(source: SourceMapping, unit: Work) -> Sequence[RowChange]:
    return [row for row in _rows(unit) if row.table in source.embedded_tables]


def _fold_references(source: SourceMapping, view: View, unit: Work) -> None:
    """Take over the reference rows of *unit*; whoever calls brings up to date what was made with the former ones."""
    for table in source.references.values():
        for each in view.emptied:
            if each.name == table.name:
                table.forget(each.tenant)
    for change in _rows(unit):
        if change.table in source.references:
            _fold_reference(source, view, change)


def _fold_reference(source: SourceMapping, view: View, change: RowChange) -> None:
    table = source.references[change.table]
    gone = change.operation is Operation.DELETE
    try:
        row_key = table.row_key((change.before if gone else change.after) or {})
    except MappingError as error:
        raise without_id(source.definition.source, change, error) from error
    key = Key(table.name, row_key)
    if row_key in table.rows:
        view.stored_rows.add(key)
    columns = None if gone else table.complete(change, row_key)
    if columns is None:
        table.rows.pop(row_key, None)
    else:
        table.rows[row_key] = columns
    view.rows[key] = columns
    view.dirty_rows.add(key)


def key_of(source: SourceMapping, row: RowChange) -> Key:
    """
    What row state calls *row* and its key: the aggregate whose root row it is, unless the type has a holding.

    Raises:
        StopError: the table is not declared, or the row has no id.

    """
    mapping = source.by_table.get(row.table) or source.embedded_tables.get(row.table)
    if mapping is None:
        raise StopError(
            "TABLE_NOT_DECLARED",
            f"the change log holds a change of {row.table}, which the applied definition does not know",
            remedy=f"rowcast sources apply {source.definition.source}",
        )
    operation = row.operation
    assert operation is not _TRUNCATE, "split_truncates comes first"
    image = row.before if operation is _DELETE else row.after
    try:
        return _new(Key, (mapping.name, mapping.row_key(image or {})))
    except MappingError as error:
        raise without_id(source.definition.source, row, error) from error


# A row change: the aggregate whose root row it changes, and the parent that the row points at. While that is not sure,
# a value of the row is missing, and only what is known of the row tells. One is made of every row, and taken apart.
PlacedChange = tuple[Key, RowChange, Key | None, bool]


def place(source: SourceMapping, row: RowChange) -> PlacedChange:
    """
    Whose root row *row* changes.

    Raises:
        StopError: the table is not declared, or the row has no id.

    """
    return _pointed(source, key_of(source, row), row)


def _pointed(source: SourceMapping, key: Key, row: RowChange) -> PlacedChange:
    after = row.after
    pointing = source.by_table[row.table].pointing
    if pointing is None or after is None:
        return key, row, None, True
    parent_type, read_parent = pointing
    try:
        parent = read_parent(after)
    except MappingError:
        return key, row, None, False
    return key, row, None if parent is None else _new(Key, (parent_type, parent)), True


def _parents(changes: Iterable[PlacedChange]) -> list[Key]:
    return [parent for _, _, parent, _ in changes if parent is not None]


def _fold_all(source: SourceMapping, view: View, changes: Sequence[PlacedChange]) -> None:
    """
    Fold the changes of one transaction, in order.

    A changed primary key arrives as a delete directly followed by an insert. Only then does an insert lack
    TOAST values: they are those of the row that went.
    """
    left: tuple[str, int, Columns | None] | None = None
    for key, row, parent, sure in changes:
        mapping = source.by_type[key.aggregate]
        if row.operation is _DELETE:
            left = (row.table, row.order or 0, view.rows.get(key))
            view.put_row(key, None, None if mapping.link is None else view.state(key).parent_id_text)
            continue
        assert row.after is not None, "a change other than a delete has an after image"
        columns = mapping.keep(row.after)
        if not row.whole or mapping.seldom_whole:
            moved = left and row.operation is _CREATE and left[:2] == (row.table, (row.order or 0) - 1)
            columns = completed(columns, left[2] if left and moved else view.rows.get(key))
            view.whole.discard(key)
        else:
            view.whole.add(key)
        if sure and mapping.link is None:
            view.put_row(key, columns, None if parent is None else parent.id_text)
        else:
            view.put_row(key, columns, _parent_id_text(view, mapping, key, columns))


def _fold_read(source: SourceMapping, view: View, changes: Sequence[PlacedChange]) -> None:
    """
    Fold the row of a snapshot, if it is a root row.

    Nothing is written of its aggregate while there is no more to say of it than the row does: whoever loads it takes it
    from there.
    """
    new = [key for key, _, _, sure in changes if sure and key not in view.dirty and key not in view.stored]
    _fold_all(source, view, changes)
    view.dirty.difference_update(key for key in new if source.by_type[key.aggregate].link is None)


def _parent_id_text(view: View, mapping: AggregateMapping, key: Key, columns: Columns) -> str | None:
    """The parent of a row of which that was not sure before its missing values were found."""
    if mapping.link is None:
        try:
            return mapping.parent_id_text(columns)
        except MappingError:
            pass  # the entity cannot be mapped either, so emit refuses it; the place stays what it was
    return view.state(key).parent_id_text  # or the link rows say it


def _may_move(source: SourceMapping, view: View, changes: Sequence[PlacedChange]) -> set[Key]:
    """
    The aggregates whose existence or parent changes somewhere in the batch: their descendants follow.

    Only of types that stand above others.
    """
    places: dict[Key, tuple[bool, str | None]] = {}
    moving = set()
    above = source.above
    for key, row, parent, _sure in changes:
        if key.aggregate not in above:
            continue
        former = places.get(key)
        if former is None:
            state = view.aggregates[key]
            former = state.present, state.parent_id_text
        operation = row.operation
        new = places[key] = operation is not _DELETE, None if parent is None else parent.id_text
        if former != new and operation is not _READ:
            moving.add(key)
    return moving


def origin_of(unit: Transaction | LargeTransaction) -> Origin:
    """Where the events of *unit* come from."""
    if not unit.messages:
        return Origin(unit.lsn, rfc3339(unit.time_us))
    return Origin(unit.lsn, rfc3339(unit.time_us), *_context(unit.messages))


def _context(messages: Iterable[Message]) -> tuple[Mapping[str, Any], str | None]:
    """What the writer attached; the last message wins, and one that cannot be read says so in `error`."""
    context: dict[str, Any] = {}
    traceparent: str | None = None
    for message in messages:
        if message.prefix != CONTEXT_PREFIX:
            continue
        if len(message.content) > CONTEXT_BYTES_MAX:
            context, traceparent = {"error": f"the context message has more than {CONTEXT_BYTES_MAX} bytes"}, None
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
        traceparent = given if isinstance(given, str) and TRACEPARENT.fullmatch(given) else None
    return context, traceparent
