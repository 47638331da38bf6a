"""What is quick for the plain case gives what the general way gives."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, build_mapping, run_batch

from rowcast.errors import MappingError, StopError
from rowcast.event import decode
from stream_app.core.bucket import Spill
from stream_app.core.column import PLACEHOLDER, is_flat, unchanged
from stream_app.core.emission import rfc3339
from stream_app.core.row import Reading, entity_reader
from stream_app.core.row_id import ID_TEXT_MAX, id_reader, key_reader
from stream_app.core.transaction import Assembler, LargeTransaction, Transaction

VALUES: list[Any] = [
    *("a", "A-1", "", "~", "a,b", "a/b", "ü", "٣", "²", "a b", "-", "a.b_c", PLACEHOLDER, "x" * ID_TEXT_MAX),
    *("x" * (ID_TEXT_MAX + 1), 0, -7, 2**63, True, 1.5, None),
    "9f0c1d6e-6f7a-4d53-9a53-6a7a41c0f5b1",
]


def outcome(read: Any, columns: dict[str, Any]) -> Any:
    """What a reader gives, or says."""
    try:
        return read(columns)
    except MappingError as error:
        return str(error)


@pytest.mark.parametrize("reader", [id_reader, key_reader])
def test_ids_of_one_plain_column_are_those_of_the_general_way(reader: Any) -> None:
    """Whatever the column holds; a converter that is not known to change nothing makes the reader go the long way."""
    quick = reader("public.t", ("id",), {"id": unchanged})
    general = reader("public.t", ("id",), {"id": lambda value: value})

    for columns in [*({"id": value} for value in VALUES), {"other": 1}]:
        assert outcome(quick, columns) == outcome(general, columns)


@pytest.mark.parametrize(
    "readings",
    [
        (),
        (("a", "a", None),),
        (("a", "a", str),),
        (("a", "a", None), ("b", "b", None)),
        (("b", "b", None), ("a", "a", str)),
        (("x", "a", None), ("y", "a", str), ("b", "b", None)),
        (("a", "b", None), ("b", "a", None)),
    ],
)
def test_entities_are_read_column_by_column(readings: tuple[Reading, ...]) -> None:
    """In whatever order columns come, how often they are named, and whatever else there is."""
    read = entity_reader(readings)

    for columns in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2, "c": 3}):
        expected = {field: (convert or unchanged)(columns[column]) for field, column, convert in readings}
        assert read(columns) == expected
        assert list(read(columns)) == list(expected)
        assert read(columns) is not columns
    if readings:
        with pytest.raises(KeyError):
            read({"c": 3})


def test_times_have_six_digits_and_are_those_of_the_calendar() -> None:
    """Also before 1970 and where the fraction begins with zeros."""
    rng = random.Random(4)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for time_us in [0, 1, -1, 999_999, 1_000_000, *(rng.randrange(-(10**16), 10**17) for _ in range(200))]:
        text = (epoch + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")
        assert rfc3339(time_us) == text.removesuffix("+00:00") + "Z"


def test_flat_types_are_those_that_hold_nothing() -> None:
    """Documents may be nested, also in arrays; what is not known may be too."""
    assert all(map(is_flat, ("text", "character varying(20)[]", "numeric(10,2)", "timestamp(3) without time zone")))
    assert not any(map(is_flat, ("json", "jsonb[]", "hstore", "point", "status_of_mine", "domain jsonb[]")))


def test_changes_may_come_in_any_order_and_often() -> None:
    """A transaction is whole when all its changes are there, and has them in their order, each once."""
    for seed in range(60):
        rng = random.Random(seed)
        log = ChangeLog()
        rows = [("c", "instance", None, {"id": f"i{number}"}) for number in range(rng.randint(1, 8))]
        log.transaction(rows)
        begin, *changes, end = log.values
        delivered = rng.sample(changes, len(changes)) + rng.choices(changes, k=rng.randint(0, 3))
        lost = rng.choice([None, rng.choice(changes)])
        values = [begin, *(each for each in delivered if each is not lost), end]
        feed = Assembler(0, []).feed(enumerate(values))
        if lost is not None:
            with pytest.raises(StopError, match="INCOMPLETE_TRANSACTION"):
                list(feed)
            continue
        (placed,) = feed
        assert isinstance(placed.unit, Transaction)
        assert [row.after["id"] for row in placed.unit.rows if row.after] == [row[3]["id"] for row in rows]


def test_a_large_transaction_whose_end_counts_less_stops_the_source() -> None:
    """Also where all that it counts was handed over before."""
    log = ChangeLog()
    log.transaction([("c", "instance", None, {"id": f"i{number}"}) for number in range(6)])
    values = [*log.values[:-1], log.values[-1].replace(b'"event_count": 6', b'"event_count": 4')]
    with pytest.raises(StopError, match="INCOMPLETE_TRANSACTION"):
        list(Assembler(0, [], changes_max=3).feed(enumerate(values)))
    whole = list(Assembler(0, [], changes_max=3).feed(enumerate(log.values)))
    assert [type(each.unit) for each in whole] == [Spill, Spill, LargeTransaction]


def test_numbers_that_only_python_takes_for_equal_are_changes() -> None:
    """Of several fields that hold them, each that changed stands in `before`."""
    log, mapping = ChangeLog(), build_mapping()
    former = {"id": "i1", "title": "t", "tags": '{"n": [1, 1.0, true, 0.0]}', "secret": "s"}
    changes = [(tags, {**former, "tags": tags}) for tags in ('{"n": [1, 1.0, true, -0.0]}', '{"n": [1, 1, true, 0.0]}')]
    store = MemoryStore()
    for number, row in enumerate([former, *(each for _, each in changes), {**changes[1][1], "title": "u"}]):
        log.transaction([("u" if number else "c", "instance", None, row)])
    records, _ = run_batch(mapping, store, log.records())
    events = [decode(*record) for record in records]

    assert [event.before and sorted(event.before) for event in events] == [None, ["tags"], ["tags"], ["title"]]
