"""How whole transactions come out of the change log."""

from __future__ import annotations

import pytest
from changelog import ChangeLog

from rowcast.errors import StopError
from stream_app.core.bucket import Spill
from stream_app.core.transaction import Assembler, LargeTransaction, Skipped, Transaction

ROW = ("c", "instance", None, {"id": "i1", "title": "t", "tags": "[]", "secret": "s"})


def test_a_transaction_comes_out_at_its_end_and_the_position_stands_behind_it() -> None:
    """Nothing of an open transaction comes out, and reading resumes at its beginning."""
    log = ChangeLog()
    lsn = log.transaction([ROW, ROW])
    assembler = Assembler(0, [])

    assert list(assembler.feed(log.records()[:-1])) == []
    (placed,) = assembler.feed(log.records()[-1:])
    assert isinstance(placed.unit, Transaction)
    assert (placed.unit.lsn, len(placed.unit.rows), placed.next_offset) == (lsn, 2, 4)


def test_changes_delivered_again_inside_a_transaction_are_dropped() -> None:
    """A restart in the middle repeats BEGIN and changes; each is taken once."""
    log = ChangeLog()
    log.transaction([ROW, ROW, ROW])
    begin, one, two, three, end = log.values
    repeated = [begin, one, two, begin, one, two, three, end]
    (placed,) = Assembler(0, []).feed(enumerate(repeated))

    assert isinstance(placed.unit, Transaction)
    assert len(placed.unit.rows) == 3


def test_a_processed_transaction_delivered_again_is_dropped_even_when_incomplete() -> None:
    """A transaction of the re-send window is recognised before its completeness is asked."""
    log = ChangeLog()
    lsn = log.transaction([ROW, ROW])
    begin, one, _, end = log.values
    (placed,) = Assembler(lsn, [(lsn, 701, 2)]).feed(enumerate([begin, one, end]))

    assert isinstance(placed.unit, Skipped)


def test_the_position_never_passes_an_open_transaction() -> None:
    """What an interrupted transaction has delivered is read again after a restart."""
    log = ChangeLog()
    first = log.transaction([ROW])
    log.transaction([ROW])
    begin, row, _, begin_two, row_two, end_two = log.values
    resent = [begin_two, row_two, begin, row, log.values[2], row_two, end_two]
    assembler = Assembler(first, [(first, 701, 1)])
    placed = list(assembler.feed(enumerate(resent)))

    assert [each.next_offset for each in placed] == [0, 7]


def test_an_incomplete_transaction_stops_the_source() -> None:
    """END's count is checked against the changes that are there."""
    log = ChangeLog()
    log.transaction([ROW, ROW])
    begin, _, two, end = log.values
    with pytest.raises(StopError, match="INCOMPLETE_TRANSACTION"):
        list(Assembler(0, []).feed(enumerate([begin, two, end])))


def test_a_transaction_that_never_ends_stops_the_source_at_the_next_end() -> None:
    """An END cannot be overtaken by another transaction's."""
    log = ChangeLog()
    log.transaction([ROW])
    log.transaction([ROW])
    with pytest.raises(StopError, match="INCOMPLETE_TRANSACTION"):
        list(Assembler(0, []).feed(enumerate([*log.values[:2], *log.values[3:]])))


def test_an_older_unknown_transaction_stops_the_source() -> None:
    """A source that went back is named, never followed."""
    log = ChangeLog()
    lsn = log.transaction([ROW])
    with pytest.raises(StopError, match="SOURCE_WENT_BACK"):
        list(Assembler(lsn + 100, []).feed(log.records()))


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"op":"x"}', b'{"status":"END","id":"7"}', b"{}", None])
def test_a_record_that_is_no_change_event_stops_the_source(value: bytes | None) -> None:
    """A record without table and key cannot be held alone."""
    with pytest.raises(StopError, match="MALFORMED_CHANGE"):
        list(Assembler(0, []).feed([(5, value)]))


def test_debezium_heartbeats_move_the_position() -> None:
    """A record without meaning is a unit of its own."""
    (placed,) = Assembler(0, []).feed([(9, b'{"ts_ms":1}')])

    assert isinstance(placed.unit, Skipped)
    assert placed.next_offset == 10


def test_a_large_transaction_is_spilled_and_comes_out_at_its_end() -> None:
    """Its changes leave in pieces in order, the position stays before its BEGIN, and END is still checked."""
    log = ChangeLog()
    log.transaction([ROW] * 7, [("rowcast.context", {"actor": "a"})])
    placed = list(Assembler(0, [], changes_max=3).feed(log.records()))

    spills = [each for each in placed if isinstance(each.unit, Spill)]
    (large,) = [each for each in placed if isinstance(each.unit, LargeTransaction)]
    assert [each.next_offset for each in spills] == [0, 0]
    assert isinstance(large.unit, LargeTransaction)
    orders = [order for each in spills if isinstance(each.unit, Spill) for order, _ in each.unit.changes]
    assert orders + [order for order, _ in large.unit.rest.changes] == list(range(2, 9))
    assert (large.unit.change_count, large.next_offset) == (8, len(log.values))
    assert large.unit.messages[0].prefix == "rowcast.context"


@pytest.mark.parametrize("first", [0, 1, 4])
def test_a_large_transaction_that_was_processed_is_not_handed_over_again(first: int) -> None:
    """Whole or from its middle, in two deliveries: it moves the position, nothing of it is in the next one."""
    log = ChangeLog()
    lsn = log.transaction([ROW] * 7)
    again, length = log.values[first:-1] + log.values, len(log.values)
    log.transaction([ROW] * 5)
    records = list(enumerate([*again, *log.values[length:]]))
    placed = list(Assembler(lsn, [(lsn, 701, 7)], changes_max=3).feed(records))

    assert isinstance(placed[0].unit, Skipped)
    assert placed[0].next_offset == len(again)
    (large,) = [each.unit for each in placed if isinstance(each.unit, LargeTransaction)]
    spills = [each.unit for each in placed if isinstance(each.unit, Spill)]
    assert [order for each in [*spills, large.rest] for order, _ in each.changes] == [1, 2, 3, 4, 5]


def test_a_large_transaction_with_the_xid_of_a_processed_one_stops_the_source() -> None:
    """It cannot be another one within the window; that is found at END, and nothing of it goes out."""
    log = ChangeLog()
    lsn = log.transaction([ROW] * 7)
    with pytest.raises(StopError, match="INCOMPLETE_TRANSACTION"):
        list(Assembler(lsn - 1, [(lsn - 1, 701, 7)], changes_max=3).feed(log.records()))


def test_a_spilled_transaction_with_a_hole_stops_the_source() -> None:
    """A change that is missing from a large transaction is found as well."""
    log = ChangeLog()
    log.transaction([ROW] * 7)
    for missing in (1, 4, 7):
        values = [value for place, value in enumerate(log.values) if place != missing]
        with pytest.raises(StopError, match="INCOMPLETE_TRANSACTION"):
            list(Assembler(0, [], changes_max=3).feed(enumerate(values)))


def test_a_large_transaction_delivered_again_from_its_middle_is_whole() -> None:
    """Changes that were handed over already are dropped when they come again."""
    log = ChangeLog()
    log.transaction([ROW] * 7)
    values = [*log.values[:6], *log.values[2:]]
    placed = list(Assembler(0, [], changes_max=3).feed(enumerate(values)))

    orders = [order for each in placed if isinstance(each.unit, Spill) for order, _ in each.unit.changes]
    assert orders == [1, 2, 3, 4, 5, 6]
    assert isinstance(placed[-1].unit, LargeTransaction)
