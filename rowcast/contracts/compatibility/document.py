"""Two sides of a comparison: a schema document, and a node of it that knows its place."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any
from urllib.parse import unquote

from rowcast.contracts.compatibility.json_value import identity

DIALECTS = {"https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#"}
ONE_SCHEMA = (
    *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
SCHEMA_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMA_MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
# Keywords that may reject a value in ways that are not followed by any proof.
OPAQUE = (
    "$dynamicRef",
    "$recursiveRef",
    "additionalItems",
    "dependencies",
    "maxContains",
    "minContains",
    "unevaluatedItems",
    "unevaluatedProperties",
)


def escape(part: str | int) -> str:
    """*part* as a reference token of a JSON pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")


@dataclass(eq=False)
class SchemaDocument:
    """A whole schema, called *name* in what is told about it; *root* is an object or a boolean."""

    name: str
    root: Any
    _targets: dict[str, Node | None] = field(default_factory=dict, repr=False)
    _listed: dict[str, frozenset[Hashable]] = field(default_factory=dict, repr=False)
    # Unlike its place in memory, its own for ever: what is remembered about a node outlives short-lived documents.
    serial: int = field(default_factory=count().__next__, init=False)

    @cached_property
    def node(self) -> Node:
        """The root as a node."""
        return Node(self, "", self.root)

    @cached_property
    def foreign_dialect(self) -> str | None:
        """Another dialect that the document, or a part of it, names; its keywords may mean something else."""
        for schema in subschemas(self.root):
            if "$schema" in schema and schema["$schema"] not in DIALECTS:
                return str(schema["$schema"])
        return None

    @cached_property
    def _rebased(self) -> bool:
        # A nested $id changes what references below it mean.
        return any("$id" in schema for schema in subschemas(self.root) if schema is not self.root)

    def resolve(self, reference: Any) -> Node | None:
        """The node that *reference* names by JSON pointer inside this document; None when it is anything else."""
        if not isinstance(reference, str) or self._rebased:
            return None
        if reference not in self._targets:
            self._targets[reference] = self._find(reference)
        return self._targets[reference]

    def listed(self, node: Node) -> frozenset[Hashable]:
        """The identities of the values of `enum` of *node*, a node of this document; lists may be long."""
        if node.pointer not in self._listed:
            self._listed[node.pointer] = frozenset(map(identity, node.schema["enum"]))
        return self._listed[node.pointer]

    def _find(self, reference: str) -> Node | None:
        base, _hash, fragment = reference.partition("#")
        if base and base != str(self.root.get("$id", "")).removesuffix("#"):
            return None
        pointer = unquote(fragment)
        if pointer and not pointer.startswith("/"):
            return None
        value: Any = self.root
        for token in pointer.split("/")[1:]:
            part = token.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isascii() and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
            if isinstance(value, dict) and "$id" in value:
                return None
        return Node(self, pointer, value) if isinstance(value, (dict, bool)) else None


class Node:
    """A subschema and the JSON pointer of its place; nodes of one place are equal."""

    __slots__ = ("document", "key", "pointer", "schema")

    def __init__(self, document: SchemaDocument, pointer: str, schema: Any) -> None:
        self.document, self.pointer, self.schema = document, pointer, schema
        self.key = (document.serial, pointer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def get(self, keyword: str, default: Any = None) -> Any:
        """The value of *keyword*."""
        return self.schema.get(keyword, default) if isinstance(self.schema, dict) else default

    def has(self, keyword: str) -> bool:
        """Whether *keyword* is there."""
        return isinstance(self.schema, dict) and keyword in self.schema

    def child(self, keyword: str, *path: str | int) -> Node:
        """The subschema under *keyword*, or at *path* within it."""
        value, pointer = self.schema[keyword], f"{self.pointer}/{escape(keyword)}"
        for part in path:
            value, pointer = value[part], f"{pointer}/{escape(part)}"
        return Node(self.document, pointer, value)

    def children(self, keyword: str) -> list[Node]:
        """The subschemas of a keyword that holds a list of them."""
        return [self.child(keyword, index) for index in range(len(self.schema.get(keyword, ())))]


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in *schema* that is a subschema by its place, itself included."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword, value in schema.items():
        if keyword in ONE_SCHEMA:
            yield from subschemas(value)
        elif keyword in SCHEMA_LISTS and isinstance(value, list):
            for each in value:
                yield from subschemas(each)
        elif keyword in SCHEMA_MAPS and isinstance(value, dict):
            for each in value.values():
                yield from subschemas(each)
