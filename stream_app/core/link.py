"""
Rows of link tables: each binds an aggregate with one parent, so that it may have any number of them.

The aggregate's state holds the ids of all of them in one text. An index, kept as rows of its own, has the aggregates
that a parent is bound with; it may name some that are not any more, which are looked at and found unchanged.
"""

from __future__ import annotations

from stream_app.core.embedding import LinkMapping
from stream_app.core.state import Key, View

# Stands in no id text.
_BETWEEN = "|"


def parent_ids(text: str | None, linked: bool) -> list[str]:
    """The ids of the parents that the state of an aggregate names; *linked*: its type has a link table."""
    if text is None:
        return []
    return text.split(_BETWEEN) if linked else [text]


def index_link(view: View, link: LinkMapping, row: Key, bound: tuple[str | None, str | None]) -> None:
    """Keep the index of a link row that was just folded; *bound*: the ids of aggregate and parent that it names."""
    entry = Key(link.index, row.id_text)
    if row in view.stored_rows:
        view.stored_rows.add(entry)
    child, parent = bound
    both = child is not None and parent is not None
    view.put_held_row(entry, {"child": child} if both else None, parent if both else None)
    known = view.children.get((link.aggregate, parent or ""))
    if child is not None and known is not None:
        known.add(child)


def bind(view: View, link: LinkMapping, key: Key) -> None:
    """Set the parents of an aggregate to those that its link rows name; these have to be loaded, and folded."""
    parents = set()
    for each in view.holders(Key(link.name, key.id_text)):
        columns = view.rows[Key(link.name, each)]
        assert columns is not None, "a row that is gone has no owner"
        parents.add(link.parent(columns))
    text = _BETWEEN.join(sorted(each for each in parents if each is not None)) or None
    state = view.state(key)
    if state.parent_id_text != text:
        view.put(key, state._replace(parent_id_text=text))
