"""
Rows read with SELECT in the form in which the change log has them, but for what the worker strips from it.

For previews: `rowcast.sources.column_type` knows the types, docs/reference/types.md is the table of the forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from rowcast.sources.column_type import plain_type
from rowcast.sources.definition import TableDefinition
from rowcast.sources.place import parse_place

Rows = list[dict[str, Any]]

_TRIMMED = "rtrim(rtrim(to_char({0}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.')"
_TEXT = "({0})::text"
# What is not named here is JSON by itself: numbers, truths, texts, enumerations.
_FORMS = {
    **dict.fromkeys(("numeric", "json", "jsonb", "date", "time without time zone"), _TEXT),
    "timestamp with time zone": "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    "timestamp without time zone": _TRIMMED,
    "time with time zone": "(({0} AT TIME ZONE 'UTC')::time)::text || 'Z'",
    "bytea": "translate(encode({0}, 'base64'), E'\\n', '')",
    "interval": (
        "format('P%%sY%%sM%%sDT%%sH%%sM%%sS', extract(year FROM {0}), extract(month FROM {0}), extract(day FROM {0}),"
        " extract(hour FROM {0}), extract(minute FROM {0}), trim_scale(extract(second FROM {0})::numeric))"
    ),
}


def _form(column_type: str, expression: sql.Composable) -> sql.Composable:
    if column_type.endswith("[]"):
        element = _form(column_type[:-2], sql.SQL("u.e"))
        return sql.SQL(
            "CASE WHEN {0} IS NOT NULL THEN (SELECT coalesce(jsonb_agg({1} ORDER BY u.n), '[]')"
            " FROM unnest({0}) WITH ORDINALITY AS u(e, n)) END"
        ).format(expression, element)
    return sql.SQL(_FORMS.get(plain_type(column_type), "{0}")).format(expression)


def read_rows(
    connection: psycopg.Connection[Any],
    table: TableDefinition,
    wanted: tuple[Sequence[str], Sequence[str]] | None,
    limit: int,
) -> Rows:
    """
    At most *limit* rows of *table*, those written last first as far as PostgreSQL keeps them in that order.

    *wanted* restricts them to those that have the given texts at the given places.
    """
    types = {column.name: column.type for column in table.columns}
    columns = sql.SQL(", ").join(
        sql.SQL("to_jsonb({}) AS {}").format(_form(types[name], _column(name)), sql.Identifier(name)) for name in types
    )
    conditions: list[sql.Composable] = [sql.SQL("true")]
    parameters: list[object] = []
    for place, text in zip(*(wanted or ((), ())), strict=True):
        condition, values = _has_text(place, text)
        conditions.append(condition)
        parameters += values
    where = sql.SQL(" AND ").join(conditions)
    statement = sql.SQL("SELECT {} FROM {} AS r WHERE {} ORDER BY r.ctid DESC LIMIT {}").format(
        columns, sql.Identifier(*table.name.split(".")), where, sql.Literal(limit)
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement, parameters).fetchall()
    return [{name: _exact(types[name], value) for name, value in row.items()} for row in rows]


def _exact(column_type: str, value: Any) -> Any:
    # jsonb writes 5 and 1e300 as whole numbers.
    if column_type.removesuffix("[]") not in {"real", "double precision"}:
        return value
    if isinstance(value, list):
        return [_exact(column_type, each) for each in value]
    return float(value) if isinstance(value, int) else value


def _column(name: str) -> sql.Composable:
    return sql.SQL("r.{}").format(sql.Identifier(name))


def _has_text(text: str, wanted: str) -> tuple[sql.Composable, list[object]]:
    place = parse_place(text)
    column = _column(place.column)
    if place.path is None:
        return sql.SQL("({})::text = %s").format(column), [wanted]
    return sql.SQL("({})::jsonb #>> %s::text[] = %s").format(column), [list(place.path), wanted]
