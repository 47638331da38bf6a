"""
What stands between the change log and everything else of a worker: personal data that may not be published.

Row images are changed as they are read. What is masked, hashed or dropped is so in memory, in the control database, in
what is refused and in logs; only the change log has it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from rowcast.contracts.personal_data import Digest, Treatment, treated
from rowcast.errors import MappingError
from stream_app.core.change import Columns, RowChange
from stream_app.core.column import Converter, is_unavailable

# The name of what stands in row state for a value that cannot be read, with the reason.
_UNREADABLE = "rowcast:unreadable"


def digest_with(key: bytes) -> Digest:
    """The hash of a text: HMAC-SHA-256 of its UTF-8 bytes with *key*, as 64 lower-case hexadecimal digits, for ever."""
    return lambda text: hmac.new(key, text.encode(), sha256).hexdigest()


class Shield:
    """The treatments of the columns of some tables, with their converters; *digest* hashes."""

    def __init__(self, tables: Mapping[str, Mapping[str, tuple[Treatment, Converter]]], digest: Digest) -> None:
        self._tables, self._digest = tables, digest

    def change(self, change: RowChange) -> RowChange:
        """*change* with its row images as they may be kept."""
        columns = self._tables.get(change.table)
        if columns is None:
            return change
        return change._replace(before=self._image(change.before, columns), after=self._image(change.after, columns))

    def row(self, table: str, row: Columns) -> Columns:
        """A *row* of *table* as it may be kept."""
        return self._image(row, self._tables.get(table, {})) or {}

    def _image(self, image: Columns | None, columns: Mapping[str, tuple[Treatment, Converter]]) -> Columns | None:
        if image is None:
            return None
        return {name: self._value(value, columns[name]) if name in columns else value for name, value in image.items()}

    def _value(self, value: Any, shielded: tuple[Treatment, Converter]) -> Any:
        if value is None or is_unavailable(value):
            return value
        treatment, convert = shielded
        try:
            return treated([treatment], convert(value), self._digest)
        except MappingError as error:
            return {_UNREADABLE: str(error)}
        except (TypeError, ValueError, RecursionError):
            return {_UNREADABLE: "cannot be read, or is nested too deeply"}


def shield_of(tables: Mapping[str, Mapping[str, tuple[Treatment, Converter]]], digest: Digest) -> Shield | None:
    """The shield of *tables*; None where nothing has to be hidden."""
    needed = {table: columns for table, columns in tables.items() if columns}
    return Shield(needed, digest) if needed else None


def revealed(value: Any) -> Any:
    """
    The converter of columns that are shielded: they have the form of events already.

    Raises:
        MappingError: the value could not be read when it came.

    """
    if value.__class__ is dict and value.keys() == {_UNREADABLE}:
        raise MappingError(str(value[_UNREADABLE]))
    return value
