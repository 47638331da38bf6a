"""Validation of event values: limits, ambiguous JSON, and messages that hold no value."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest

from rowcast.contracts.contract import load_contract
from rowcast.contracts.factory import EventFactory
from rowcast.contracts.validation import Limits, ValueValidator
from rowcast.errors import ContractViolationError

CONTRACT = load_contract(Path(__file__).resolve().parents[2] / "schemas/inventory/item/v1.0.json")
SECRET = "do-not-tell"
# Every keyword of the profile, and those beside it whose messages could hold a name.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "integer"},
        "enum": {"enum": [1]},
        "const": {"const": 1},
        "format": {"format": "uuid"},
        "pattern": {"pattern": "^a$"},
        "minLength": {"minLength": 99},
        "maxLength": {"maxLength": 1},
        "minimum": {"minimum": 10**9},
        "maximum": {"maximum": 1},
        "exclusiveMinimum": {"exclusiveMinimum": 10**9},
        "exclusiveMaximum": {"exclusiveMaximum": 1},
        "multipleOf": {"multipleOf": 7},
        "minItems": {"minItems": 9},
        "maxItems": {"maxItems": 1},
        "uniqueItems": {"uniqueItems": True},
        "items": {"items": {"type": "integer"}},
        "map": {"additionalProperties": {"type": "integer"}},
        "closed": {"properties": {}, "additionalProperties": False},
        "unevaluated": {"unevaluatedProperties": False},
        "names": {"propertyNames": {"maxLength": 1}},
        "oneOf": {"oneOf": [{"type": "integer"}, {"type": "null"}]},
        "ref": {"$ref": "#/$defs/number"},
        "required": {"required": ["a"]},
        "free": {},
        "self": {"$ref": "#"},
    },
    "$defs": {"number": {"type": "number"}},
}
BROKEN: dict[str, Any] = {
    **dict.fromkeys(("type", "enum", "const", "format", "pattern", "minLength", "maxLength", "oneOf", "ref"), SECRET),
    **dict.fromkeys(("minimum", "exclusiveMinimum"), 471147),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "multipleOf"), 471148),
    **{key: [SECRET, SECRET] for key in ("minItems", "maxItems", "uniqueItems", "items")},
    **{key: {SECRET: SECRET} for key in ("map", "closed", "unevaluated", "names", "required")},
}
VALIDATOR = ValueValidator(SCHEMA)


def refusal(call: Any, value: object) -> str:
    """What is said of a refused value."""
    with pytest.raises(ContractViolationError) as raised:
        call(value)
    assert raised.value.__cause__ is None
    return str(raised.value)


@pytest.mark.parametrize("name", BROKEN)
def test_a_message_names_the_place_and_no_value(name: str) -> None:
    """Whatever keyword refuses: neither values nor names that are data are in the message."""
    told = refusal(VALIDATOR.check, {name: BROKEN[name]})

    assert told.startswith(f"/{name}")
    assert not {SECRET, "4711"} & {word for word in (SECRET, "4711") if word in told}


def test_names_in_maps_are_masked() -> None:
    """A map's keys may be personal data; the place says that one was meant."""
    assert refusal(VALIDATOR.check, {"map": {SECRET: "x"}}) == '/map/*: <value> is not of type "integer"'


def levels(count: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(count - 1):
        value = {"self": value}
    return value


REFUSED: dict[str, tuple[bytes, str]] = {
    "a name twice": (b'{"free":1,"free":2}', "a name stands twice"),
    "a name twice, spelt otherwise": (b'{"free":1,"fr\\u0065e":2}', "a name stands twice"),
    "a name twice further down": (b'{"free":[{"a":1, "a":1}]}', "a name stands twice"),
    "NaN": (b'{"free":NaN}', "no JSON at character 8"),
    "infinity": (b'{"free":-Infinity}', "no JSON"),
    "a number too large": (b'{"free":1e999}', "no JSON"),
    "half a character": (b'{"free":"\\ud800"}', "no JSON"),
    "no UTF-8": (b'{"free":"\xff"}', "no JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"free":1}', "no JSON"),
    "nothing": (b"", "no JSON"),
    "cut off": (b'{"free":"' + SECRET.encode(), "no JSON"),
    "too large": (b'{"free":"' + b"a" * 1_000_000 + b'"}', "has 1000011 bytes, more than 1000000"),
    "too deep": (orjson.dumps(levels(65)), "nested deeper than 64 levels"),
    "much too deep": (b'{"self":' * 100_000 + b"{}" + b"}" * 100_000, "no JSON"),
    "invalid": (b'{"type":"' + SECRET.encode() + b'"}', '/type: <value> is not of type "integer"'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_received_is_unambiguous_and_within_limits(case: str) -> None:
    """Each is refused in its own words, without telling what was in it."""
    raw, words = REFUSED[case]
    told = refusal(VALIDATOR.read, raw)

    assert words in told
    assert SECRET not in told


ACCEPTED = [
    b'{"free":1}',
    b'{ "free" : 1.50e3 , "x" : "\\u0041\\/" }',
    b'{"free":{"a":1},"x":{"a":1}}',
    b'{"free":"\\":\\"free\\":"}',
    b'{"free":[' + b"{}," * 500 + b"{}]}",
    orjson.dumps(levels(64)),
]


@pytest.mark.parametrize("raw", ACCEPTED)
def test_unusual_json_is_read(raw: bytes) -> None:
    """Spaces, escapes, many objects and what looks like a name inside a text are no fault."""
    assert VALIDATOR.read(raw) == json.loads(raw)


UNSENDABLE: dict[str, tuple[Any, str]] = {
    "NaN": ({"free": math.nan}, "not finite"),
    "NaN beside null": ({"x": None, "free": [{"a": (1, -math.inf)}]}, "not finite"),
    "NaN where a number belongs": ({"ref": math.nan}, "/ref: "),
    "too deep": (levels(65), "nested deeper than 64 levels"),
    "endlessly deep": (levels(3000), ""),
    "too large": ({"free": "a" * 1_000_000}, "more than 1000000"),
    "no JSON": ({"free": {SECRET}}, "no JSON"),
    "names that are no text": ({1: SECRET}, "no JSON"),
    "half a character": ({"free": "\ud800" + SECRET}, "no JSON"),
    "half a character in a name": ({"\ud800" + SECRET: 1}, "no JSON"),
    "too large an integer": ({"free": 2**70}, "no JSON"),
}


@pytest.mark.parametrize("case", UNSENDABLE)
def test_what_is_sent_can_be_read_by_everybody(case: str) -> None:
    """Nothing is encoded that would arrive as something else, or not at all."""
    value, words = UNSENDABLE[case]
    told = refusal(VALIDATOR.encode, value)

    assert words in told
    assert SECRET not in told


def test_events_go_there_and_back() -> None:
    """What is encoded can be read again, and is the same; limits may be set."""
    validator = ValueValidator(CONTRACT.value_schema())
    value = EventFactory(CONTRACT).value("updated")
    raw = validator.encode(value)

    assert validator.read(raw) == value
    assert raw == orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    small = ValueValidator(CONTRACT.value_schema(), Limits(bytes_max=10, levels_max=2))
    assert "more than 10" in refusal(small.encode, value)
    assert "more than 10" in refusal(small.read, raw)
