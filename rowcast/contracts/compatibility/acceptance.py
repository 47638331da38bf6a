"""Whether one value is accepted by a subschema, as both validators would say; None when that is not clear here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rowcast.contracts.compatibility.cell import matches
from rowcast.contracts.compatibility.document import OPAQUE, Node
from rowcast.contracts.compatibility.json_value import identity, is_integer, type_of

_DEPTH_MAX = 40
Verdict = bool | None
_EXACT_DIGITS = 2**53


def accepts(node: Node, value: Any, depth: int = 0) -> Verdict:
    """Whether *value* is valid against *node*."""
    if isinstance(node.schema, bool):
        return node.schema
    if depth > _DEPTH_MAX:
        return None
    return every(keyword_accepts(node, keyword, value, depth) for keyword in node.schema)


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """False if any is, else None if any is, else True."""
    unclear = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unclear = unclear or verdict is None
    return None if unclear else True


def _negated(verdict: Verdict) -> Verdict:
    return None if verdict is None else not verdict


def keyword_accepts(node: Node, keyword: str, value: Any, depth: int = 0) -> Verdict:
    """Whether *keyword* of *node*, taken alone with those that it belongs to, accepts *value*."""
    if keyword in OPAQUE:
        # `contains` itself asks for one, or for none at all.
        return True if keyword == "minContains" and node.schema[keyword] <= 1 else None
    check = _CHECKS.get(keyword)
    if check is not None:
        return check(node, value, depth + 1)
    kind, simple = _SIMPLE.get(keyword, ("", None))
    if simple is None or type_of(value) != kind:
        return True
    return simple(node.schema[keyword], value)


def _multiple_of(divisor: float, value: float) -> Verdict:
    if isinstance(divisor, int) and is_integer(value) and abs(value) < _EXACT_DIGITS:
        return int(value) % divisor == 0
    return None


def _format(name: str, value: str) -> Verdict:
    from rowcast.contracts.compatibility.validator import format_verdict

    return format_verdict(name, value)


_SIMPLE: dict[str, tuple[str, Callable[[Any, Any], Verdict] | None]] = {
    "minimum": ("number", lambda bound, value: value >= bound),
    "maximum": ("number", lambda bound, value: value <= bound),
    "exclusiveMinimum": ("number", lambda bound, value: value > bound),
    "exclusiveMaximum": ("number", lambda bound, value: value < bound),
    "multipleOf": ("number", _multiple_of),
    "minLength": ("string", lambda bound, value: len(value) >= bound),
    "maxLength": ("string", lambda bound, value: len(value) <= bound),
    "pattern": ("string", matches),
    "format": ("string", _format),
    "minItems": ("array", lambda bound, value: len(value) >= bound),
    "maxItems": ("array", lambda bound, value: len(value) <= bound),
    "uniqueItems": (
        "array",
        lambda wanted, value: not wanted or len({identity(each) for each in value}) == len(value),
    ),
    "minProperties": ("object", lambda bound, value: len(value) >= bound),
    "maxProperties": ("object", lambda bound, value: len(value) <= bound),
    "required": ("object", lambda names, value: all(name in value for name in names)),
    "dependentRequired": (
        "object",
        lambda rules, value: all(need in value for name, needs in rules.items() if name in value for need in needs),
    ),
}


def _type(node: Node, value: Any, _depth: int) -> Verdict:
    types = node.schema["type"]
    types = types if isinstance(types, list) else [types]
    return type_of(value) in types or ("integer" in types and is_integer(value))


def _enum(node: Node, value: Any, _depth: int) -> Verdict:
    return identity(value) in node.document.listed(node)


def _const(node: Node, value: Any, _depth: int) -> Verdict:
    return identity(value) == identity(node.schema["const"])


def _reference(node: Node, value: Any, depth: int) -> Verdict:
    target = node.document.resolve(node.schema["$ref"])
    return None if target is None else accepts(target, value, depth)


def _all_of(node: Node, value: Any, depth: int) -> Verdict:
    return every(accepts(branch, value, depth) for branch in node.children("allOf"))


def _any_of(node: Node, value: Any, depth: int) -> Verdict:
    return _negated(every(_negated(accepts(branch, value, depth)) for branch in node.children("anyOf")))


def _one_of(node: Node, value: Any, depth: int) -> Verdict:
    verdicts = [accepts(branch, value, depth) for branch in node.children("oneOf")]
    if verdicts.count(True) > 1:
        return False
    return None if None in verdicts else True in verdicts


def _not(node: Node, value: Any, depth: int) -> Verdict:
    return _negated(accepts(node.child("not"), value, depth))


def _if(node: Node, value: Any, depth: int) -> Verdict:
    verdict = accepts(node.child("if"), value, depth)
    branches = {
        True: accepts(node.child("then"), value, depth) if node.has("then") else True,
        False: accepts(node.child("else"), value, depth) if node.has("else") else True,
    }
    if verdict is None:
        return True if branches[True] is True and branches[False] is True else None
    return branches[verdict]


def _properties(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    names = [name for name in node.schema["properties"] if name in value]
    return every(accepts(node.child("properties", name), value[name], depth) for name in names)


def _pattern_properties(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    return every(_under_pattern(node, pattern, value, depth) for pattern in node.schema["patternProperties"])


def _under_pattern(node: Node, pattern: str, value: dict[str, Any], depth: int) -> Verdict:
    child = node.child("patternProperties", pattern)
    verdicts = []
    for name, each in value.items():
        matched = matches(pattern, name)
        inner = True if matched is False else accepts(child, each, depth)
        verdicts.append(None if matched is None and inner is not True else inner)
    return every(verdicts)


def _additional_properties(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    child, patterns = node.child("additionalProperties"), node.get("patternProperties", {})
    verdicts: list[Verdict] = []
    for name, each in value.items():
        if name in node.get("properties", {}):
            continue
        matched = [matches(pattern, name) for pattern in patterns]
        if True not in matched:
            inner = accepts(child, each, depth)
            verdicts.append(None if None in matched and inner is not True else inner)
    return every(verdicts)


def _property_names(node: Node, value: Any, depth: int) -> Verdict:
    child = node.child("propertyNames")
    return every(accepts(child, name, depth) for name in value) if isinstance(value, dict) else True


def _dependent_schemas(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, dict):
        return True
    names = [name for name in node.schema["dependentSchemas"] if name in value]
    return every(accepts(node.child("dependentSchemas", name), value, depth) for name in names)


def _prefix_items(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, list):
        return True
    pairs = zip(node.children("prefixItems"), value, strict=False)
    return every(accepts(child, each, depth) for child, each in pairs)


def _items(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, list):
        return True
    child = node.child("items")
    return every(accepts(child, each, depth) for each in value[len(node.get("prefixItems", ())) :])


def _contains(node: Node, value: Any, depth: int) -> Verdict:
    if not isinstance(value, list) or node.get("minContains", 1) == 0:
        return True
    return _negated(every(_negated(accepts(node.child("contains"), each, depth)) for each in value))


_CHECKS: dict[str, Callable[[Node, Any, int], Verdict]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "$ref": _reference,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "dependentSchemas": _dependent_schemas,
    "prefixItems": _prefix_items,
    "items": _items,
    "contains": _contains,
}
