"""
Cells: a schema as a union of conjunctions of one type each, wider than the schema where it is not understood.

A proof is about cells, so a cell may hold values that the schema rejects, but never miss one that it accepts. For a
writer it holds what the writer may emit under any reasonable reading of "declared fields only".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rowcast.contracts.compatibility.document import Node
from rowcast.contracts.compatibility.json_value import TYPES, identity, is_integer, type_of
from rowcast.contracts.compatibility.pattern import FLAVOURS, automaton

CELLS_MAX = 96
# What applies to the same value without being taken apart here.
_SET_ASIDE = ("not", "if", "then", "else", "dependentSchemas")
_UNKNOWN_REACH = ("$dynamicRef", "$recursiveRef", "dependencies", "additionalItems")


@dataclass(frozen=True)
class Conjunction:
    """
    Schemas that hold together for one value.

    *names* are properties that schemas beside them may declare; *open* when those may declare any.
    """

    parts: tuple[Node, ...]
    names: frozenset[str] = frozenset()
    open: bool = False

    def joined(self, other: Conjunction) -> Conjunction:
        """Both together."""
        parts = tuple(dict.fromkeys((*self.parts, *other.parts)))
        return Conjunction(parts, self.names | other.names, self.open or other.open)


def conjunctions(nodes: Iterable[Node]) -> list[Conjunction]:
    """The alternatives of *nodes* that all hold for one value."""
    result = [Conjunction(())]
    for node in nodes:
        result = _product(result, _alternatives(node, frozenset()))
    return result


def _product(left: list[Conjunction], right: list[Conjunction]) -> list[Conjunction]:
    if len(left) * len(right) > CELLS_MAX:
        # Too many to tell apart: keep the shorter list alone, which is wider.
        kept, dropped = (left, right) if len(left) <= len(right) else (right, left)
        names = frozenset().union(*(_declared(each) for each in dropped))
        return [Conjunction(each.parts, each.names | names, True) for each in kept]
    return [one.joined(other) for one in left for other in right]


def _declared(conjunction: Conjunction) -> frozenset[str]:
    names = (part.get("properties", {}) for part in conjunction.parts)
    return conjunction.names.union(*names)


def _alternatives(node: Node, seen: frozenset[tuple[int, str]]) -> list[Conjunction]:
    schema = node.schema
    if isinstance(schema, bool):
        return [Conjunction((node,))] if schema else []
    if node.key in seen:
        return [Conjunction((), open=True)]
    result = [_own(node, seen | {node.key})]
    if "$ref" in schema:
        target = node.document.resolve(schema["$ref"])
        referred = [Conjunction((), open=True)] if target is None else _alternatives(target, seen | {node.key})
        result = _product(result, referred)
    for branch in node.children("allOf"):
        result = _product(result, _alternatives(branch, seen | {node.key}))
    if "anyOf" in schema:
        branches = [each for branch in node.children("anyOf") for each in _alternatives(branch, seen | {node.key})]
        # A value may match several branches, and carry what each of them declares.
        names = frozenset().union(*map(_declared, branches))
        unsure = any(each.open for each in branches)
        result = _product(result, [Conjunction(each.parts, names, unsure) for each in branches])
    if "oneOf" in schema:
        branches = [each for branch in node.children("oneOf") for each in _alternatives(branch, seen | {node.key})]
        result = _product(result, branches)
    return result


def _own(node: Node, seen: frozenset[tuple[int, str]]) -> Conjunction:
    names: frozenset[str] = frozenset()
    unsure = any(keyword in node.schema for keyword in _UNKNOWN_REACH)
    for keyword in _SET_ASIDE:
        if keyword in node.schema:
            aside = [node.child(keyword)]
            if keyword == "dependentSchemas":
                aside = [node.child(keyword, name) for name in node.schema[keyword]]
            for each in aside:
                for alternative in _alternatives(each, seen):
                    names |= _declared(alternative)
                    unsure = unsure or alternative.open
    return Conjunction((node,), names, unsure)


class Cell:
    """Values of one *type* for which all *parts* hold, as far as their own keywords say; *closed* for a writer."""

    def __init__(self, type_: str, conjunction: Conjunction, *, writer: bool) -> None:
        self.type, self.conjunction, self.writer = type_, conjunction, writer
        self.parts = conjunction.parts

    def having(self, keyword: str) -> list[Any]:
        """The values of *keyword* in all parts."""
        return [part.schema[keyword] for part in self.parts if part.has(keyword)]

    @cached_property
    def values(self) -> list[Any] | None:
        """All values, when they are few and named: by `enum` or `const`, or because the type has no others."""
        named: list[list[Any]] = [*self.having("enum"), *([each] for each in self.having("const"))]
        if self.type == "null":
            named.append([None])
        if self.type == "boolean":
            named.append([False, True])
        if not named:
            return None
        rest = [{identity(each) for each in listed} for listed in named[1:]]
        unique = {identity(each): each for each in named[0] if type_of(each) == self.type}
        values = [each for key, each in unique.items() if all(key in others for others in rest)]
        return [each for each in values if not self.integer or is_integer(each)]

    @cached_property
    def integer(self) -> bool:
        """A number that has to be an integer."""
        if self.type != "number":
            return False
        whole = any(isinstance(factor, int) for factor in self.having("multipleOf"))
        return whole or any("number" not in _listed(types) for types in self.having("type"))

    def least(self, keyword: str) -> Any:
        """The strictest of a lower bound on a length or count; None when there is none."""
        return max(map(int, self.having(keyword)), default=None)

    def most(self, keyword: str) -> Any:
        """The strictest of an upper bound on a length or count; None when there is none."""
        return min(map(int, self.having(keyword)), default=None)

    @cached_property
    def required(self) -> dict[str, None]:
        """The names that an object has to have."""
        return {name: None for names in self.having("required") for name in names}

    @cached_property
    def declared(self) -> dict[str, None] | None:
        """All names that an object may have; None when there is no end of them."""
        closed = [part for part in self.parts if part.get("additionalProperties") is False]
        if not any(part.get("patternProperties") for part in self.parts):
            for part in closed:
                # Whatever else holds: what this part leaves out is refused.
                return {**dict.fromkeys(part.get("properties", {}))}
        if not self.writer or self.conjunction.open or not any(part.get("properties") for part in self.parts):
            return None
        for part in self.parts:
            extra = part.get("additionalProperties", False), part.get("unevaluatedProperties", False)
            if part.get("patternProperties") or extra != (False, False):
                return None
        own = (name for part in self.parts for name in part.get("properties", {}))
        # Names that are required or declared beside: some would say that the writer declares them.
        return dict.fromkeys([*own, *self.required, *sorted(self.conjunction.names)])

    def at_name(self, name: str) -> list[Node] | None:
        """The schemas of the property *name*; None when no object has it."""
        if self.declared is not None and name not in self.declared:
            return None
        nodes: list[Node] = []
        for part in self.parts:
            nodes.extend(_at_name(part, name))
        return None if any(node.schema is False for node in nodes) else nodes

    def elsewhere(self) -> list[tuple[str | None, list[Node]]]:
        """
        The schemas of names that `properties` does not list: under each pattern, and (None) under none.

        Empty when there are none of these.
        """
        if self.declared is not None:
            return []
        patterned = [
            (pattern, part.child("patternProperties", pattern))
            for part in self.parts
            for pattern in part.get("patternProperties", {})
        ]
        rest = [part.child("additionalProperties") for part in self.parts if part.has("additionalProperties")]
        groups: list[tuple[str | None, list[Node]]] = [(pattern, [node]) for pattern, node in patterned]
        return [*groups, (None, rest)]

    def at_index(self, index: int) -> list[Node]:
        """The schemas of the element at *index*."""
        nodes = []
        for part in self.parts:
            prefix = part.get("prefixItems", ())
            if index < len(prefix):
                nodes.append(part.child("prefixItems", index))
            elif part.has("items"):
                nodes.append(part.child("items"))
        return nodes

    @cached_property
    def prefix(self) -> int:
        """Elements from here on have the same schemas."""
        return max((len(each) for each in self.having("prefixItems")), default=0)

    @cached_property
    def items_max(self) -> int | None:
        """The largest number of elements; None when there is none."""
        bounds = [each for each in [self.most("maxItems")] if each is not None]
        refused = (at for at in range(self.prefix + 1) if any(node.schema is False for node in self.at_index(at)))
        return min([*bounds, *([at] if (at := next(refused, None)) is not None else [])], default=None)


def _at_name(part: Node, name: str) -> list[Node]:
    schema = part.schema
    if not isinstance(schema, dict):
        return []
    nodes, sure, perhaps = [], False, False
    if name in schema.get("properties", {}):
        nodes.append(part.child("properties", name))
        sure = True
    for pattern in schema.get("patternProperties", {}):
        matched = matches(pattern, name)
        if matched:
            nodes.append(part.child("patternProperties", pattern))
        sure, perhaps = sure or matched is True, perhaps or matched is None
    if not sure and not perhaps and "additionalProperties" in schema:
        nodes.append(part.child("additionalProperties"))
    return nodes


def matches(pattern: str, text: str) -> bool | None:
    """Whether *pattern* is found in *text*; None when validators may differ."""
    verdicts = set()
    for flavour in FLAVOURS:
        machine = automaton(pattern, flavour)
        if machine is None:
            return None
        states = machine.closure({(machine.first, "")}, start=True)
        for character in text:
            states = machine.step(states, ord(character))
        verdicts.add(machine.accepts(states))
    return verdicts.pop() if len(verdicts) == 1 else None


def cells(nodes: Sequence[Node], *, writer: bool) -> list[Cell]:
    """*nodes*, which all hold for one value, as cells."""
    result: list[Cell] = []
    for conjunction in conjunctions(nodes):
        types = set(TYPES)
        for part in conjunction.parts:
            if part.has("type"):
                types &= {"number" if each == "integer" else each for each in _listed(part.schema["type"])}
        result.extend(Cell(type_, conjunction, writer=writer) for type_ in TYPES if type_ in types)
    return [cell for cell in result if cell.values != []]


def _listed(types: Any) -> list[str]:
    return types if isinstance(types, list) else [types]
