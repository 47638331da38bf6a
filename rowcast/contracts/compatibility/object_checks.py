"""Checks of the keywords about objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from rowcast.contracts.compatibility.acceptance import accepts
from rowcast.contracts.compatibility.bounds import property_counts
from rowcast.contracts.compatibility.cell import Cell, matches
from rowcast.contracts.compatibility.disjointness import none_fits
from rowcast.contracts.compatibility.document import Node
from rowcast.contracts.compatibility.gap import Gap, Proof
from rowcast.contracts.compatibility.instances import texts_of
from rowcast.contracts.compatibility.sameness import same
from rowcast.contracts.compatibility.text_set import TextSet


def _properties(proof: Proof, cell: Cell, reader: Node, _keyword: str) -> list[Gap]:
    written = [part.schema["properties"] for part in cell.parts if part.has("properties")]
    changed = [
        name
        for name, read in reader.schema["properties"].items()
        if not any(name in each and same(each[name], read) for each in written)
    ]
    return [gap for name in changed for gap in _at_name(proof, cell, name, reader.child("properties", name))]


def _at_name(proof: Proof, cell: Cell, name: str, child: Node) -> list[Gap]:
    nodes = cell.at_name(name)
    if nodes is None or none_fits(nodes, cell):
        return []
    return [gap.below(lambda value: _around(proof, cell, name, value)) for gap in proof.gaps(nodes, child)]


def _around(proof: Proof, cell: Cell, name: str, value: Any) -> Iterator[Any]:
    for full in (False, True):
        made = proof.instances.object(cell, full=full)
        if made is not None:
            yield {**made, name: value}


def _required(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    missing = [name for name in reader.schema["required"] if name not in cell.required]
    return [proof.gap(keyword, cell, reader, _without(proof, cell, name), name=name) for name in missing]


def _without(proof: Proof, cell: Cell, name: str) -> Callable[[], Iterator[Any]]:
    def objects() -> Iterator[Any]:
        for full in (False, True):
            made = proof.instances.object(cell, full=full)
            if made is not None:
                yield {other: value for other, value in made.items() if other != name}

    return objects


def _concrete(cell: Cell) -> list[str]:
    if cell.declared is not None:
        return list(cell.declared)
    own = (name for part in cell.parts for name in part.get("properties", {}))
    return list(dict.fromkeys([*cell.required, *own, *sorted(cell.conjunction.names)]))


def _additional_properties(proof: Proof, cell: Cell, reader: Node, _keyword: str) -> list[Gap]:
    child = reader.child("additionalProperties")
    own, patterns = reader.get("properties", {}), reader.get("patternProperties", {})
    found = []
    for name in _concrete(cell):
        if name not in own and not any(matches(pattern, name) for pattern in patterns):
            found += _at_name(proof, cell, name, child)
    for pattern, nodes in cell.elsewhere():
        if pattern not in patterns:
            found += _elsewhere(proof, cell, nodes, child, _fresh(proof, cell, pattern))
    return found


def _fresh(proof: Proof, cell: Cell, pattern: str | None) -> Callable[[], Iterator[str]]:
    def names() -> Iterator[str]:
        if pattern is not None:
            return islice(texts_of(pattern), 3)
        return (name for name in reversed(proof.instances.names) if name not in _concrete(cell))

    return names


def _elsewhere(
    proof: Proof, cell: Cell, nodes: list[Node], child: Node, names: Callable[[], Iterator[str]]
) -> list[Gap]:
    if none_fits(nodes, cell):
        return []

    def around(value: Any) -> Iterator[Any]:
        for name in islice(names(), 3):
            yield from _around(proof, cell, name, value)

    return [gap.below(around) for gap in proof.gaps(nodes, child)]


def _pattern_properties(proof: Proof, cell: Cell, reader: Node, _keyword: str) -> list[Gap]:
    found = []
    for pattern in reader.schema["patternProperties"]:
        child = reader.child("patternProperties", pattern)
        for name in _concrete(cell):
            if matches(pattern, name) is not False:
                found += _at_name(proof, cell, name, child)
        for other, nodes in cell.elsewhere():
            if other is None or not TextSet((pattern, other)).is_empty():
                found += _elsewhere(proof, cell, nodes, child, _fresh(proof, cell, pattern))
    return found


def _property_names(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    child, found = reader.child("propertyNames"), []
    for name in _concrete(cell):
        nodes = cell.at_name(name)
        verdict = accepts(child, name)
        if nodes is not None and not none_fits(nodes, cell) and verdict is not True:
            found.append(proof.gap(keyword, cell, reader, name=name, understood=verdict is False))
    if cell.elsewhere():
        rules = [part.child("propertyNames") for part in cell.parts if part.has("propertyNames")]
        names = [each for each in proof.instances.cells(rules) if each.type == "string"]
        inner = [gap for each in names for gap in proof.of_cell(each, child, frozenset())]

        def named(name: Any) -> Iterator[Any]:
            value = proof.instances.first(cell.at_name(name) or [])
            return _around(proof, cell, name, value[0]) if value else iter(())

        found += [gap.below(named) for gap in inner]
    return found


def _min_properties(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    return [] if property_counts(cell)[0] >= reader.schema["minProperties"] else [proof.gap(keyword, cell, reader)]


def _max_properties(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    bound, most = reader.schema["maxProperties"], property_counts(cell)[1]
    if most is not None and most <= bound:
        return []

    def larger() -> Iterator[Any]:
        made = proof.instances.object(cell, full=True)
        if made is not None and cell.declared is None:
            value = proof.instances.first(cell.at_name("key") or [])
            made |= {f"key{number}": value[0] for number in range(int(bound) + 1) if value and bound < 300}
        if made is not None:
            yield made

    return [proof.gap(keyword, cell, reader, larger)]


def _dependent_required(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    found = []
    rules = cell.having("dependentRequired")
    for name, needs in reader.schema["dependentRequired"].items():
        nodes = cell.at_name(name)
        if nodes is None or none_fits(nodes, cell):
            continue
        given = {name, *cell.required, *(need for rule in rules for need in rule.get(name, ()))}
        missing = [need for need in needs if need not in given]
        found += [proof.gap(keyword, cell, reader, _with(proof, cell, name, need), name=name) for need in missing]
    return found


def _with(proof: Proof, cell: Cell, name: str, without: str) -> Callable[[], Iterator[Any]]:
    def objects() -> Iterator[Any]:
        for value in proof.instances.first(cell.at_name(name) or []):
            for made in _around(proof, cell, name, value):
                yield {other: each for other, each in made.items() if other != without}

    return objects


OBJECT_CHECKS: dict[str, tuple[str, Callable[[Proof, Cell, Node, str], list[Gap]]]] = {
    "properties": ("object", _properties),
    "required": ("object", _required),
    "additionalProperties": ("object", _additional_properties),
    "patternProperties": ("object", _pattern_properties),
    "propertyNames": ("object", _property_names),
    "minProperties": ("object", _min_properties),
    "maxProperties": ("object", _max_properties),
    "dependentRequired": ("object", _dependent_required),
}
