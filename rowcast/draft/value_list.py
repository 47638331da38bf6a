"""
The values that a CHECK constraint allows, where it is a plain list: ``CHECK (state IN ('open', 'paid'))``.

Pure. Read is the text of ``pg_get_constraintdef``; whatever is not one list of constants for one column gives nothing.
"""

from __future__ import annotations

import re

_TYPE = r"(?:::(?:text|character varying(?:\(\d+\))?|smallint|integer|bigint)(?:\[\])?)?"
_TEXT = rf"'((?:[^']|'')*)'{_TYPE}"
_NUMBER = rf"(?:'(-?\d+)'{_TYPE}|\(?(-?\d+)\)?{_TYPE})"
# PostgreSQL writes ARRAY['a'::text], (ARRAY['a'::character varying])::text[], or for one value = 'a'::text.
_LIST = rf"CHECK \(\(?\(?COLUMN\)?{_TYPE} = (?:ANY \(\(?ARRAY\[(?P<list>.*?)\]\)?{_TYPE}\)|(?P<one>.+?))\)?\)"


def read_value_list(definition: str, column: str) -> tuple[str | int, ...] | None:
    """The constants that *definition* allows in *column*, in order; None when it is no plain list."""
    names = {column, '"' + column.replace('"', '""') + '"'}
    pattern = _LIST.replace("COLUMN", "(?:" + "|".join(re.escape(name) for name in sorted(names)) + ")")
    found = re.fullmatch(pattern, definition, re.DOTALL)
    if found is None:
        return None
    items = found["list"] if found["list"] is not None else found["one"]
    return _constants(items, _TEXT) or _constants(items, _NUMBER)


def _constants(items: str, form: str) -> tuple[str | int, ...] | None:
    one = re.compile(form)
    values: list[str | int] = []
    at = 0
    while (found := one.match(items, at)) is not None:
        text = next(group for group in found.groups() if group is not None)
        values.append(text.replace("''", "'") if form is _TEXT else int(text))
        at = found.end()
        if at == len(items):
            return tuple(dict.fromkeys(values))
        if not items.startswith(", ", at):
            return None
        at += 2
    return None
