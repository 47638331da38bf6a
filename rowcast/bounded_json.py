"""
JSON of bytes that somebody else wrote: within limits, and read the same by everybody.

Readers differ in what they do with a name that stands twice, with NaN and with endless nesting; here all of these are
refused. What is refused is told without anything of its content.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from rowcast.contracts.json_text import is_deeper, stands_once


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a value may be: *bytes_max* encoded, nested *levels_max* deep."""

    bytes_max: int = 1_000_000
    levels_max: int = 64


LIMITS = Limits()


def read_bounded(raw: bytes, limits: Limits = LIMITS) -> Any:
    """
    The value that *raw* encodes.

    Raises:
        ValueError: it is no JSON, ambiguous, or beyond *limits*; the message holds nothing of it.

    """
    refuse_size(raw, limits)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"no JSON at character {error.pos}") from None
    refuse_depth(raw, value, limits)
    # What is written back the same has no name twice; only else it has to be looked for.
    if orjson.dumps(value) != raw:
        _refuse_doubles(raw)
    return value


def refuse_size(raw: bytes, limits: Limits = LIMITS) -> None:
    """
    Refuse what has too many bytes.

    Raises:
        ValueError: *raw* has.

    """
    if len(raw) > limits.bytes_max:
        raise ValueError(f"has {len(raw)} bytes, more than {limits.bytes_max}")


def refuse_depth(raw: bytes, value: Any, limits: Limits = LIMITS) -> None:
    """
    Refuse what is nested too deeply; *raw* encodes *value*.

    Raises:
        ValueError: it is.

    """
    levels = limits.levels_max
    if raw.count(b"[") + raw.count(b"{") > levels and is_deeper(value, levels):
        raise ValueError(f"nested deeper than {levels} levels")


def _refuse_doubles(raw: bytes) -> None:
    try:
        json.loads(raw, object_pairs_hook=stands_once)
    except (ValueError, RecursionError):
        raise ValueError("a name stands twice in one object") from None
