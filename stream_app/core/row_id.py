"""
The id text that columns of a row hold together, and its readers, compiled once for each use.

Most keys are one column whose values stand for themselves: numbers and UUIDs. These are told as quickly as can be;
whatever else there is goes the general way, which gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rowcast.errors import MappingError
from rowcast.identity import join_id_parts, stands_for_itself, with_tenant
from rowcast.sources.tenant import TENANT_COLUMN, is_pattern
from stream_app.core.change import Columns
from stream_app.core.column import Converter, id_part, is_unavailable, unchanged

# A key of PostgreSQL's indexes has at most 2,704 bytes, and the text stands in two of them with other columns.
ID_TEXT_MAX = 2_000
# The id text in a row image; None where one of the columns is NULL.
IdReader = Callable[[Columns], str | None]
KeyReader = Callable[[Columns], str]
_Text = TypeVar("_Text", str, str | None)


def available(table: str, columns: Columns, column: str, field: str) -> Any:
    """
    The value of a *column* of *table* from which *field* is made.

    Raises:
        MappingError: it is missing, or not available.

    """
    try:
        value = columns[column]
    except KeyError:
        of_field = "" if field == column else f" of field {field!r}"
        raise MappingError(f"{table}: column {column!r}{of_field} is not in the row") from None
    if is_unavailable(value):
        raise MappingError(f"{table}: the value of column {column!r} is not available")
    return value


def id_reader(table: str, names: tuple[str, ...], converters: Mapping[str, Converter]) -> IdReader:
    """The reader of the columns *names*; it raises MappingError where one is missing or not available, or all long."""

    def read(columns: Columns) -> str | None:
        parts = []
        for name in names:
            value = converters[name](available(table, columns, name, name))
            if value is None:
                return None
            parts.append(id_part(value))
        text = join_id_parts(parts)
        if len(text) > ID_TEXT_MAX:
            raise MappingError(f"{' and '.join(names)}: the id has more than {ID_TEXT_MAX} bytes as a record key")
        return text

    plain = len(names) == 1 and converters[names[0]] is unchanged
    reader = _quick(names[0], read) if plain else read
    return _of_tenant(table, reader) if is_pattern(table) else reader


def key_reader(table: str, names: tuple[str, ...], converters: Mapping[str, Converter]) -> KeyReader:
    """The same where none may be NULL: it raises MappingError then."""
    read = id_reader(table, names, converters)
    # That of a tenant's table has looked for the quick way already.
    plain = len(names) == 1 and converters[names[0]] is unchanged and not is_pattern(table)

    def read_key(columns: Columns) -> str:
        text = read(columns)
        if text is None:
            raise MappingError(f"{table}: an id column is NULL")
        return text

    return _quick(names[0], read_key) if plain else read_key


def _of_tenant(table: str, read: IdReader) -> IdReader:
    """The same with the row's tenant in front."""

    def read_with_tenant(columns: Columns) -> str | None:
        text = read(columns)
        return None if text is None else with_tenant(available(table, columns, TENANT_COLUMN, TENANT_COLUMN), text)

    return read_with_tenant


def _quick(name: str, read: Callable[[Columns], _Text]) -> Callable[[Columns], str | _Text]:
    def read_plain(columns: Columns) -> str | _Text:
        value = columns.get(name)
        if isinstance(value, str):
            if stands_for_itself(value) and len(value) <= ID_TEXT_MAX:
                return value
        elif value.__class__ is int:
            return str(value)
        return read(columns)

    return read_plain
