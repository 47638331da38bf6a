"""The rules that findings name: what changed, in which direction it breaks, and what to do instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rowcast.contracts.compatibility.gap import Gap

BACKWARD, FORWARD, POLICY = "backward", "forward", "policy"
UNDECIDED = "UNDECIDED"


@dataclass(frozen=True)
class Rule:
    """What a rule is about, and how to mend what it finds."""

    purpose: str
    fix: str


_NEW_MAJOR = "publish the change as a new major version"
RULES = {
    "BOUND_RELAXED": Rule("a bound was relaxed or removed", f"keep the bound, or {_NEW_MAJOR}"),
    "BOUND_TIGHTENED": Rule("a bound was tightened or added", f"keep the bound, or {_NEW_MAJOR}"),
    "CONST_ADDED": Rule("a field got a constant value", f"leave the field free, or {_NEW_MAJOR}"),
    "CONST_CHANGED": Rule("a constant value was changed", f"keep the value, or {_NEW_MAJOR}"),
    "CONST_REMOVED": Rule("a field is no longer constant", f"keep the constant, or {_NEW_MAJOR}"),
    "CONSTRAINT_ADDED": Rule("a condition was added or tightened", f"leave the condition out, or {_NEW_MAJOR}"),
    "CONSTRAINT_REMOVED": Rule("a condition was removed or relaxed", f"keep the condition, or {_NEW_MAJOR}"),
    "ENGINE_DISAGREEMENT": Rule(
        "the proof and an instance, or the second opinion, disagree", "report the two schemas as a fault of Rowcast"
    ),
    "ENUM_ADDED": Rule(
        "a free field was limited to a list", "leave the field free and name known values in `examples`"
    ),
    "ENUM_REMOVED": Rule("a list of values was removed", f"keep the list, or {_NEW_MAJOR}"),
    "ENUM_VALUE_ADDED": Rule(
        "a value was added to a closed list", "in the next major, make it a text with `examples` and `x-open-enum`"
    ),
    "ENUM_VALUE_REMOVED": Rule("a value was removed from a list", "keep the value in the list and stop sending it"),
    "FIELD_REFUSED": Rule(
        "a field or value is refused outright", "leave objects open: no `additionalProperties: false`"
    ),
    "FIELD_REMOVED": Rule(
        "an optional field was removed", "list its name in `x-reserved`, so that it is not used again"
    ),
    "FIELD_REQUIRED_ADDED": Rule("a field was added to `required`", "make it optional, or let it be null"),
    "FIELD_REQUIRED_REMOVED": Rule("a field was removed from `required`", f"go on sending it, or {_NEW_MAJOR}"),
    "FIELD_REUSED": Rule("a reserved name is used again", "choose another name"),
    "FORMAT_ADDED": Rule("a format was added", "describe the format in `description` instead"),
    "FORMAT_CHANGED": Rule("a format was changed", "add a new field with the new format"),
    "FORMAT_REMOVED": Rule("a format was removed", f"keep the format, or {_NEW_MAJOR}"),
    "NULLABLE_ADDED": Rule("null was added", f"send the old kind of value only, or {_NEW_MAJOR}"),
    "NULLABLE_REMOVED": Rule("null was removed", "go on allowing null"),
    "PATTERN_ADDED": Rule("a pattern was added", "describe the form in `description` instead"),
    "PATTERN_CHANGED": Rule("a pattern was changed", "add a new field with the new pattern"),
    "PATTERN_REMOVED": Rule("a pattern was removed", f"keep the pattern, or {_NEW_MAJOR}"),
    "TYPE_CHANGED": Rule("a type was replaced by another", "add a new field with the new type"),
    "TYPE_NARROWED": Rule("a type was removed", "go on allowing it"),
    "TYPE_WIDENED": Rule("a type was added", "add a new field with the new type"),
    UNDECIDED: Rule("nothing could be proven and no counterexample was found", "say it with keywords of the profile"),
    "UNION_VARIANT_ADDED": Rule("a variant was added or widened", f"keep the variants, or {_NEW_MAJOR}"),
    "UNION_VARIANT_REMOVED": Rule("a variant was removed or narrowed", "keep the variant and stop sending it"),
    "UNIQUE_ITEMS_ADDED": Rule("elements of a list have to be unique now", "leave `uniqueItems` out"),
    "UNIQUE_ITEMS_REMOVED": Rule("elements of a list may repeat now", f"keep `uniqueItems`, or {_NEW_MAJOR}"),
}
# Keyword: (rule when the new version adds or tightens it, rule when it drops or relaxes it)
_BOTH_WAYS = {
    "required": ("FIELD_REQUIRED_ADDED", "FIELD_REQUIRED_REMOVED"),
    "enum": ("ENUM_VALUE_REMOVED", "ENUM_VALUE_ADDED"),
    "format": ("FORMAT_ADDED", "FORMAT_REMOVED"),
    "pattern": ("PATTERN_ADDED", "PATTERN_REMOVED"),
    "const": ("CONST_ADDED", "CONST_REMOVED"),
    "type": ("TYPE_NARROWED", "TYPE_WIDENED"),
    "uniqueItems": ("UNIQUE_ITEMS_ADDED", "UNIQUE_ITEMS_REMOVED"),
    "anyOf": ("UNION_VARIANT_REMOVED", "UNION_VARIANT_ADDED"),
    "oneOf": ("UNION_VARIANT_REMOVED", "UNION_VARIANT_ADDED"),
    "false": ("FIELD_REFUSED", "FIELD_REFUSED"),
    **dict.fromkeys(
        (
            *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
            *("minItems", "maxItems", "minProperties", "maxProperties"),
        ),
        ("BOUND_TIGHTENED", "BOUND_RELAXED"),
    ),
}


def rule_of(gap: Gap, direction: str) -> str:
    """The rule that *gap*, which has a witness, breaks in *direction*."""
    backward = direction == BACKWARD
    pick = 0 if backward else 1
    cell, keyword = gap.cell, gap.keyword
    if cell.type == "null" and keyword in {"type", "enum", "const", "anyOf", "oneOf"}:
        return "NULLABLE_REMOVED" if backward else "NULLABLE_ADDED"
    if keyword in {"format", "pattern"} and cell.having(keyword):
        return f"{keyword.upper()}_CHANGED"
    if keyword == "const" and (cell.having("const") or cell.having("enum")):
        return "CONST_CHANGED"
    if keyword == "enum" and not (cell.having("const") or cell.having("enum") or cell.type == "boolean"):
        return "ENUM_ADDED" if backward else "ENUM_REMOVED"
    if keyword == "type" and not _types(gap.reader.schema["type"]) & set().union(*map(_types, cell.having("type"))):
        return "TYPE_CHANGED" if cell.having("type") else _BOTH_WAYS["type"][pick]
    return _BOTH_WAYS.get(keyword, ("CONSTRAINT_ADDED", "CONSTRAINT_REMOVED"))[pick]


def _types(types: str | list[str]) -> set[str]:
    listed = set(types) if isinstance(types, list) else {types}
    return listed | {"number"} if "integer" in listed else listed
