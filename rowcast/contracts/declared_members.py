"""
Events without the members of objects that their contract does not name: nobody has said what they are.

A writer emits declared fields only. On that rest the comparison of versions and the classes of personal data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rowcast.contracts.personal_data import Treatment, item, member, together

Pruner = Callable[[Any], Any]


def pruner(treatment: Treatment) -> Pruner | None:
    """
    What takes off a value the members that *treatment*'s schema does not name; None where there can be none.

    The value that it is given is not changed, and given back itself when there is nothing to take off.
    """
    if not _declares(treatment):
        return None
    return _simple(treatment, {}) or (lambda value: declared((treatment,), value))


def declared(treatments: Iterable[Treatment], value: Any) -> Any:
    """*value* without undeclared members, whatever variants and references its schema has."""
    known, _ = together(treatments)
    if isinstance(value, list):
        return [declared(item(known, place), child) for place, child in enumerate(value)]
    if not isinstance(value, dict) or any(each.free for each in known) or not any(map(_names, known)):
        return value
    return {name: declared(below, child) for name, child in value.items() if (below := member(known, name))}


def _names(treatment: Treatment) -> bool:
    return bool(treatment.members) or treatment.values is not None


def _declares(treatment: Treatment) -> bool:
    waiting, seen = [treatment], {id(treatment)}
    while waiting:
        each = waiting.pop()
        if each.members:
            return True
        fresh = [inner for _, inner in each.edges() if id(inner) not in seen]
        seen.update(map(id, fresh))
        waiting += fresh
    return False


def _simple(treatment: Treatment, begun: dict[int, Treatment]) -> Pruner | None:
    """
    The quick way for what most contracts have: objects and lists of them, by reference or in place, without variants.

    None where there is more, or where a definition refers to itself.
    """
    while len(treatment.also) == 1 and not treatment.members and treatment.items is None and treatment.values is None:
        treatment = treatment.also[0]
    if treatment.also or treatment.values is not None or id(treatment) in begun:
        return None
    begun = {**begun, id(treatment): treatment}
    if treatment.items is not None:
        inner = _simple(treatment.items, begun) if _declares(treatment.items) else None
        return None if inner is None or treatment.members else _list_pruner(inner)
    inners = {name: _simple(each, begun) for name, each in treatment.members.items() if _declares(each)}
    if not treatment.members or None in inners.values():
        return None
    return _object_pruner(frozenset(treatment.members), {name: each for name, each in inners.items() if each})


def _list_pruner(prune_item: Pruner) -> Pruner:
    def prune(value: Any) -> Any:
        return [prune_item(each) for each in value] if value.__class__ is list else value

    return prune


def _object_pruner(names: frozenset[str], inners: dict[str, Pruner]) -> Pruner:
    def prune(value: Any) -> Any:
        if value.__class__ is not dict:
            return value
        if not names.issuperset(value):
            value = {name: child for name, child in value.items() if name in names}
        if inners:
            value = {name: inners[name](child) if name in inners else child for name, child in value.items()}
        return value

    return prune
