"""The declared fields and conditions of an aggregate, compiled once into functions of a row image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import orjson

from rowcast.contracts.declared_members import pruner
from rowcast.contracts.personal_data import Treatment
from rowcast.errors import MappingError
from rowcast.sources.field import ConditionDefinition, FieldDefinition
from rowcast.sources.function_module import Function, line_of
from stream_app.core.cast import cast_to
from stream_app.core.image import Image, Reader, kind_of, place_reader
from stream_app.core.reference import ReferenceTable

Condition = Callable[[Image], bool]
# What a function returns has to be JSON by itself: nothing is turned into text behind its back.
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def field_reader(
    definition: FieldDefinition, functions: Mapping[str, Function], references: Mapping[str, ReferenceTable]
) -> Reader:
    """The function that makes a field's value; *references* by name."""
    if definition.function is not None:
        return _called(definition.function, functions[definition.function], definition.inputs)
    if definition.place is None:
        constant = definition.constant
        return lambda _image: constant
    read = place_reader(definition.place)
    if definition.reference is not None:
        read = _looked_up(read, definition, references[definition.reference])
    if definition.cast is not None:
        read = _cast(read, definition.place, definition.cast)
    if definition.default is not None:
        read = _defaulted(read, definition.default)
    return read


def pruned(treatment: Treatment, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """*make*, without members of objects that the contract does not name."""
    prune = pruner(treatment)
    return make if prune is None else lambda given: prune(make(given))


def _looked_up(read: Reader, definition: FieldDefinition, table: ReferenceTable) -> Reader:
    lenient, place, name = definition.default is not None, definition.place, definition.reference

    def look_up(image: Image) -> Any:
        key = read(image)
        if key is None:
            return None
        try:
            found, value = table.find(table.key_of(key, image))
        except MappingError as error:
            raise MappingError(f"{place} in reference {name!r}: {error}") from error
        if not found and not lenient:
            raise MappingError(f"{place}: reference {name!r} has no row with this key")
        return value

    return look_up


def _cast(read: Reader, place: str, name: str) -> Reader:
    cast = cast_to(name)

    def cast_value(image: Image) -> Any:
        value = read(image)
        try:
            return cast(value)
        except MappingError as error:
            raise MappingError(f"{place} is {error}") from error

    return cast_value


def _defaulted(read: Reader, default: Any) -> Reader:
    def value_or_default(image: Image) -> Any:
        value = read(image)
        return default if value is None else value

    return value_or_default


def _called(name: str, function: Function, inputs: Mapping[str, str]) -> Reader:
    readers = tuple((parameter, place_reader(place)) for parameter, place in inputs.items())

    def call(image: Image) -> Any:
        arguments = {parameter: _own(read(image)) for parameter, read in readers}
        return result_of(name, partial(function, **arguments))

    return call


def result_of(name: str, call: Callable[[], Any]) -> Any:
    """
    What *call* of the source's function *name* gives, as JSON.

    Raises:
        MappingError: it raised, or gave what is no JSON.

    """
    try:
        value = call()
    except Exception as error:
        line = line_of(error)
        # Its message may quote values of the row, and reasons hold none.
        raise MappingError(f"function {name!r} raised {type(error).__name__} in line {line}") from error
    try:
        return orjson.loads(orjson.dumps(value, option=_STRICT))
    except (TypeError, ValueError, RecursionError) as error:
        raise MappingError(f"function {name!r} returned what is no JSON: {type(value).__name__}") from error


def _own(value: Any) -> Any:
    """A copy that a function may change: other fields read the same document."""
    return orjson.loads(orjson.dumps(value)) if isinstance(value, (list, dict)) else value


def condition(where: Iterable[ConditionDefinition], soft_delete: str) -> Condition | None:
    """Whether a row counts; None when every row does. It raises MappingError where that cannot be told."""
    tests = [_test(each) for each in where]
    if soft_delete:
        tests.append(_test(ConditionDefinition(place=soft_delete, values=(None, False))))
    if not tests:
        return None
    return lambda image: all(test(image) for test in tests)


def _test(definition: ConditionDefinition) -> Condition:
    read = place_reader(definition.place)
    values = frozenset(_comparable(each, definition.place) for each in definition.values)
    lenient = None in definition.values

    def test(image: Image) -> bool:
        value = read(image)
        if lenient and isinstance(value, (list, dict)):
            return definition.negated  # whatever it is, it is not null, nor one of the other values
        return (_comparable(value, definition.place) in values) is not definition.negated

    return test


def _comparable(value: Any, place: str) -> tuple[str, Any]:
    # As JSON has it: true is no number, and 1 is 1.0.
    if isinstance(value, (list, dict)):
        raise MappingError(f"{place} is {kind_of(value)}; only single values can be compared")
    return ("number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "other", value)
