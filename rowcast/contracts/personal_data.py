"""
What a contract says about personal data, and what is done with it: publish, drop, mask or hash.

Each field names its class in `x-pii`; a source says what it does with a class. Both together give a `Treatment`: a
graph over the values of a field, as deep as its schema goes, references that lead in circles included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from rowcast.contracts.compatibility.document import escape

# The classes that say that a field is no personal data, and that nobody has looked yet.
NOT_PERSONAL = "none"
UNCLASSIFIED = "unclassified"
# What stands in place of a masked value; it is published for ever.
MASK = "***"

Digest = Callable[[str], str]


class Handling(StrEnum):
    """What becomes of a value; the stricter comes first."""

    DROP = "drop"
    MASK = "mask"
    HASH = "hash"
    PUBLISH = "publish"


_INNER = frozenset({"properties", "additionalProperties", "oneOf", "$ref"})
_SCALARS = frozenset({"string", "integer", "number", "boolean"})
_STRICTNESS = {each: place for place, each in enumerate(Handling)}


@dataclass(slots=True, eq=False)
class Treatment:
    """
    What becomes of the values of one schema: its own *handling*, and the treatments of what it holds.

    *also* are others for the same value: what it refers to, and the variants that it may have. *required* names the
    members that may not be missing. *whole*: the schema speaks of values that hold nothing, or of the value as a whole;
    *free*: of objects, and not of what they hold.
    """

    handling: Handling = Handling.PUBLISH
    members: dict[str, Treatment] = field(default_factory=dict)
    items: Treatment | None = None
    values: Treatment | None = None
    also: list[Treatment] = field(default_factory=list)
    required: frozenset[str] = frozenset()
    whole: bool = False
    free: bool = False

    def fits(self, value: Any) -> bool:
        """Whether *value* is of the kind that the schema speaks of."""
        if isinstance(value, dict):
            return self.whole or bool(self.members) or self.values is not None
        if isinstance(value, list):
            return self.whole or self.items is not None or any(map(str.isdecimal, self.members))
        return self.whole or value is None

    def edges(self) -> Iterator[tuple[str, Treatment]]:
        """The treatments that it leads to, each with how."""
        yield from ((f".{name}", each) for name, each in self.members.items())
        yield from ((f"or{place}", each) for place, each in enumerate(self.also))
        if self.items is not None:
            yield "[]", self.items
        if self.values is not None:
            yield "{}", self.values


class Classification:
    """The treatments of the fields of one *entity*; *handlings* says what is done with which class."""

    def __init__(self, entity: Mapping[str, Any], handlings: Mapping[str, Handling]) -> None:
        self._entity, self._handlings = entity, handlings
        self._definitions: dict[str, Treatment] = {}

    def of(self, name: str) -> Treatment:
        """The treatment of the property *name*."""
        return self._of(_mapping(self._entity.get("properties")).get(name))

    def _of(self, schema: Any) -> Treatment:
        treatment = Treatment()
        self._fill(treatment, schema)
        return treatment

    def _fill(self, treatment: Treatment, schema: Any) -> None:
        if not isinstance(schema, dict):
            return
        treatment.handling = self._handlings.get(str(schema.get("x-pii")), Handling.PUBLISH)
        treatment.members = {name: self._of(each) for name, each in _mapping(schema.get("properties")).items()}
        treatment.whole = "x-pii" in schema or not _SCALARS.isdisjoint(_types(schema))
        treatment.free = "object" in _types(schema) and _INNER.isdisjoint(schema)
        treatment.required = frozenset(each for each in _list(schema.get("required")) if isinstance(each, str))
        if isinstance(schema.get("items"), dict):
            treatment.items = self._of(schema["items"])
        if isinstance(schema.get("additionalProperties"), dict):
            treatment.values = self._of(schema["additionalProperties"])
        treatment.also = [self._of(each) for each in _list(schema.get("oneOf"))]
        if "$ref" in schema:
            treatment.also.append(self._definition(str(schema["$ref"]).removeprefix("#/$defs/")))

    def _definition(self, name: str) -> Treatment:
        if name not in self._definitions:
            # Known before it is filled, so that a definition that refers to itself ends.
            self._definitions[name] = treatment = Treatment()
            self._fill(treatment, _mapping(self._entity.get("$defs")).get(name))
        return self._definitions[name]


def classified(entity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every place (JSON pointer) of *entity* that names a class, with the class."""
    for root in ("properties", "$defs"):
        for name, schema in _mapping(entity.get(root)).items():
            yield from _classes(schema, f"/{root}/{escape(name)}")


def unspoken(entity: Mapping[str, Any]) -> Iterator[str]:
    """The variants (JSON pointers) of *entity* that hold values of which neither they nor their field name a class."""
    for root in ("properties", "$defs"):
        for name, schema in _mapping(entity.get(root)).items():
            yield from _unspoken(schema, f"/{root}/{escape(name)}", variant=False)


def _unspoken(schema: Any, pointer: str, *, variant: bool) -> Iterator[str]:
    if not isinstance(schema, dict) or "x-pii" in schema:
        return
    if variant and "const" not in schema and not _SCALARS.isdisjoint(_types(schema)):
        yield pointer
    for place, inner in _inner(schema):
        # What stands in an object is a field of its own, and is asked for its class as such.
        within = place.startswith("/oneOf") or (variant and place == "/items")
        yield from _unspoken(inner, pointer + place, variant=within)


def classes_of(entity: Mapping[str, Any], name: str) -> frozenset[str]:
    """The classes of the property *name*, with those of all that it holds or refers to."""
    return frozenset(kind for schema in _reachable(entity, name) if isinstance(kind := schema.get("x-pii"), str)) - {
        NOT_PERSONAL
    }


def _classes(schema: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, dict):
        return
    if "x-pii" in schema:
        yield pointer, str(schema["x-pii"])
    for place, inner in _inner(schema):
        yield from _classes(inner, pointer + place)


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, each in _mapping(schema.get("properties")).items():
        yield f"/properties/{escape(name)}", each
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield f"/{keyword}", schema[keyword]
    for place, each in enumerate(_list(schema.get("oneOf"))):
        yield f"/oneOf/{place}", each


def _reachable(entity: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    waiting, seen = [_mapping(entity.get("properties")).get(name)], set[str]()
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        yield schema
        waiting += [each for _, each in _inner(schema)]
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            waiting.append(_mapping(entity.get("$defs")).get(reference.removeprefix("#/$defs/")))


def is_needed(treatment: Treatment, handling: Handling | None = None) -> bool:
    """Whether *treatment* changes anything anywhere; with *handling* whether it does so anywhere."""
    waiting, seen = [treatment], {id(treatment)}
    while waiting:
        each = waiting.pop()
        if each.handling is handling or (handling is None and each.handling is not Handling.PUBLISH):
            return True
        fresh = [inner for _, inner in each.edges() if id(inner) not in seen]
        seen.update(map(id, fresh))
        waiting += fresh
    return False


def outline(treatment: Treatment) -> list[tuple[int, str, list[tuple[str, int]]]]:
    """What *treatment* does where, in a form that is equal for equal ones; what it leaves alone is not in it."""
    numbers, found = {id(treatment): 0}, [treatment]
    lines = []
    for each in found:  # grows while it is walked
        edges = []
        for name, inner in sorted(each.edges(), key=lambda edge: edge[0]):
            if is_needed(inner):
                if id(inner) not in numbers:
                    numbers[id(inner)] = len(found)
                    found.append(inner)
                edges.append((name, numbers[id(inner)]))
        lines.append((numbers[id(each)], str(each.handling), edges))
    return lines


def together(treatments: Iterable[Treatment]) -> tuple[list[Treatment], Handling]:
    """All treatments that hold for a value with *treatments*, and the strictest handling among them."""
    found = list(treatments)
    seen = set(map(id, found))
    for each in found:  # grows while it is walked
        for other in each.also:
            if id(other) not in seen:
                seen.add(id(other))
                found.append(other)
    return found, min((each.handling for each in found), key=_STRICTNESS.__getitem__, default=Handling.PUBLISH)


def member(treatments: Iterable[Treatment], name: str) -> list[Treatment]:
    """The treatments of the member *name* of an object."""
    found = (each.members.get(name, each.values) for each in treatments)
    return [each for each in found if each is not None]


def item(treatments: Iterable[Treatment], place: int) -> list[Treatment]:
    """The treatments of an item of a list."""
    found = (each.members.get(str(place), each.items) for each in treatments)
    return [each for each in found if each is not None]


def treated(treatments: Iterable[Treatment], value: Any, digest: Digest) -> Any:
    """
    *value* as it may be published; *digest* hashes a text. A value that is dropped as a whole is null.

    Raises:
        ValueError, TypeError, RecursionError: a value cannot be hashed, or is nested too deeply.

    """
    known, handling = together(treatments)
    if handling is not Handling.PUBLISH:
        return concealed(value, handling, digest)
    if not any(each.fits(value) for each in known) and any(map(is_needed, known)):
        return MASK  # where in it something has to be hidden, nobody can tell
    if isinstance(value, dict):
        return dict(_members(known, value, digest))
    if isinstance(value, list):
        return list(_items(known, value, digest))
    return value


def _members(known: list[Treatment], value: Mapping[str, Any], digest: Digest) -> Iterator[tuple[str, Any]]:
    for name, child in value.items():
        below = member(known, name)
        if not below:
            yield name, child
        elif together(below)[1] is not Handling.DROP:
            yield name, treated(below, child, digest)
        elif any(name in each.required for each in known):
            yield name, None


def _items(known: list[Treatment], value: list[Any], digest: Digest) -> Iterator[Any]:
    for place, child in enumerate(value):
        below = item(known, place)
        if not below:
            yield child
        elif together(below)[1] is not Handling.DROP:
            yield treated(below, child, digest)


def concealed(value: Any, handling: Handling, digest: Digest) -> Any:
    """
    A *value* masked, hashed or dropped; null stays null, and of a list each item is concealed by itself.

    What is no text is hashed as its JSON, with names in order and without blanks.
    """
    if value is None or handling is Handling.DROP:
        return None
    if isinstance(value, list):
        return [concealed(each, handling, digest) for each in value]
    if handling is Handling.MASK:
        return MASK
    return digest(value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode())


def _types(schema: Mapping[str, Any]) -> list[Any]:
    if "const" in schema or "enum" in schema:
        return ["string"]
    declared = schema.get("type")
    return declared if isinstance(declared, list) else [declared]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
