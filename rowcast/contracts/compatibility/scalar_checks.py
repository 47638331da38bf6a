"""Checks of the keywords about types, numbers and texts, for values that cannot be tried one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rowcast.contracts.compatibility.bounds import interval, texts
from rowcast.contracts.compatibility.cell import Cell
from rowcast.contracts.compatibility.disjointness import refuses
from rowcast.contracts.compatibility.document import Node
from rowcast.contracts.compatibility.gap import Gap, Proof
from rowcast.contracts.compatibility.json_value import identity
from rowcast.contracts.compatibility.text_set import TextSet
from rowcast.contracts.compatibility.validator import FORMATS

Check = Callable[[Proof, Cell, Node, str], list[Gap]]
_LONG = 2000


def _type(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    types = reader.schema["type"]
    types = types if isinstance(types, list) else [types]
    if cell.type in types:
        return []
    if cell.type == "number" and "integer" in types:
        whole = any(isinstance(each, int) for each in cell.having("multipleOf"))
        return [] if cell.integer or whole else [proof.gap(keyword, cell, reader)]
    return [proof.gap(keyword, cell, reader)]


def _named(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    listed = reader.schema["enum"] if keyword == "enum" else [reader.schema["const"]]
    known = {identity(each) for each in listed}

    def others() -> Iterator[Any]:
        return (value for value in proof.instances.of_cell(cell) if identity(value) not in known)

    return [proof.gap(keyword, cell, reader, others)]


def _format(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    name = reader.schema["format"]
    return [] if name not in FORMATS or name in cell.having("format") else [proof.gap(keyword, cell, reader)]


def _pattern(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    pattern = reader.schema["pattern"]
    return [] if pattern in cell.having("pattern") else _beyond(proof, cell, reader, keyword, texts(cell, pattern))


def _min_length(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    bound, wanted = int(reader.schema["minLength"]), texts(cell)
    if wanted.low >= bound:
        return []
    high = bound - 1 if wanted.high is None else min(bound - 1, wanted.high)
    return _beyond(proof, cell, reader, keyword, replace(wanted, high=high))


def _max_length(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    bound, wanted = int(reader.schema["maxLength"]), texts(cell)
    if wanted.high is not None and wanted.high <= bound:
        return []
    return _beyond(proof, cell, reader, keyword, replace(wanted, low=max(wanted.low, bound + 1)))


def _beyond(proof: Proof, cell: Cell, reader: Node, keyword: str, texts_beyond: TextSet) -> list[Gap]:
    plain = not texts_beyond.patterns and texts_beyond.without is None
    if not plain and texts_beyond.is_empty():
        return []

    def candidates() -> Iterator[Any]:
        if plain:
            yield from (letter * texts_beyond.low for letter in "aé0" if texts_beyond.low <= _LONG)
        else:
            yield from texts_beyond.samples()

    return [proof.gap(keyword, cell, reader, candidates)]


def _bound(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    bound, out = reader.schema[keyword], keyword.startswith("exclusive")
    numbers = interval(cell)
    within = numbers.within_low if keyword.lower().endswith("minimum") else numbers.within_high
    if within(bound, out=out):
        return []
    if cell.integer and keyword.startswith("exclusive"):
        inner = bound + 1 if keyword == "exclusiveMinimum" else bound - 1
        if isinstance(bound, int) and within(inner, out=False):
            return []

    def around() -> Iterator[Any]:
        near = [bound + step for step in (0, 1, -1, 0.5, -0.5)]
        for factor in cell.having("multipleOf"):
            near += [factor * (int(bound / factor) + step) for step in (0, 1, -1, 2, -2)]
        return (value for value in near if not refuses(cell, value))

    return [proof.gap(keyword, cell, reader, around)]


def _multiple_of(proof: Proof, cell: Cell, reader: Node, keyword: str) -> list[Gap]:
    divisor = reader.schema["multipleOf"]
    for other in cell.having("multipleOf"):
        if isinstance(other, int) and isinstance(divisor, int) and other % divisor == 0:
            return []
        if type(other) is type(divisor) and other == divisor:
            return []
    if cell.integer and divisor == 1 and isinstance(divisor, int):
        return []
    return [proof.gap(keyword, cell, reader)]


SCALAR_CHECKS: dict[str, tuple[str, Check]] = {
    "type": ("", _type),
    "enum": ("", _named),
    "const": ("", _named),
    "format": ("string", _format),
    "pattern": ("string", _pattern),
    "minLength": ("string", _min_length),
    "maxLength": ("string", _max_length),
    "minimum": ("number", _bound),
    "maximum": ("number", _bound),
    "exclusiveMinimum": ("number", _bound),
    "exclusiveMaximum": ("number", _bound),
    "multipleOf": ("number", _multiple_of),
}
