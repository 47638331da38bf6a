"""
Where a value stands in a row: a column, or a place inside the JSON document of a column.

A text that begins with ``/`` is a JSON Pointer (RFC 6901) into the row: its first token is the column, the others
lead into the document. Any other text is the name of a column.
"""

from __future__ import annotations

from typing import NamedTuple

PLACE_FORM = "the name of a column, or /<column>/<path> into its document (a JSON Pointer)"


class Place(NamedTuple):
    """*path* holds the tokens inside the column's document, () for all of it; None for the column's own value."""

    column: str
    path: tuple[str, ...] | None = None


def parse_place(text: str) -> Place:
    """
    The place that *text* names.

    Raises:
        ValueError: it is empty, or no JSON Pointer.

    """
    if not text.startswith("/"):
        if not text:
            raise ValueError("names no column")
        return Place(text)
    column, *path = (_unescaped(token) for token in text[1:].split("/"))
    if not column:
        raise ValueError("names no column")
    return Place(column, tuple(path))


def _unescaped(token: str) -> str:
    rest = token.replace("~0", "").replace("~1", "")
    if "~" in rest:
        raise ValueError("'~' in a JSON Pointer is written ~0, '/' in a name ~1")
    # In this order, so that ~01 gives ~1 (RFC 6901, section 4).
    return token.replace("~1", "/").replace("~0", "~")
