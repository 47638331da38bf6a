"""Sure answers to: is a cell empty, and do two schemas have no value in common? False may mean unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rowcast.contracts.compatibility.acceptance import keyword_accepts
from rowcast.contracts.compatibility.bounds import interval, item_counts, property_counts, texts
from rowcast.contracts.compatibility.cell import Cell, cells
from rowcast.contracts.compatibility.document import Node
from rowcast.contracts.compatibility.text_set import TextSet

_DEPTH_MAX = 5
Path = tuple[tuple[tuple[int, str], ...], ...]
# The keywords that `cells` takes apart; what else a part says of a value can be asked of it alone.
_TAKEN_APART = {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"}


def is_empty(cell: Cell, path: Path = ()) -> bool:
    """Whether *cell* surely holds no value. *path*: the schemas around it, of which one inside the other is wanted."""
    if any(part.schema is False for part in cell.parts):
        return True
    if cell.values is not None:
        return all(refuses(cell, value) for value in cell.values)
    return _EMPTY[cell.type](cell, path)


def _no_array(cell: Cell, path: Path) -> bool:
    least, most = item_counts(cell)
    if most is not None and least > most:
        return True
    if any(cell.having("uniqueItems")) and least > 1 and _too_few(cell, least):
        return True
    return any(none_fits(cell.at_index(at), cell, path) for at in range(min(least, cell.prefix + 1)))


def _no_object(cell: Cell, path: Path) -> bool:
    least, most = property_counts(cell)
    if most is not None and least > most:
        return True
    return any((nodes := cell.at_name(name)) is None or none_fits(nodes, cell, path) for name in cell.required)


def _too_few(cell: Cell, least: int) -> bool:
    # Different elements are wanted, but there are not as many different values.
    if cell.prefix:
        return False
    elements = cells(cell.at_index(0), writer=cell.writer)
    return (
        all(each.values is not None for each in elements) and sum(len(each.values or ()) for each in elements) < least
    )


def refuses(cell: Cell, value: Any) -> bool:
    """Whether *value* surely is not in *cell*."""
    if cell.type in {"object", "array"} and cell.writer:
        # What an object or list must look like depends on how the writer is closed.
        return False
    return any(
        keyword_accepts(part, keyword, value) is False
        for part in cell.parts
        if isinstance(part.schema, dict)
        for keyword in part.schema
        if keyword not in _TAKEN_APART
    )


def none_fits(nodes: Sequence[Node], cell: Cell, path: Path = ()) -> bool:
    """Whether surely no value is valid against all *nodes*, which are below *cell*."""
    key = tuple(node.key for node in nodes)
    if key in path:
        # A value would have to hold another one of its own kind, and so on without an end.
        return True
    if not nodes or len(path) >= _DEPTH_MAX:
        return False
    return all(is_empty(each, (*path, key)) for each in cells(nodes, writer=cell.writer))


def disjoint(cell: Cell, nodes: Sequence[Node], depth: int = 0) -> bool:
    """Whether surely no value of *cell* is valid against all *nodes*."""
    return all(_apart(cell, other, depth) for other in cells(nodes, writer=False) if other.type == cell.type)


def _apart(one: Cell, other: Cell, depth: int) -> bool:
    for mine, theirs in ((one, other), (other, one)):
        if mine.values is not None:
            return all(_refused(theirs, value) for value in mine.values)
    if depth >= _DEPTH_MAX:
        return False
    return _APART[one.type](one, other, depth)


def _refused(cell: Cell, value: Any) -> bool:
    if cell.writer and cell.type in {"object", "array"}:
        return False
    return any(part.schema is False for part in cell.parts) or refuses(cell, value)


def _numbers_apart(one: Cell, other: Cell, _depth: int) -> bool:
    return interval(one).apart(interval(other))


def _texts_apart(one: Cell, other: Cell, _depth: int) -> bool:
    first, second = texts(one), texts(other)
    highs = [each for each in (first.high, second.high) if each is not None]
    low = max(first.low, second.low)
    return TextSet((*first.patterns, *second.patterns), low, min(highs, default=None)).is_empty()


def _arrays_apart(one: Cell, other: Cell, depth: int) -> bool:
    (low, high), (least, most) = item_counts(one), item_counts(other)
    if (high is not None and least > high) or (most is not None and low > most):
        return True
    sure = min(max(low, least), max(one.prefix, other.prefix) + 1)
    return any(_schemas_apart(one, one.at_index(at), other.at_index(at), depth) for at in range(sure))


def _objects_apart(one: Cell, other: Cell, depth: int) -> bool:
    (low, high), (least, most) = property_counts(one), property_counts(other)
    if (high is not None and least > high) or (most is not None and low > most):
        return True
    for name in (*one.required, *other.required):
        mine, theirs = one.at_name(name), other.at_name(name)
        if mine is None or theirs is None or _schemas_apart(one, mine, theirs, depth):
            return True
    return False


def _schemas_apart(cell: Cell, mine: Sequence[Node], theirs: Sequence[Node], depth: int) -> bool:
    # Without schemas every value fits.
    return all(disjoint(each, theirs, depth + 1) for each in cells(mine, writer=cell.writer))


_EMPTY: dict[str, Callable[[Cell, Path], bool]] = {
    "null": lambda _cell, _path: False,
    "boolean": lambda _cell, _path: False,
    "number": lambda cell, _path: interval(cell).is_empty(),
    "string": lambda cell, _path: texts(cell).is_empty(),
    "array": _no_array,
    "object": _no_object,
}
_APART = {
    "null": lambda _one, _other, _depth: False,
    "boolean": lambda _one, _other, _depth: False,
    "number": _numbers_apart,
    "string": _texts_apart,
    "array": _arrays_apart,
    "object": _objects_apart,
}
