"""What is being committed is laid over what the control database says, whether it is there already or not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stream_app.core.state import ABSENT, AggregateState, Key, Lookup, View

PARENT, OTHER, CHILD = Key("holdings", "h1"), Key("holdings", "h2"), Key("item", "x1")


def loaded(lookup: Lookup, committed: View | None, before: dict[Key, AggregateState]) -> View:
    """What a read gives before (*committed* is None) or after the commit of *committed*."""
    view = View()
    now = {**before, **({} if committed is None else {key: committed.aggregates[key] for key in committed.dirty})}
    for key in lookup.aggregates:
        view.aggregates[key] = now.get(key, ABSENT)
        view.rows[key] = {"id": key.id_text} if key in now and now[key].present else None
        if key in now:
            view.stored.add(key)
        if view.rows[key] is not None:
            view.stored_rows.add(key)
    for child, parent in lookup.children:
        view.children[child, parent] = {
            key.id_text for key, state in now.items() if key.aggregate == child and state.parent_id_text == parent
        }
    return view


def changed(before: dict[Key, AggregateState], moves: Iterable[tuple[Key, str | None]]) -> View:
    """A step that puts each key's row under a parent, or takes it away (None)."""
    view = loaded(Lookup(frozenset(key for key, _ in moves)), None, before)
    for key, parent in moves:
        view.put_row(key, None if parent is None else {"id": key.id_text}, parent)
    return view


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("before", "parent", "children"),
    [
        ({}, "h1", {"h1": {"x1"}, "h2": set()}),
        ({CHILD: AggregateState(1, "h1", True)}, "h2", {"h1": set(), "h2": {"x1"}}),
        ({CHILD: AggregateState(1, "h1", True)}, "h1", {"h1": {"x1"}, "h2": set()}),
        ({CHILD: AggregateState(1, "h1", True)}, None, {"h1": set(), "h2": set()}),
    ],
)
def test_a_step_sees_the_one_before_it(
    before: dict[Key, AggregateState], parent: str | None, children: dict[str, set[str]], *, there: bool
) -> None:
    """State, row, children and what is stored are as after the commit, whichever side of it was read."""
    newer = changed(before, [(CHILD, parent)])
    lookup = Lookup(frozenset({CHILD}), frozenset({("item", "h1"), ("item", "h2")}))
    view = loaded(lookup, newer if there else None, before)
    view.lay_over(newer, lookup)

    assert view.aggregates[CHILD] == newer.aggregates[CHILD]
    assert view.rows[CHILD] == newer.rows[CHILD]
    assert {name: view.children["item", name] for name in ("h1", "h2")} == children
    assert CHILD in view.stored
    assert (CHILD in view.stored_rows) == (parent is not None)


def test_what_the_step_before_did_not_touch_stays_as_it_was_read() -> None:
    """Other aggregates and other children keep what the control database says."""
    before = {OTHER: AggregateState(3, "i1", True), Key("item", "x2"): AggregateState(1, "h1", True)}
    newer = changed(before, [(CHILD, "h1")])
    lookup = Lookup(frozenset({OTHER, PARENT}), frozenset({("item", "h1")}))
    view = loaded(lookup, None, before)
    view.lay_over(newer, lookup)

    assert view.aggregates == {OTHER: before[OTHER], PARENT: ABSENT}
    assert view.stored == {OTHER}
    assert view.children["item", "h1"] == {"x1", "x2"}


def test_what_an_index_under_way_binds_is_added_to_the_children_that_it_names() -> None:
    """Those that the control database names stay: whoever is not bound any more is looked at and found unchanged."""
    index = Key("item.ancestors.index", "h1")
    newer = View()
    newer.put_held_row(Key(index.aggregate, "1"), {"child": "x1"}, "h1")
    newer.put_held_row(Key(index.aggregate, "2"), None, None)
    lookup = Lookup(frozenset(), frozenset({("item", "h1")}), indexes={("item", "h1"): index.aggregate})
    view = View(children={("item", "h1"): {"x2"}})
    view.lay_over(newer, lookup)

    assert view.children["item", "h1"] == {"x1", "x2"}


def test_one_child_that_is_enough_is_not_taken_away() -> None:
    """It says that there are some; that it goes says nothing of the others."""
    before = {CHILD: AggregateState(1, "h1", True)}
    newer = changed(before, [(CHILD, "h2")])
    lookup = Lookup(frozenset(), frozenset({("item", "h1"), ("item", "h2")}), one_each=True)
    view = loaded(lookup, None, before)
    view.lay_over(newer, lookup)

    assert view.children == {("item", "h1"): {"x1"}, ("item", "h2"): {"x1"}}
