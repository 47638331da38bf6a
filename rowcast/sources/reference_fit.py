"""Whether a reference table can be looked up in, and what its values can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rowcast.sources.catalogue import Catalogue, Column
from rowcast.sources.column_type import id_family, json_types
from rowcast.sources.definition import ReferenceDefinition
from rowcast.sources.place import parse_place
from rowcast.sources.property_fit import document_misfits, nearest


class LookedUp(NamedTuple):
    """The columns of a reference table: *value* is None where the value stands in a document."""

    key: Column
    value: Column | None


def looked_up(reference: ReferenceDefinition, catalogue: Catalogue) -> LookedUp | None:
    """The columns of *reference*; None where it has faults of its own."""
    table = catalogue.tables.get(reference.table)
    if table is None or any(True for _ in reference_misfits(reference, catalogue)):
        return None
    key = table.column(reference.key)
    place = parse_place(reference.value)
    assert key is not None, "reference_misfits found it"
    return LookedUp(key, None if place.path is not None else table.column(place.column))


def reference_misfits(reference: ReferenceDefinition, catalogue: Catalogue) -> Iterator[tuple[str, str, str]]:
    """Why nothing can be looked up in *reference*: the field, the message, and what would be accepted."""
    table = catalogue.tables.get(reference.table)
    if table is None:
        return  # told with the other tables
    key = table.column(reference.key)
    if (reference.key,) != table.key:
        message = f"{reference.key!r} is not the primary key of {table.name}"
        yield "key", message, table.key[0] if len(table.key) == 1 else "a table whose primary key is one column"
    elif table.row_key != table.key:
        message = f"{table.name} has a replica identity without its primary key, so deletions do not say what went"
        yield "table", message, f"ALTER TABLE {table.name} REPLICA IDENTITY DEFAULT"
    elif key is None or id_family(key) is None:
        message = f"column {reference.key!r} has no one text form that could be a key"
        yield "key", message, "an integer, text, varchar, uuid, date or enum column"
    place = parse_place(reference.value)
    column = table.column(place.column)
    if place.path is not None:
        for message, accepted in document_misfits(place.column, table):
            yield "value", message, accepted
    elif column is None:
        yield "value", f"{table.name} has no column {place.column!r}", nearest(place.column, table)
    elif column.generated or json_types(column) is None:
        message = f"column {place.column!r} of type {column.type} has no form in events"
        yield "value", message, "a stored column of a type of docs/reference/types.md"
