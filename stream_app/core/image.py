"""
One image of a row, read by place: each column is converted once, however many places lie in its document.

What is not there is null: a member that a document lacks, an index beyond a list's end, anything below null. What
cannot be there is an error: a member of a text or number, or a name in a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rowcast.errors import MappingError
from rowcast.sources.place import parse_place
from stream_app.core.change import Columns
from stream_app.core.column import Converter, is_unavailable

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_KINDS = {str: "a string", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}


class Image:
    """A row image of *table* in declared form."""

    __slots__ = ("_columns", "_converters", "_table", "_values")

    def __init__(self, table: str, columns: Columns, converters: Mapping[str, Converter]) -> None:
        self._table, self._columns, self._converters = table, columns, converters
        self._values: dict[str, Any] = {}

    def value(self, column: str) -> Any:
        """
        A column's value as events have it.

        Raises:
            MappingError: it is missing, not available, or has no form.

        """
        if column in self._values:
            return self._values[column]
        if column not in self._columns:
            raise MappingError(f"{self._table}: column {column!r} is not in the row")
        value = self._columns[column]
        if is_unavailable(value):
            raise MappingError(f"{self._table}: the value of column {column!r} is not available")
        try:
            self._values[column] = value = self._converters[column](value)
        except MappingError as error:
            raise MappingError(f"{self._table}: column {column!r}: {error}") from error
        return value


Reader = Callable[[Image], Any]


def place_reader(text: str) -> Reader:
    """The function that reads the place *text* of an image."""
    place = parse_place(text)
    column, path = place.column, place.path
    if not path:
        return lambda image: image.value(column)

    def read(image: Image) -> Any:
        value = image.value(column)
        for name in path:
            value = _member(value, name, text)
        return value

    return read


def _member(value: Any, name: str, text: str) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and _INDEX.fullmatch(name):
        return value[int(name)] if int(name) < len(value) else None
    raise MappingError(f"{text}: {kind_of(value)} has no member {name!r}")


def kind_of(value: Any) -> str:
    """What *value* is in JSON, in words."""
    return "null" if value is None else _KINDS[value.__class__]
