"""Declared fields, conditions and functions against a model: casts, defaults, constants, filters, soft delete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch
from hypothesis import given
from hypothesis import strategies as st

from rowcast.errors import MappingError, StopError
from rowcast.event import decode
from rowcast.sources.definition import ColumnDefinition, SourceDefinition
from rowcast.sources.field import ConditionDefinition, FieldDefinition
from stream_app.core.cast import cast_to
from stream_app.core.mapping import SourceMapping, compile_mapping

COLUMNS = {"id": "integer", "name": "text", "price": "numeric", "flag": "boolean", "doc": "jsonb"}
FUNCTIONS = """
import json

def label(name, codes):
    codes = codes or []
    codes.sort()
    return f"{name}: {','.join(codes)}"

def broken(name):
    secret = name
    raise ValueError(secret)

def a_set(name):
    return {name}

def a_date(name):
    import datetime
    return datetime.date(2026, 1, 1)

def _private(name):
    return name
"""


def definition(fields: Mapping[str, FieldDefinition], **changes: Any) -> SourceDefinition:
    plain = build_definition()
    columns = tuple(ColumnDefinition(name=name, type=kind, nullable=name != "id") for name, kind in COLUMNS.items())
    aggregate = replace(plain.aggregates[0], fields=fields, **changes)
    table = replace(plain.tables[0], columns=columns)
    return replace(plain, aggregates=(aggregate,), tables=(table,), functions=FUNCTIONS)


def mapping(fields: Mapping[str, FieldDefinition], **changes: Any) -> SourceMapping:
    return compile_mapping(definition(fields, **changes), {"instance": accept})


def row(id_: int = 1, **columns: Any) -> dict[str, Any]:
    return {"id": id_, "name": "n", "price": "1.50", "flag": True, "doc": None, **columns}


def entity(fields: Mapping[str, FieldDefinition], **columns: Any) -> dict[str, Any]:
    return mapping(fields).by_type["instance"].entity(row(**columns))


def test_a_field_is_a_place_a_constant_or_a_function() -> None:
    """Renamed, left out, cast, defaulted, constant, out of a document, computed: one entity."""
    fields = {
        "id": FieldDefinition(place="id"),
        "title": FieldDefinition(place="name"),
        "kind": FieldDefinition(constant="book"),
        "nothing": FieldDefinition(constant=None),
        "price": FieldDefinition(place="price", cast="number"),
        "colour": FieldDefinition(place="/doc/colour", default="grey"),
        "first": FieldDefinition(place="/doc/codes/0"),
        "label": FieldDefinition(function="label", inputs={"name": "name", "codes": "/doc/codes"}),
        "codes": FieldDefinition(place="/doc/codes"),
    }
    found = entity(fields, doc=json.dumps({"codes": ["b", "a"]}))
    assert found == {
        "id": 1, "title": "n", "kind": "book", "nothing": None, "price": 1.5, "colour": "grey", "first": "b",
        "label": "n: a,b", "codes": ["b", "a"],
    }  # fmt: skip
    assert list(found) == list(fields)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "function 'broken' raised ValueError in line 11"),
        ("a_set", "function 'a_set' returned what is no JSON: set"),
        ("a_date", "function 'a_date' returned what is no JSON: date"),
    ],
)
def test_what_a_function_cannot_do_refuses_the_event_without_values_of_the_row(name: str, reason: str) -> None:
    """The reason names function, error and line, never the message, which may quote personal data."""
    with pytest.raises(MappingError) as refused:
        entity({"x": FieldDefinition(function=name, inputs={"name": "name"})}, name="a secret")
    assert str(refused.value) == reason


def test_functions_that_cannot_be_loaded_stop_the_source() -> None:
    """A worker that lacks what the module imports says so, and publishes nothing wrong."""
    wrong = replace(definition({"id": FieldDefinition(place="id")}), functions="import no_such_module_at_all")
    with pytest.raises(StopError, match=r"FUNCTIONS_UNUSABLE: connectors/inventory\.py: cannot be run: ModuleNotFound"):
        compile_mapping(wrong, {"instance": accept})


NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(-(10**6), 10**6, allow_nan=False, places=3).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(alphabet="0123456789.eE+-x", max_size=8),
)


@given(NUMBERS)
def test_numbers_are_cast_exactly_or_refused(text: str) -> None:
    """What comes out is the same number; nothing is rounded."""
    for name in ("number", "integer"):
        try:
            number = cast_to(name)(text)
        except MappingError:
            continue
        assert Decimal(repr(number)) == Decimal(text)
        assert name == "number" or type(number) is int
        assert json.loads(json.dumps(number)) == number


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3, allow_nan=False), st.text(max_size=3), st.just([1])
)


@given(VALUES, st.sampled_from(["text", "integer", "number", "boolean", "json", "utc"]))
def test_a_cast_gives_its_type_or_refuses(value: Any, name: str) -> None:
    """Whatever comes in: null stays null, the declared type comes out, or the event is refused."""
    types = {"text": str, "integer": int, "number": (int, float), "boolean": bool, "utc": str, "json": object}
    try:
        found = cast_to(name)(value)
    except MappingError:
        return
    assert found is None if value is None else isinstance(found, types[name])
    assert name in {"boolean", "json"} or not isinstance(found, bool)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("text", True, "true"),
        ("text", 1.5, "1.5"),
        ("text", 9007199254740993, "9007199254740993"),
        ("integer", "12.00", 12),
        ("integer", 2.0, 2),
        ("number", "0.1", 0.1),
        ("number", "18446744073709551615", 18446744073709551615),
        ("boolean", "No", False),
        ("boolean", 1, True),
        ("boolean", "on", True),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("utc", "2026-03-02T09:15:00.5", "2026-03-02T09:15:00.5Z"),
    ],
)
def test_casts_as_documented(name: str, value: Any, wanted: Any) -> None:
    """The forms of docs/reference/mapping.md."""
    found = cast_to(name)(value)
    assert (found, type(found)) == (wanted, type(wanted))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", []),
        ("integer", "1.5"),
        ("integer", True),
        ("number", "NAN"),
        ("number", "0.12345678901234567890123"),
        ("boolean", "maybe"),
        ("boolean", 2),
        ("json", "{"),
        ("utc", "infinity"),
        ("utc", "2026-03-02"),
        ("utc", "2026-03-02T09:15:00Z"),
    ],
)
def test_casts_that_are_refused(name: str, value: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(MappingError):
        cast_to(name)(value)


JSON_VALUES = st.sampled_from([None, True, False, 0, 1, 1.0, "", "a", "1"])


def alike(one: Any, other: Any) -> bool:
    """Equality of single JSON values: true is no number, 1 is 1.0."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@given(
    st.lists(
        st.tuples(st.sampled_from(["x", "y"]), st.lists(JSON_VALUES, min_size=1, max_size=3), st.booleans()), max_size=3
    ),
    st.lists(st.tuples(JSON_VALUES, JSON_VALUES), min_size=1, max_size=6),
    JSON_VALUES,
)
def test_rows_begin_and_cease_to_count(conditions: Any, states: Any, deleted: Any) -> None:
    """Created when a row begins to fulfil all conditions, deleted when it ceases to, whatever it was before."""
    where = tuple(
        ConditionDefinition(place=f"/doc/{place}", values=tuple(values), negated=negated)
        for place, values, negated in conditions
    )
    source = mapping({"id": FieldDefinition(place="id")}, where=where, soft_delete="/doc/gone")
    log, store = ChangeLog(), MemoryStore()
    kinds, expected, counted = [], [], False
    for number, (x, y) in enumerate(states):
        start = len(log.values)
        gone = deleted if number % 2 else None
        document = json.dumps({"x": x, "y": y, "gone": gone})
        log.transaction([("u" if number else "c", "instance", None, row(doc=document))])
        records, view = run_batch(source, store, log.records(start))
        store.save(view)
        kinds.append([str(decode(*record).kind) for record in records])
        counts = gone is None or gone is False
        for place, values, negated in conditions:
            value = x if place == "x" else y
            counts = counts and any(alike(value, each) for each in values) is not negated
        expected.append([] if counts == counted else ["created" if counts else "deleted"])
        counted = counts
    assert kinds == expected


def test_a_condition_that_cannot_be_told_refuses_and_deletes_nothing() -> None:
    """A filter over a document that is none: consumers keep what they have."""
    where = (ConditionDefinition(place="/doc/kind", values=("book",)),)
    source = mapping({"id": FieldDefinition(place="id"), "name": FieldDefinition(place="name")}, where=where)
    log, store = ChangeLog(), MemoryStore()

    def commit(operation: str, **columns: Any) -> list[str]:
        start = len(log.values)
        log.transaction([(operation, "instance", None, row(**columns))])
        records, view = run_batch(source, store, log.records(start))
        store.save(view)
        return [str(decode(*record).kind) for record in records]

    assert commit("c", doc='{"kind": "draft"}') == []
    assert commit("u", doc='{"kind": "book"}') == ["created"]
    assert commit("u", doc="{") == []
    (state,) = store.aggregates.values()
    assert state.refusal is not None
    assert commit("u", doc='{"kind": []}') == []
    assert commit("u", doc='{"kind": "draft"}') == ["deleted"]
