"""
JSON text with places: what a file holds, and the line and column of everything in it.

Stricter than Python's reader: a name may stand once in an object, numbers are finite.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from pathlib import Path
from typing import Any

from rowcast.errors import ConfigurationError

Place = tuple[int, int]
_BLANK = re.compile(r"[ \t\r\n]*")
_ATOM = re.compile(r'[^\s,:\[\]{}"]+')
_STRING = json.decoder.scanstring  # type: ignore[attr-defined]  # the standard reader's own, not in its stubs


def read_json(path: Path) -> Any:
    """
    The value that the file *path* holds.

    Raises:
        ConfigurationError: it cannot be read or is no JSON; names file, line and column.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path), fix="name a readable file") from error
    return parse_json(text, str(path))


def parse_json(text: str, name: str) -> Any:
    """
    The value of *text*, which stands in the file *name*.

    Raises:
        ConfigurationError: it is no JSON; names file, line and column.

    """
    try:
        return json.loads(text, object_pairs_hook=stands_once, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}:{error.colno}"
        raise ConfigurationError(f"not JSON: {error.msg}", where=where, fix="correct the file") from error
    except (ValueError, RecursionError) as error:
        line, column = _fault(text)
        message = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise ConfigurationError(message, where=f"{name}:{line}:{column}", fix="correct the file") from error


def is_deeper(value: Any, levels: int) -> bool:
    """Whether *value* is nested deeper than *levels*; found without recursion, which such a value would exhaust."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _depth in range(levels):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
        if not level:
            return False
    return bool(level)


def stands_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    The object of *pairs*, as a hook of the standard reader.

    Raises:
        ValueError: a name stands twice.

    """
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return entry


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def places(text: str) -> dict[str, Place]:
    """
    Line and column, counted from 1, of every value of the JSON *text*, by its JSON pointer.

    A property's place is that of its name.
    """
    reader = _Reader(text)
    reader.value("", reader.place())
    return reader.found


def place_of(found: dict[str, Place], pointer: str) -> Place:
    """The place of *pointer*, or of what is nearest above it."""
    while pointer and pointer not in found:
        pointer = pointer.rpartition("/")[0]
    return found.get(pointer, (1, 1))


def _fault(text: str) -> Place:
    # The place of the first name that stands twice, or number that is none.
    reader = _Reader(text)
    try:
        reader.value("", reader.place())
    except RecursionError:
        return reader.place()
    return reader.fault or (1, 1)


class _Reader:
    """Reads text that the standard reader has found to be well-formed."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, _BLANK.match(text).end()  # type: ignore[union-attr]  # it matches the empty text
        self.found: dict[str, Place] = {}
        self.fault: Place | None = None
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self) -> Place:
        line = bisect_right(self._lines, self.at)
        return line, self.at - self._lines[line - 1] + 1

    def value(self, pointer: str, place: Place) -> None:
        if pointer in self.found:
            self.fault = self.fault or place
        self.found[pointer] = place
        opening = self.text[self.at]
        if opening == "{":
            self._members(pointer)
        elif opening == "[":
            self._elements(pointer)
        elif opening == '"':
            self.at = _STRING(self.text, self.at + 1, True)[1]
        else:
            match = _ATOM.match(self.text, self.at)
            atom = match[0] if match else ""
            number = atom[:1] not in "tfn"
            if number and not (atom.lstrip("-")[:1].isdigit() and math.isfinite(float(atom))):
                self.fault = self.fault or self.place()
            self.at += len(atom)
        self._blank()

    def _blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _skip(self) -> str:
        self.at += 1
        self._blank()
        return self.text[self.at]

    def _members(self, pointer: str) -> None:
        following = self._skip()
        while following != "}":
            place = self.place()
            name, self.at = _STRING(self.text, self.at + 1, True)
            self._blank()
            self._skip()
            self.value(f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", place)
            following = self._skip() if self.text[self.at] == "," else self.text[self.at]
        self.at += 1

    def _elements(self, pointer: str) -> None:
        following, index = self._skip(), 0
        while following != "]":
            self.value(f"{pointer}/{index}", self.place())
            index += 1
            following = self._skip() if self.text[self.at] == "," else self.text[self.at]
        self.at += 1
