"""Instances that a writer may emit: made from its schema, with values that are interesting to both sides."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from rowcast.contracts.compatibility.bounds import interval, item_counts, property_counts, texts
from rowcast.contracts.compatibility.cell import Cell, cells
from rowcast.contracts.compatibility.disjointness import refuses
from rowcast.contracts.compatibility.document import Node, SchemaDocument, subschemas
from rowcast.contracts.compatibility.json_value import identity

_DEPTH_MAX = 5
_RANDOM_DEPTH_MAX = 9
_VARIETY = 40
_HUGE = 10**100
_LONG = 5000
_TEXTS = (
    "a",
    "b",
    "",
    "0",
    "-1",
    "(",
    "x y",
    "é😀",
    "A",
    "a@b.example",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)
_NUMBERS = (0, 1, -1, 2, 0.5, 0.3, 1.0, 7, 1000, -2.5, 10**12)
_OF_FORMAT = {
    "date": ("2024-02-29", "1999-12-31"),
    "date-time": ("2024-02-29T12:30:00Z", "1999-12-31T23:59:59.5+01:00"),
    "duration": ("P1D", "PT1H30M"),
    "email": ("a@example.com", "first.last@example.org"),
    "hostname": ("example.com", "a"),
    "idn-email": ("a@example.com", "é@example.org"),
    "idn-hostname": ("example.com", "bücher.example"),
    "ipv4": ("192.0.2.1", "10.0.0.255"),
    "ipv6": ("2001:db8::1", "::1"),
    "iri": ("https://example.com/é", "urn:a:b"),
    "iri-reference": ("/é", "a"),
    "json-pointer": ("/a/0", ""),
    "regex": ("^a+$", "b"),
    "relative-json-pointer": ("0", "1/a"),
    "time": ("12:30:00Z", "23:59:59.5+01:00"),
    "uri": ("https://example.com/a", "urn:a:b"),
    "uri-reference": ("/a", "b"),
    "uri-template": ("/a/{b}", "c"),
    "uuid": ("0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1", "00000000-0000-4000-8000-000000000000"),
}
Key = tuple[tuple[int, str], ...]


class Instances:
    """Makes instances of the schemas of one writer; *reader* is where further interesting values are found."""

    def __init__(self, writer: SchemaDocument, reader: SchemaDocument, seed: int = 20201201) -> None:
        self._documents = (writer, reader)
        self._cells: dict[Key, list[Cell]] = {}
        self._first: dict[Key, list[Any]] = {}
        self._kept: list[Cell] = []
        self._objects: dict[tuple[int, bool], dict[str, Any] | None] = {}
        self._scalars: dict[int, list[Any]] = {}
        self._random = random.Random(seed)  # noqa: S311 - the same witness every time

    @cached_property
    def _named(self) -> tuple[list[Any], list[str]]:
        # Numbers and texts that stand in the schemas, and their neighbours.
        numbers: list[Any] = [*_NUMBERS]
        names: list[str] = [*_TEXTS]
        for document in self._documents:
            for schema in subschemas(document.root):
                for value in [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]:
                    if isinstance(value, str):
                        names.append(value)
                    elif isinstance(value, (int, float)) and not isinstance(value, bool):
                        numbers.append(value)
                for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
                    if keyword in schema:
                        bound = schema[keyword]
                        numbers += [bound, bound - 1, bound + 1, bound - 0.5, bound + 0.5, bound * 2, bound * 3]
                for keyword in ("minLength", "maxLength"):
                    length = int(schema.get(keyword, 0))
                    names += ["é" * each for each in (length - 1, length, length + 1) if 0 < each <= 2000]
        unique = {identity(each): each for each in numbers}
        return list(unique.values()), list(dict.fromkeys(names))

    @cached_property
    def names(self) -> list[str]:
        """Names that the schemas give to properties, and some that they do not."""
        found = (
            name for document in self._documents for schema in subschemas(document.root) for name in _names(schema)
        )
        return list(dict.fromkeys([*found, "key", "other", "", "0"]))

    def cells(self, nodes: Sequence[Node]) -> list[Cell]:
        """The writer's cells of *nodes*."""
        key = tuple(node.key for node in nodes)
        if key not in self._cells:
            self._cells[key] = cells(nodes, writer=True)
        return self._cells[key]

    def first(self, nodes: Sequence[Node]) -> list[Any]:
        """A list of one simple instance of *nodes*; empty when none is found."""
        key = tuple(node.key for node in nodes)
        if key not in self._first:
            self._first[key] = []  # while it is looked for, for schemas that contain themselves
            self._first[key] = list(islice(self.of(nodes), 1))
        return self._first[key]

    def of(self, nodes: Sequence[Node], depth: int = 0) -> Iterator[Any]:
        """Instances of *nodes*, simple ones first."""
        for cell in self.cells(nodes):
            yield from islice(self.of_cell(cell, depth), _VARIETY)

    def of_cell(self, cell: Cell, depth: int = 0) -> Iterator[Any]:
        """Instances of *cell*, simple ones first. Most are valid; who needs to know asks a validator."""
        if cell.values is None and cell.type == "array":
            yield from self.arrays(cell, depth)
        elif cell.values is None and cell.type == "object":
            yield from self.objects(cell, depth)
        else:
            yield from self.scalars(cell)

    def scalars(self, cell: Cell) -> list[Any]:
        """Values of *cell* that are named, numbers or texts."""
        if id(cell) not in self._scalars:
            makers = {"number": self.numbers, "string": self.texts}
            options = makers[cell.type](cell) if cell.values is None else iter(cell.values)
            unique = {identity(value): value for value in islice(options, 400) if not refuses(cell, value)}
            self._scalars[id(cell)] = list(islice(unique.values(), _VARIETY))
            self._kept.append(cell)  # so that its id stays its own
        return self._scalars[id(cell)]

    def numbers(self, cell: Cell) -> Iterator[Any]:
        """Candidates for a number of *cell*."""
        bounds = interval(cell)
        near = [each for each in (bounds.low, bounds.high) if each is not None and abs(each) < _HUGE]
        steps = [0, 1, -1] if cell.integer else [0, 1, -1, 0.5, -0.5, 0.001, -0.001]
        yield from (each + step for each in near for step in steps)
        for factor in cell.having("multipleOf"):
            start = int(near[0] / factor) if near else 0
            yield from (factor * (start + step) for step in (0, 1, 2, 3, -1, 5, 7))
        if len(near) == 2:
            yield (near[0] + near[1]) / 2
        yield from self._named[0]

    def texts(self, cell: Cell) -> Iterator[str]:
        """Candidates for a text of *cell*."""
        wanted = texts(cell)
        for name in cell.having("format"):
            yield from _OF_FORMAT.get(name, ())
        if wanted.patterns:
            yield from islice(wanted.samples(), 12)
        yield from (letter * max(1, wanted.low) for letter in "ab" if wanted.low <= _LONG)
        yield from self._named[1]

    def arrays(self, cell: Cell, depth: int) -> Iterator[list[Any]]:
        """Candidates for a list of *cell*: the shortest, and longer ones."""
        least, most = item_counts(cell)
        for part in cell.parts:
            if part.has("contains"):
                wanted = max(least, int(part.get("minContains", 1)))
                yield from ([value] * wanted for value in self.first([part.child("contains")]) if wanted <= _LONG)
        for length in dict.fromkeys([least, least + 1, 0, 1, 2, least + 2, *([most] if most is not None else [])]):
            if least <= length <= min(most if most is not None else length, least + 300):
                elements = self.elements(cell, length, depth)
                if len(elements) == length:
                    yield elements

    def elements(self, cell: Cell, length: int, depth: int) -> list[Any]:
        """*length* elements for a list of *cell*, different ones where possible; fewer when some cannot be made."""
        chosen: list[Any] = []
        used = set()
        for at in range(length):
            nodes = cell.at_index(at)
            options = self.first(nodes) if depth >= _DEPTH_MAX or not any(cell.having("uniqueItems")) else []
            if not options and depth < _DEPTH_MAX:
                options = list(islice(self.of(nodes, depth + 1), 1 + length))
            fresh = [each for each in options if identity(each) not in used]
            if not options:
                break
            chosen.append((fresh or options)[0])
            used.add(identity(chosen[-1]))
        return chosen

    def objects(self, cell: Cell, depth: int) -> Iterator[dict[str, Any]]:
        """Candidates for an object of *cell*: with required fields only, with all, and with others of their values."""
        minimal, full = self.object(cell, full=False), self.object(cell, full=True) if depth < _DEPTH_MAX else None
        if minimal is None:
            return
        yield minimal
        if full is not None:
            yield full
        if depth >= _DEPTH_MAX:
            return
        for name in self.possible(cell):
            for value in islice(self.of(cell.at_name(name) or [], depth + 1), 4):
                yield {**(full or minimal), name: value}

    def possible(self, cell: Cell) -> list[str]:
        """The names that an object of *cell* may have, as far as they are worth trying."""
        own = [name for part in cell.parts for name in part.get("properties", {})]
        names = dict.fromkeys([*cell.required, *(own if cell.declared is None else cell.declared)])
        if cell.declared is None and cell.having("additionalProperties"):
            names |= dict.fromkeys(self.names[:20])
        if cell.having("patternProperties"):
            patterns = [pattern for each in cell.having("patternProperties") for pattern in each]
            names |= dict.fromkeys(text for each in patterns for text in islice(texts_of(each), 2))
        return [name for name in names if cell.at_name(name) is not None]

    def object(self, cell: Cell, *, full: bool) -> dict[str, Any] | None:
        """The simplest object of *cell*, or a *full* one; None when a required field cannot be made."""
        if (id(cell), full) not in self._objects:
            self._objects[id(cell), full] = self._object(cell, full=full)
            self._kept.append(cell)  # so that its id stays its own
        made = self._objects[id(cell), full]
        return None if made is None else dict(made)

    def _object(self, cell: Cell, *, full: bool) -> dict[str, Any] | None:
        made = {}
        least, most = property_counts(cell)
        for name in cell.required:
            nodes = cell.at_name(name)
            value = self.first(nodes) if nodes is not None else []
            if not value:
                return None
            made[name] = value[0]
        for name in self.possible(cell):
            wanted = full or len(made) < least
            if name not in made and wanted and (most is None or len(made) < most):
                made.update((name, each) for each in self.first(cell.at_name(name) or []))
        return made

    def random(self, nodes: Sequence[Node], depth: int = 0) -> Any:
        """
        A random instance of *nodes*.

        Raises:
            LookupError: none can be made.

        """
        options = self.cells(nodes)
        if not options or depth > _RANDOM_DEPTH_MAX:
            raise LookupError
        cell = self._random.choice(options)
        if cell.type == "object" and cell.values is None:
            return self._random_object(cell, depth)
        if cell.type == "array" and cell.values is None:
            least, most = item_counts(cell)
            length = self._random.choice([least, least, least + 1, least + 2, 1, 0])
            length = max(least, min(length, most if most is not None else length, 0 if depth > _DEPTH_MAX else length))
            return [self.random(cell.at_index(at), depth + 1) for at in range(min(length, 50))]
        values = self.scalars(cell)
        if not values:
            raise LookupError
        return self._random.choice(values)

    def _random_object(self, cell: Cell, depth: int) -> dict[str, Any]:
        made = {}
        for name in self.possible(cell):
            optional = name not in cell.required
            if optional and (depth > _DEPTH_MAX or self._random.random() < 0.4 + 0.1 * depth):
                continue
            try:
                made[name] = self.random(cell.at_name(name) or [], depth + 1)
            except LookupError:
                if not optional:
                    raise
        return made


def texts_of(pattern: str) -> Iterator[str]:
    """Texts that match *pattern*."""
    from rowcast.contracts.compatibility.text_set import TextSet

    return TextSet((pattern,)).samples()


def _names(schema: dict[str, Any]) -> Iterable[str]:
    return [*schema.get("properties", ()), *schema.get("required", ())]
