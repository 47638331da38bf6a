"""Checks of the keywords about lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from rowcast.contracts.compatibility.bounds import item_counts
from rowcast.contracts.compatibility.cell import Cell
from rowcast.contracts.compatibility.disjointness import none_fits
from rowcast.contracts.compatibility.document import Node
from rowcast.contracts.compatibility.gap import Gap, Proof


def _min_items(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    return [] if item_counts(cell)[0] >= reader.schema["minItems"] else [proof.gap(keyword, cell, reader)]


def _max_items(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    bound, most = int(reader.schema["maxItems"]), item_counts(cell)[1]
    if most is not None and most <= bound:
        return []

    def longer() -> Iterator[Any]:
        elements = proof.instances.elements(cell, bound + 1, 0) if bound <= 300 else []
        yield elements

    return [proof.gap(keyword, cell, reader, longer)]


def _unique_items(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    most = item_counts(cell)[1]
    if not reader.schema["uniqueItems"] or any(cell.having("uniqueItems")) or (most is not None and most <= 1):
        return []

    def repeated() -> Iterator[Any]:
        least = item_counts(cell)[0]
        for value in proof.instances.of(cell.at_index(0)):
            yield [value] * max(2, least)

    return [proof.gap(keyword, cell, reader, repeated)]


def _items(proof: Proof, cell: Cell, reader: Node, _keyword: str) -> list[Gap]:
    start = len(reader.get("prefixItems", ()))
    found = []
    for at in range(start, max(start, cell.prefix) + 1):
        found += _at(proof, cell, at, reader.child("items"))
    return found


def _prefix_items(proof: Proof, cell: Cell, reader: Node, _keyword: str) -> list[Gap]:
    return [gap for at, child in enumerate(reader.children("prefixItems")) for gap in _at(proof, cell, at, child)]


def _at(proof: Proof, cell: Cell, at: int, child: Node) -> list[Gap]:
    most, nodes = item_counts(cell)[1], cell.at_index(at)
    if (most is not None and at >= most) or none_fits(nodes, cell):
        return []

    def around(value: Any) -> Iterator[Any]:
        length = max(at + 1, item_counts(cell)[0])
        elements = proof.instances.elements(cell, length, 0)
        if len(elements) == length:
            yield [*elements[:at], value, *elements[at + 1 :]]

    return [gap.below(around) for gap in proof.gaps(nodes, child)]


def _contains(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    if reader.get("minContains") == 0:
        return []
    child, least = reader.child("contains"), item_counts(cell)[0]
    for at in range(min(least, cell.prefix + 1)):
        if not proof.gaps(cell.at_index(at), child):
            return []

    def others() -> Iterator[Any]:
        yield from ([value] * max(1, least) for value in islice(proof.instances.of(cell.at_index(0)), 12))

    return [proof.gap(keyword, cell, reader, others)]


ARRAY_CHECKS: dict[str, tuple[str, Callable[[Proof, Cell, Node, str], list[Gap]]]] = {
    "minItems": ("array", _min_items),
    "maxItems": ("array", _max_items),
    "uniqueItems": ("array", _unique_items),
    "items": ("array", _items),
    "prefixItems": ("array", _prefix_items),
    "contains": ("array", _contains),
}
