"""
What operators name on a command line: sources, aggregate types and aggregates that the control database knows.

Any other name is an error that says which names there are, so that a misspelt one is never answered.
"""

from __future__ import annotations

from urllib.parse import unquote

import psycopg

from rowcast.errors import ConfigurationError
from rowcast.identity import Identity
from rowcast.sources.definition import SourceDefinition


def need_source(connection: psycopg.Connection, source: str) -> SourceDefinition:
    """
    The definition of *source* that was applied last.

    Raises:
        ConfigurationError: no source of that name was ever applied.

    """
    row = connection.execute("SELECT definition FROM rowcast.source WHERE source = %s", (source,)).fetchone()
    if row is None:
        names = [str(each) for (each,) in connection.execute("SELECT source FROM rowcast.source ORDER BY source")]
        fix = "applied: " + ", ".join(names) if names else "no source was applied yet"
        raise ConfigurationError("was never applied", where=f"source {source!r}", fix=fix)
    return SourceDefinition.from_json(row[0])


def need_type(connection: psycopg.Connection, source: str, aggregate: str) -> int:
    """
    How many columns an id of this aggregate type has.

    Raises:
        ConfigurationError: *source* was never applied, or declares no such type.

    """
    definition = need_source(connection, source)
    for each in definition.aggregates:
        if each.name == aggregate:
            return len(each.id)
    fix = "declared: " + ", ".join(sorted(each.name for each in definition.aggregates))
    raise ConfigurationError(f"source {source!r} has none", where=f"aggregate type {aggregate!r}", fix=fix)


def need_aggregate(connection: psycopg.Connection, source: str, aggregate: str, id_text: str) -> None:
    """
    Make sure that the aggregate was seen at least once.

    Raises:
        ConfigurationError: it was not, or its source or type is not known. Where only the form of the id is wrong,
            the error names the right one.

    """
    columns = need_type(connection, source, aggregate)
    if _is_known(connection, source, aggregate, id_text):
        return
    if _is_being_read(connection, source, aggregate):
        raise ConfigurationError(
            "is still being read by a snapshot", where=f"{source} {aggregate}", fix="ask again when its events are out"
        )
    fix = f"`rowcast refused list {source}` names those that are refused"
    encoded = encoded_id(id_text, columns)
    if encoded is not None and encoded != id_text and _is_known(connection, source, aggregate, encoded):
        fix = f"as a record key it is written {encoded}"
    elif encoded is None:
        fix = f"the id has {columns} parts, percent-encoded and joined by commas"
    raise ConfigurationError("no row with this id was seen", where=f"{source} {aggregate} {id_text!r}", fix=fix)


def _is_being_read(connection: psycopg.Connection, source: str, aggregate: str) -> bool:
    """Whether there may be rows of the type of which nothing but themselves is known yet."""
    found = connection.execute(
        "SELECT FROM rowcast.generation WHERE source = %s AND aggregate = %s AND status IN ('reading', 'emitting')",
        (source, aggregate),
    )
    return found.fetchone() is not None


def encoded_id(text: str, columns: int) -> str | None:
    """The id text of an id of so many *columns* that somebody typed as it is; None when it has fewer parts."""
    parts = unquote(text).split(",", columns - 1)
    return Identity("", "", tuple(parts)).id_text if len(parts) == columns else None


def _is_known(connection: psycopg.Connection, source: str, aggregate: str, id_text: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM rowcast.aggregate WHERE source = %s AND aggregate = %s AND id_text = %s",
        (source, aggregate, id_text),
    )
    return found.fetchone() is not None
