"""Checks of the keywords that combine schemas of the same value: references, unions, conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from rowcast.contracts.compatibility.cell import Cell, Conjunction
from rowcast.contracts.compatibility.disjointness import disjoint
from rowcast.contracts.compatibility.document import Node, SchemaDocument
from rowcast.contracts.compatibility.gap import Gap, Proof, Seen

_PIECES_MAX = 32


def _reference(proof: Proof, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
    target = reader.document.resolve(reader.schema["$ref"])
    if target is None:
        return [proof.gap("$ref", cell, reader, understood=False)]
    return proof.of_cell(cell, target, seen)


def _all_of(proof: Proof, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
    return [gap for branch in reader.children("allOf") for gap in proof.of_cell(cell, branch, seen)]


def _any_of(proof: Proof, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
    found = []
    for branch in reader.children("anyOf"):
        gaps = proof.of_cell(cell, branch, seen)
        if not gaps:
            return []
        found.append((branch, gaps))
    possible = [gaps for branch, gaps in found if not disjoint(cell, [branch])]
    return possible[0] if len(possible) == 1 else _in_pieces("anyOf", proof, cell, reader, seen, possible)


def _one_of(proof: Proof, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
    possible = [branch for branch in reader.children("oneOf") if not disjoint(cell, [branch])]
    found = [proof.of_cell(cell, branch, seen) for branch in possible]
    return found[0] if len(found) == 1 else _in_pieces("oneOf", proof, cell, reader, seen, found)


def _in_pieces(keyword: str, proof: Proof, cell: Cell, reader: Node, seen: Seen, found: list[list[Gap]]) -> list[Gap]:
    pieces = _pieces(proof, cell)
    if pieces:
        return [gap for piece in pieces for gap in COMPOSITION_CHECKS[keyword](proof, piece, reader, seen)]

    def nested() -> Iterator[Any]:
        return (value for gaps in found for gap in gaps[:4] for value in islice(gap.candidates(), 12))

    return [proof.gap(keyword, cell, reader, nested, understood=not found)]


def _pieces(proof: Proof, cell: Cell) -> list[Cell]:
    """*cell* split by the values of a required property that has few: what distinguishes variants."""
    if cell.type != "object":
        return []
    for name in cell.required:
        inner = proof.instances.cells(cell.at_name(name) or [])
        values = [value for each in inner for value in each.values or ()]
        if 1 < len(values) <= _PIECES_MAX and all(each.values is not None for each in inner):
            return [_with_value(cell, name, value) for value in values]
    return []


def _with_value(cell: Cell, name: str, value: Any) -> Cell:
    node = SchemaDocument("split", {"properties": {name: {"const": value}}}).node
    together = Conjunction((*cell.parts, node), cell.conjunction.names, cell.conjunction.open)
    return Cell(cell.type, together, writer=cell.writer)


def _not(proof: Proof, cell: Cell, reader: Node, _seen: Seen) -> list[Gap]:
    return [] if disjoint(cell, [reader.child("not")]) else [proof.gap("not", cell, reader, understood=False)]


def _if(proof: Proof, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
    condition = reader.child("if")

    def branch(keyword: str) -> list[Gap]:
        return proof.of_cell(cell, reader.child(keyword), seen) if reader.has(keyword) else []

    if disjoint(cell, [condition]):
        return branch("else")
    if not proof.of_cell(cell, condition, seen):
        return branch("then")
    if not branch("then") and not branch("else"):
        return []
    return [proof.gap("if", cell, reader, understood=False)]


def _dependent_schemas(proof: Proof, cell: Cell, reader: Node, seen: Seen) -> list[Gap]:
    if cell.type != "object":
        return []
    names = [
        name
        for name in reader.schema["dependentSchemas"]
        if cell.at_name(name) is not None and proof.of_cell(cell, reader.child("dependentSchemas", name), seen)
    ]
    return [proof.gap("dependentSchemas", cell, reader, name=name, understood=False) for name in names]


COMPOSITION_CHECKS: dict[str, Callable[[Proof, Cell, Node, Seen], list[Gap]]] = {
    "$ref": _reference,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "dependentSchemas": _dependent_schemas,
}
