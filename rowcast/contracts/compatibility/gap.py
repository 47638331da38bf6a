"""A place where a proof does not go through, with values that may show that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

from rowcast.contracts.compatibility.cell import Cell
from rowcast.contracts.compatibility.document import Node
from rowcast.contracts.compatibility.instances import Instances

Candidates = Callable[[], Iterator[Any]]
Seen = frozenset[tuple[int, str]]


@dataclass(frozen=True)
class Gap:
    """
    *keyword* of *reader* may reject what *cell* holds.

    *name*: the property or the values that it is about. *candidates* are whole values of the place where the proof
    stands now. *understood* is False when the keyword is one that no proof is tried for, or too deep.
    """

    keyword: str
    cell: Cell
    reader: Node
    candidates: Candidates = field(compare=False)
    name: Any = None
    understood: bool = True

    def below(self, wrap: Callable[[Any], Iterator[Any]]) -> Gap:
        """The same gap, seen from the value around it, which *wrap* makes."""
        inner = self.candidates

        def outer() -> Iterator[Any]:
            for value in islice(inner(), 24):
                yield from wrap(value)

        return replace(self, candidates=outer)


class Proof(Protocol):
    """What the checks of single keywords need of the proof that they are part of."""

    instances: Instances

    def gaps(self, nodes: list[Node], reader: Node) -> list[Gap]:
        """The gaps one level further down in the instance."""

    def of_cell(self, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
        """The gaps for the same value; *seen* are readers of it that led here."""

    def gap(self, keyword: str, cell: Cell, reader: Node, candidates: Candidates | None = None, **more: Any) -> Gap:
        """A gap; *candidates* are tried before the usual instances of *cell*."""
