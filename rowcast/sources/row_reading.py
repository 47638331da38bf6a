"""
Rows read with SELECT in the form in which the change log has them, but for what the worker strips from it.

For previews and resyncs: `rowcast.sources.column_type` knows the types, docs/reference/types.md has the forms.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from rowcast.sources.column_type import DOMAIN, MULTIRANGES, plain_type
from rowcast.sources.definition import TableDefinition
from rowcast.sources.place import parse_place

Rows = list[dict[str, Any]]

_TEXT = "({0})::text"
_BYTES_OF_TEXT = "translate(encode(convert_to(({0})::text, 'UTF8'), 'base64'), E'\\n', '')"
# What is not named here is JSON by itself: whole numbers, truths, texts, enumerations.
_FORMS = {
    **dict.fromkeys(("numeric", "json", "jsonb", "time without time zone", "real", "double precision", "bit"), _TEXT),
    **dict.fromkeys(("date", "timestamp without time zone"), _TEXT),
    **dict.fromkeys(MULTIRANGES, _BYTES_OF_TEXT),
    "timestamp with time zone": "({0} AT TIME ZONE 'UTC')::text",
    "time with time zone": (
        "replace(CASE ({0})::text WHEN '24:00:00+00' THEN '24:00:00+00' ELSE ({0} AT TIME ZONE 'UTC')::text END,"
        " '+00', 'Z')"
    ),
    "bytea": "translate(encode({0}, 'base64'), E'\\n', '')",
    "interval": (
        "CASE WHEN {0} IS NOT NULL THEN format('P%%sY%%sM%%sDT%%sH%%sM%%sS', extract(year FROM {0}),"
        " extract(month FROM {0}), extract(day FROM {0}),"
        " extract(hour FROM {0}), extract(minute FROM {0}), trim_scale(extract(second FROM {0})::numeric)) END"
    ),
    "money": "(({0})::numeric)::text",
    "hstore": "(({0})::json)::text",
    "oid": "({0})::bigint",
    "point": "CASE WHEN {0} IS NOT NULL THEN jsonb_build_object('x', (({0})[0])::text, 'y', (({0})[1])::text) END",
}
# Texts of dates and of bits are as these say.
_SESSION = "SET datestyle = 'ISO, YMD'; SET extra_float_digits = 1"


def _form(column_type: str, expression: sql.Composable) -> sql.Composable:
    if column_type.endswith("[]"):
        element_type = column_type[:-2]
        form = sql.SQL(_BYTES_OF_TEXT).format(sql.SQL("u.e")) if element_type.startswith(DOMAIN) else None
        # Of several dimensions there are none to carry; the worker knows them by what the connector makes of them.
        return sql.SQL(
            "CASE WHEN array_ndims({0}) > 1 THEN '[\"[Ljava.lang.Object;@0\"]' WHEN {0} IS NOT NULL"
            " THEN (SELECT coalesce(jsonb_agg({1} ORDER BY u.n), '[]')"
            " FROM unnest({0}) WITH ORDINALITY AS u(e, n)) END"
        ).format(expression, form or _form(element_type, sql.SQL("u.e")))
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
    conditions: list[sql.Composable] = [sql.SQL("true")]
    parameters: list[object] = []
    for place, text in zip(*(wanted or ((), ())), strict=True):
        condition, values = _has_text(place, text)
        conditions.append(condition)
        parameters += values
    statement = sql.SQL("{} WHERE {} ORDER BY r.ctid DESC LIMIT {}").format(
        _selection(table), sql.SQL(" AND ").join(conditions), sql.Literal(limit)
    )
    connection.execute(_SESSION)
    with connection.cursor(row_factory=dict_row) as cursor:
        return _exact_rows(table, cursor.execute(statement, parameters).fetchall())


# Which rows of a table, as ``r``, with the parameters of it; None: all of them.
RowCondition = tuple[sql.Composable, Sequence[object]] | None


def stream_rows(
    connection: psycopg.Connection[Any], table: TableDefinition, condition: RowCondition, size: int
) -> Iterator[Rows]:
    """The rows of *table* that fulfil *condition*, *size* at a time and in no order; inside a transaction."""
    which, parameters = condition or (sql.SQL("true"), ())
    connection.execute(_SESSION)
    with connection.cursor("rowcast_rows", row_factory=dict_row) as cursor:
        cursor.execute(sql.SQL("{} WHERE {}").format(_selection(table), which), parameters)
        while rows := cursor.fetchmany(size):
            yield _exact_rows(table, rows)


def has_values(places: Sequence[str], values: Sequence[object]) -> tuple[sql.Composable, list[object]]:
    """
    The condition that ``r`` has these *values*, in the form of the change log, at *places*.

    The server reads them as values of the columns, so it may refuse them (``psycopg.DataError``).
    """
    conditions, parameters = list[sql.Composable](), list[object]()
    for text, value in zip(places, values, strict=True):
        if parse_place(text).path is None:
            conditions.append(sql.SQL("{} = %s").format(_column(text)))
            parameters.append(value)
        else:
            condition, more = _has_text(text, str(value))
            conditions.append(condition)
            parameters += more
    return sql.SQL("({})").format(sql.SQL(" AND ").join(conditions)), parameters


def is_below(columns: Sequence[str], table: str, key: Sequence[str], condition: RowCondition) -> RowCondition:
    """The condition that *columns* of ``r`` hold the *key* of a row of *table* that fulfils *condition*."""
    if condition is None:
        return None
    which, parameters = condition
    return (
        sql.SQL("({}) IN (SELECT {} FROM {} AS r WHERE {})").format(
            sql.SQL(", ").join(map(_column, columns)),
            sql.SQL(", ").join(map(_column, key)),
            _name(*table.split(".")),
            which,
        ),
        parameters,
    )


def _selection(table: TableDefinition) -> sql.Composed:
    columns = sql.SQL(", ").join(
        sql.SQL("to_jsonb({}) AS {}").format(_form(each.type, _column(each.name)), _name(each.name))
        for each in table.columns
    )
    return sql.SQL("SELECT {} FROM {} AS r").format(columns, _name(*table.name.split(".")))


def _name(*parts: str) -> sql.SQL:
    """A name in a statement with parameters."""
    return sql.SQL(sql.Identifier(*parts).as_string(None).replace("%", "%%"))


def _exact_rows(table: TableDefinition, rows: Rows) -> Rows:
    types = {column.name: column.type for column in table.columns}
    return [{name: _exact(types[name], value) for name, value in row.items()} for row in rows]


def _exact(column_type: str, value: Any) -> Any:
    """What SQL alone cannot bring into the form of the change log."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_exact(column_type.removesuffix("[]"), each) for each in value]
    kind = plain_type(column_type)
    if kind in {"real", "double precision"}:
        return _number(value)
    if kind == "point":
        return {name: _number(each) for name, each in value.items()}
    if kind in {"date", "timestamp without time zone", "timestamp with time zone"}:
        return _instant(column_type, value)
    return _bits(value) if kind == "bit" else value


def _number(text: str) -> float | str:
    number = float(text)
    return number if isfinite(number) else text


def _instant(column_type: str, text: str) -> str:
    """ISO 8601 with years counted through, and the fraction as long as declared where there is a time zone."""
    if not text[-1].isdigit() and not text.endswith(" BC"):
        return text  # infinity
    year, rest = text.removesuffix(" BC").split("-", 1)
    if text.endswith(" BC"):
        year = f"{1 - int(year):05d}" if int(year) > 1 else "0000"
    elif len(year) > _YEAR_DIGITS:
        year = f"+{year}"
    text = f"{year}-{rest.replace(' ', 'T')}"
    if not column_type.endswith("with time zone"):
        return text
    digits = int(column_type.partition("(")[2][:1] or 6)
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<{digits}}Z" if digits else f"{whole}Z"


_YEAR_DIGITS = 4


def _bits(text: str) -> str | bool:
    if len(text) == 1:
        return text == "1"
    number = int(text, 2)
    return b64encode(number.to_bytes((number.bit_length() + 7) // 8, "little")).decode()


def _column(name: str) -> sql.Composable:
    return sql.SQL("r.{}").format(_name(name))


def _has_text(text: str, wanted: str) -> tuple[sql.Composable, list[object]]:
    place = parse_place(text)
    column = _column(place.column)
    if place.path is None:
        return sql.SQL("({})::text = %s").format(column), [wanted]
    return sql.SQL("({})::jsonb #>> %s::text[] = %s").format(column), [list(place.path), wanted]
