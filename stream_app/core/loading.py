"""
What a batch asks for before it is worked through: aggregates with all above them, below them, and inside them.

Each function yields the `Lookup`s that it needs and goes on when the shell has filled the view.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence, Set

from rowcast.errors import MappingError
from rowcast.limit import limit
from stream_app.core.embedded import EmbeddedChanges, load_embedded
from stream_app.core.holding import Shift, parents_in
from stream_app.core.link import parent_ids
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import ABSENT, Key, Lookup, View

Lookups = Generator[Lookup, None, None]
# Below this many descendants in a batch, moved parents are worked through in memory; above, in chunks.
DESCENDANTS_MAX = limit("descendants", 5_000)


class LargeFanOutError(Exception):
    """The batch moves more descendants than fit into memory: its transactions have to be taken apart."""


def load_touched(
    source: SourceMapping,
    view: View,
    touched: Set[Key],
    named: Iterable[Key],
    by: tuple[Sequence[Shift], Sequence[EmbeddedChanges]],
) -> Lookups:
    """
    Load the aggregates that changes of rows touch, and everything above them before and after.

    *named* are the parents that plain rows name.
    """
    held, embedded = by
    yield from load_missing(source, view, touched)
    if view.emptied:
        _forget_emptied(source, view, touched)
    parents = {*named, *parents_in(source, view, held)}
    parents.update(key for each in embedded for key in each.parents)
    yield from load_aggregates(source, view, parents)
    yield from load_aggregates(source, view, touched)


def _forget_emptied(source: SourceMapping, view: View, keys: Iterable[Key]) -> None:
    """What the control database has of truncated tables stood there before the rows of the batch."""
    for key in keys:
        link = source.by_type[key.aggregate].link
        if link is not None and view.is_emptied(link.name, key.id_text):
            view.aggregates[key] = view.aggregates[key]._replace(parent_id_text=None)
        if view.is_emptied(*key) and key.aggregate not in source.held:
            # What link rows name stays theirs, whether the row that they bind is there or not.
            state = view.aggregates[key]._replace(present=False)
            view.aggregates[key] = state if link is not None else state._replace(parent_id_text=None)
            view.rows[key] = None
            view.stored_rows.discard(key)


def load_missing(source: SourceMapping, view: View, keys: Iterable[Key]) -> Lookups:
    """Load those of *keys* that were not loaded yet, with their root rows."""
    missing = view.missing(keys)
    if missing:
        held = frozenset(key for key in missing if key.aggregate in source.held) if source.held else frozenset()
        plain = missing - held if held else missing
        yield Lookup(plain, held=held)
        _take_from_rows(source, view, plain)


def _take_from_rows(source: SourceMapping, view: View, keys: Iterable[Key]) -> None:
    """
    Let aggregates of which nothing was written be what their root rows say.

    So it is with those that a snapshot has read, until their events go out.
    """
    aggregates, rows = view.aggregates, view.rows
    for key in [key for key in keys if aggregates[key] is ABSENT and rows[key] is not None]:
        mapping, columns = source.by_type[key.aggregate], rows[key]
        assert columns is not None, "asked for above"
        if mapping.link is not None:
            continue  # its link rows say the parents
        try:
            parent = mapping.parent_id_text(columns)
        except MappingError:
            parent = None
        aggregates[key] = ABSENT._replace(parent_id_text=parent, present=True)


def load_aggregates(source: SourceMapping, view: View, keys: Iterable[Key]) -> Lookups:
    """Load *keys* and everything above them."""
    level: Collection[Key] = set(keys)
    while level:
        yield from load_missing(source, view, level)
        level = _parents_of(source, view, level)


def load_whole(source: SourceMapping, view: View, keys: Iterable[Key]) -> Lookups:
    """Load *keys* with everything that their events are made of."""
    yield from load_aggregates(source, view, keys)
    if source.embedded_tables:
        yield from load_embedded(source, view, keys)


def _parents_of(source: SourceMapping, view: View, keys: Iterable[Key]) -> set[Key]:
    aggregates, parents = view.aggregates, set[Key]()
    for key in keys:
        text = aggregates[key].parent_id_text
        if text is None:
            continue
        mapping = source.by_type[key.aggregate]
        if mapping.parent_type is not None:
            parents.update(Key(mapping.parent_type, each) for each in parent_ids(text, mapping.link is not None))
    return parents


def load_descendants(source: SourceMapping, view: View, keys: Iterable[Key]) -> Generator[Lookup, None, frozenset[Key]]:
    """
    Load everything below *keys*; returns it.

    Raises:
        LargeFanOutError: it is more than fits into memory.

    """
    level, below = set(keys), set[Key]()
    while level:
        wanted = yield from load_children(source, view, level)
        if sum(map(len, view.children.values())) > DESCENDANTS_MAX:
            raise LargeFanOutError
        level = {Key(child, id_text) for child, parent in wanted for id_text in view.children[child, parent]}
        yield from load_aggregates(source, view, level)
        below |= level
    return frozenset(below)


def load_children(
    source: SourceMapping, view: View, keys: Iterable[Key], *, one_each: bool = False
) -> Generator[Lookup, None, set[tuple[str, str]]]:
    """
    Load who stands right below *keys*; returns which children of which parents these are, as the view has them.

    With *one_each* one child is enough, because it is asked only whether there are any.

    Raises:
        LargeFanOutError: there are more than fit into memory.

    """
    wanted = {(child, key.id_text) for key in keys for child in source.by_type[key.aggregate].child_types}
    missing = frozenset(each for each in wanted if each not in view.children)
    if missing:
        links = {each: link.index for each in missing if (link := source.by_type[each[0]].link) is not None}
        yield Lookup(frozenset(), missing, indexes=links, one_each=one_each)
    return wanted
