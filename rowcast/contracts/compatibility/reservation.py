"""The policy on names: a removed field's is reserved, and not used again. No verdict hangs on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rowcast.contracts.compatibility.document import Node, SchemaDocument

RESERVED = "x-reserved"
# (rule, direction, pointer, old, new)
Breach = tuple[str, str, str, Any, Any]


def removed_and_reused(old: SchemaDocument, new: SchemaDocument) -> Iterator[Breach]:
    """The breaches between two versions, in objects that stand at the same place in both."""
    yield from _pair(old.node, new.node)


def _pair(old: Node, new: Node) -> Iterator[Breach]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        child = old.child("properties", name)
        if name in after:
            yield from _pair(child, new.child("properties", name))
        elif after and name not in _reserved(new):
            yield "FIELD_REMOVED", "policy", child.pointer, before[name], None
    for name in after:
        if name not in before and name in _reserved(old):
            yield "FIELD_REUSED", "policy", new.child("properties", name).pointer, None, after[name]
    for keyword in ("items", "additionalProperties"):
        if old.has(keyword) and new.has(keyword):
            yield from _pair(old.child(keyword), new.child(keyword))
    for keyword in ("$defs",):
        for name in old.get(keyword, {}):
            if name in new.get(keyword, {}):
                yield from _pair(old.child(keyword, name), new.child(keyword, name))


def _reserved(node: Node) -> list[str]:
    names = node.get(RESERVED, [])
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
