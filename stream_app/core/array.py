"""
The JSON form of arrays in events: each element in the form of its type.

The connector flattens what it has no form for, without saying so: an array of several dimensions becomes names of
Java objects or NULLs. Such values are told from others here, and refused where that is not possible.
"""

from __future__ import annotations

import re
from typing import Any

from rowcast.errors import MappingError
from stream_app.core.column import Converter, infinity_or, scalar_converter, text_of_bytes, unchanged

# How Java names an array, which is what stands for each row of an array of texts with several dimensions.
_JAVA_ARRAY = re.compile(r"\[+(?:L[\w.$]+;|[A-Z])@[0-9a-f]{1,8}")
# Elements of these types become NULL there instead.
_NULLED = re.compile(r"smallint|integer|bigint|real|double precision|numeric|boolean|date|time|bytea|citext|hstore|oid")
_DATES = re.compile(r"date|timestamp")
# The connector takes dates in arrays through a calendar that changes to Julian on the day before 1582-10-15.
_GREGORIAN = "1582-10-25"
# An array of a domain, as the catalogue has it: the connector writes its elements as bytes of their text.
DOMAIN = "domain "

_FROM_TEXT: dict[str, Converter] = {
    **dict.fromkeys(("smallint", "integer", "bigint", "oid"), int),
    "boolean": lambda text: text == "t",
}


def converter(column_type: str) -> Converter:
    """The function from Debezium's value to the event's, for a ``format_type`` name."""
    if not column_type.endswith("[]"):
        return scalar_converter(column_type)
    element_type = column_type[:-2]
    if element_type.startswith(DOMAIN):
        return _elements(_of_domain(element_type.removeprefix(DOMAIN)), nulled=False)
    element = scalar_converter(element_type)
    if _DATES.match(element_type):
        element = _modern(element)
    return _elements(element, nulled=_NULLED.match(element_type) is not None)


def _elements(element: Converter, *, nulled: bool) -> Converter:
    def convert(value: Any) -> list[Any] | None:
        if value is None:
            return None
        if not isinstance(value, list):
            raise MappingError("not an array")
        if value and _is_named(value[0]):
            raise MappingError(_SEVERAL)
        if value and nulled and _is_nulled(value):
            raise MappingError(_SEVERAL_OR_NULL)
        return value if element is unchanged else [element(each) for each in value]

    return convert


_SEVERAL = "an array of several dimensions, which the connector does not carry"
_SEVERAL_OR_NULL = "an array of several dimensions, or of nothing but NULL, which the connector does not tell apart"


def _is_nulled(value: list[Any]) -> bool:
    return value[0] is None and not any(each is not None for each in value)


def _is_named(value: Any) -> bool:
    return isinstance(value, str) and value[:1] == "[" and _JAVA_ARRAY.fullmatch(value) is not None


def _modern(element: Converter) -> Converter:
    def convert(value: Any) -> Any:
        text = element(value)
        if not isinstance(text, str):
            return text
        if text[0] in "+-":
            text = infinity_or(text)
        if text < _GREGORIAN and text[0] != "+" and text != "-infinity":
            raise MappingError(f"an array with a date before {_GREGORIAN}, which the connector does not keep")
        return text

    return convert


def _of_domain(element_type: str) -> Converter:
    from_text = _FROM_TEXT.get(element_type, unchanged)

    def convert(value: Any) -> Any:
        text = text_of_bytes(value)
        return None if text is None else from_text(text)

    return convert
