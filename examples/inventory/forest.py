"""
The trees that one client of the load owns: instance → holdings → items, by id.

No other client writes to these rows, so the owner knows the order of their changes without asking anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from uuid import UUID

from examples.inventory.published import Key, State


class Forest:
    """Ids and parents; follows committed transactions only."""

    def __init__(self) -> None:
        self._instances: dict[UUID, list[UUID]] = {}
        self._holdings: dict[UUID, list[UUID]] = {}
        self._instance_of: dict[UUID, UUID] = {}
        self._holdings_of: dict[UUID, UUID] = {}
        # What random choice draws from; an entry that is gone is swapped out when it is drawn.
        self._drawn: dict[str, list[UUID]] = {"instance": [], "holdings": [], "item": []}

    def follow(self, states: Mapping[Key, State]) -> None:
        """Take over what a committed transaction left behind."""
        for key, state in sorted(states.items(), key=_parents_first):
            identity = UUID(key.id_text)
            if state.after is None:
                self._remove(key.aggregate, identity)
            elif key.aggregate == "instance":
                self._add_instance(identity)
            elif key.aggregate == "holdings":
                self._place(identity, UUID(state.after["instance_id"]), "holdings")
            else:
                self._place(identity, UUID(state.after["holdings_id"]), "item")

    def instance(self, rng: Random, *, other_than: UUID | None = None) -> UUID | None:
        """Some instance, or None when there is no other."""
        return self._draw(rng, "instance", self._instances, other_than)

    def holdings(self, rng: Random, *, other_than: UUID | None = None) -> UUID | None:
        """Some holdings, or None when there are no other."""
        return self._draw(rng, "holdings", self._holdings, other_than)

    def item(self, rng: Random) -> UUID | None:
        """Some item, or None when there is none."""
        return self._draw(rng, "item", self._holdings_of, None)

    def holdings_of(self, instance: UUID) -> list[UUID]:
        """The holdings of *instance*."""
        return list(self._instances[instance])

    def items_of(self, holdings: Iterable[UUID]) -> list[UUID]:
        """The items of all these *holdings*."""
        return [item for each in holdings for item in self._holdings[each]]

    def instance_of(self, holdings: UUID) -> UUID:
        """The instance of *holdings*."""
        return self._instance_of[holdings]

    def holdings_of_item(self, item: UUID) -> UUID:
        """The holdings of *item*."""
        return self._holdings_of[item]

    def _draw(self, rng: Random, kind: str, present: Mapping[UUID, object], other_than: UUID | None) -> UUID | None:
        pool = self._drawn[kind]
        while len(present) > (other_than in present):
            place = rng.randrange(len(pool))
            identity = pool[place]
            if identity not in present:
                pool[place] = pool[-1]
                pool.pop()
            elif identity != other_than:
                return identity
        return None

    def _add_instance(self, identity: UUID) -> None:
        if identity not in self._instances:
            self._instances[identity] = []
            self._drawn["instance"].append(identity)

    def _place(self, identity: UUID, parent: UUID, kind: str) -> None:
        parents, children = (
            (self._instance_of, self._instances) if kind == "holdings" else (self._holdings_of, self._holdings)
        )
        if identity not in parents:
            self._drawn[kind].append(identity)
            if kind == "holdings":
                self._holdings[identity] = []
        elif parents[identity] == parent:
            return
        else:
            children[parents[identity]].remove(identity)
        parents[identity] = parent
        children[parent].append(identity)

    def _remove(self, kind: str, identity: UUID) -> None:
        if kind == "instance":
            self._instances.pop(identity, None)
        elif kind == "holdings" and (instance := self._instance_of.pop(identity, None)):
            self._holdings.pop(identity)
            self._instances[instance].remove(identity)
        elif kind == "item" and (holdings := self._holdings_of.pop(identity, None)):
            self._holdings[holdings].remove(identity)


_RANK = {"instance": 0, "holdings": 1, "item": 2}


def _parents_first(entry: tuple[Key, State]) -> tuple[bool, int]:
    # Rows that are there come parents first, then what is gone comes children first.
    key, state = entry
    gone = state.after is None
    return gone, -_RANK[key.aggregate] if gone else _RANK[key.aggregate]
