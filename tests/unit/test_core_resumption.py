"""What comes out of the change log when the connector was started again in the middle of a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from changelog import ChangeLog

from rowcast.errors import StopError
from stream_app.core.bucket import Spill
from stream_app.core.transaction import Assembler, Skipped, Transaction

_PAGE, _OTHER_PAGE, _LAST = 1008, 1016, 1032
RESUMED = json.dumps(
    {
        "id": "1",
        "type": "SKIPPED",
        "aggregate_type": "Initial Snapshot",
        "additional_data": {"connector_name": "x"},
        "timestamp": 1,
    }
).encode()


def copied(lsns: Sequence[int]) -> tuple[bytes, list[bytes], list[bytes]]:
    """BEGIN, rows of a COPY at *lsns*, and the END that counts so many of them as its place says."""
    log = ChangeLog()
    log.transaction([("c", "instance", None, {"id": f"i{n}"}) for n in range(len(lsns))])
    begin, *rows, end = map(json.loads, log.values)
    for row, lsn in zip(rows, lsns, strict=True):
        row["source"]["lsn"] = lsn
    ends = [{**end, "id": f"701:{_LAST}", "event_count": count} for count in range(len(lsns) + 2)]
    return coded(begin), [coded(row) for row in rows], [coded(each) for each in ends]


def coded(value: Any) -> bytes:
    return json.dumps(value).encode()


def numbered(row: bytes, order: int) -> bytes:
    """The same row under another number."""
    value = json.loads(row)
    return coded({**value, "transaction": {**value["transaction"], "total_order": order}})


def fed(values: Sequence[bytes], commit_lsn: int = 0, **options: Any) -> list[Any]:
    """The units of *values*, behind a transaction that was committed at *commit_lsn*."""
    return [each.unit for each in Assembler(commit_lsn, [], **options).feed(enumerate(values))]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_whole_transaction_delivered_again_from_its_middle_may_count_otherwise(count: int) -> None:
    """Debezium numbers rows of one LSN twice, or leaves the rest out; the transaction was whole before."""
    begin, rows, ends = copied([_PAGE] * 3)
    again = {1: [], 2: [rows[2]], 4: [rows[1], numbered(rows[1], 3), numbered(rows[2], 4)]}[count]
    units = fed([begin, *rows, ends[3], RESUMED, *again, ends[count]])
    assert [type(each) for each in units] == [Transaction, Skipped, Skipped]


def test_delivered_again_from_its_begin_it_counts_the_same() -> None:
    """Another one at the same place is not taken for it."""
    begin, rows, ends = copied([_PAGE] * 3)
    with pytest.raises(StopError, match="SOURCE_WENT_BACK"):
        fed([begin, *rows, ends[3], RESUMED, begin, *rows[:2], ends[2]])


def test_one_that_was_not_whole_before_is_whole_with_a_row_that_comes_twice() -> None:
    """The row that is delivered under another number is the same row."""
    begin, rows, ends = copied([_PAGE] * 3)
    (_, unit) = fed([RESUMED, begin, *rows[:2], RESUMED, numbered(rows[1], 3), numbered(rows[2], 4), ends[4]])
    assert unit.change_count == 4
    assert [row.after["id"] for row in unit.rows] == ["i0", "i1", "i1", "i2"]


@pytest.mark.parametrize("changes_max", [2, 3, 100])
@pytest.mark.parametrize("then", ["end", "row"])
def test_rows_of_a_copy_that_the_connector_leaves_out_stop_the_source(then: str, changes_max: int) -> None:
    """Behind the first row of a page it goes on with what follows the page, and counts what it sent."""
    begin, rows, ends = copied([_PAGE, _PAGE, _OTHER_PAGE, _OTHER_PAGE, _OTHER_PAGE + 8])
    rest = [ends[3]] if then == "end" else [numbered(rows[4], 4), ends[4]]
    with pytest.raises(StopError, match="left some out"):
        fed([begin, *rows[:3], RESUMED, *rest], changes_max=changes_max)


@pytest.mark.parametrize("changes_max", [3, 100])
def test_a_copy_that_goes_on_where_it_was_is_whole(changes_max: int) -> None:
    """The next row of the same page follows, or it is delivered again from its BEGIN, or from an earlier row."""
    begin, rows, ends = copied([_PAGE, _PAGE, _OTHER_PAGE, _OTHER_PAGE])
    for again in ([rows[3]], [begin, *rows], rows[1:]):
        units = fed([begin, *rows[:3], RESUMED, *again, ends[4]], changes_max=changes_max)
        spilled = [row.after["id"] for each in units if isinstance(each, Spill) for _, row in each.changes]
        last = units[-1]
        kept = last.rows if isinstance(last, Transaction) else [row for _, row in last.rest.changes]
        assert [*spilled, *(row.after["id"] for row in kept)] == ["i0", "i1", "i2", "i3"]


def test_plain_rows_may_be_cut_anywhere() -> None:
    """Each has an LSN of its own: nothing can be left out behind it."""
    begin, rows, ends = copied([_PAGE, _PAGE + 4, _OTHER_PAGE, _OTHER_PAGE + 4])
    for number in range(5):
        (unit,) = fed([begin, *rows[:number], RESUMED, *rows[number:], ends[4]])
        assert len(unit.rows) == 4


def test_behind_a_copy_a_row_of_another_table_may_be_cut_off() -> None:
    """It does not belong to the COPY."""
    begin, rows, ends = copied([_PAGE, _PAGE, _OTHER_PAGE])
    other = json.loads(rows[2])
    rows[2] = coded({**other, "source": {**other["source"], "table": "item"}})
    (unit,) = fed([begin, *rows, RESUMED, ends[3]])
    assert len(unit.rows) == 3


def test_a_copy_that_was_whole_before_may_lack_anything() -> None:
    """What is delivered again of it says nothing."""
    begin, rows, ends = copied([_PAGE, _PAGE, _OTHER_PAGE, _OTHER_PAGE])
    units = fed([begin, *rows, ends[4], begin, *rows[:3], RESUMED, ends[3]])
    assert [type(each) for each in units] == [Transaction, Skipped]


# Two pages of a COPY, then plain rows.
_LSNS = [_PAGE, _PAGE, _OTHER_PAGE, _OTHER_PAGE, _OTHER_PAGE + 4, _OTHER_PAGE + 6, _OTHER_PAGE + 8]


def sent_again(rows: Sequence[bytes], first: int, order: int) -> list[bytes]:
    """The *rows* from the one at *first* on, which is number *order* now."""
    return [numbered(row, order + place) for place, row in enumerate(rows[first:])]


def ids(units: Sequence[Any]) -> list[str]:
    """Those of the rows that came out, in order."""
    spilled = [row.after["id"] for each in units if isinstance(each, Spill) for _, row in each.changes]
    last = units[-1]
    kept = last.rows if isinstance(last, Transaction) else [row for _, row in last.rest.changes]
    return [*spilled, *(row.after["id"] for row in kept)]


@pytest.mark.parametrize("changes_max", [2, 3, 100])
@pytest.mark.parametrize("sent", [5, 6, 7])
def test_rows_that_are_left_out_the_second_time_were_there_the_first(sent: int, changes_max: int) -> None:
    """Without exactly-once source, the connector goes on behind the first row of a page that it had sent whole."""
    begin, rows, ends = copied(_LSNS)
    again = sent_again(rows, 4, 4)
    units = fed([begin, *rows[:sent], RESUMED, *again, ends[6]], changes_max=changes_max)
    assert ids(units) == [f"i{n}" for n in range(7)]
    assert units[-1].change_count == 7


@pytest.mark.parametrize("changes_max", [2, 3, 100])
def test_a_page_of_which_a_part_was_sent_before_may_have_had_more(changes_max: int) -> None:
    """What had not been sent of it is left out now: the source stops."""
    begin, rows, ends = copied([*_LSNS[:4], *_LSNS[3:]])
    with pytest.raises(StopError, match="left some out"):
        fed([begin, *rows[:4], RESUMED, *sent_again(rows, 5, 4), ends[7]], changes_max=changes_max)


@pytest.mark.parametrize("sent", [2, 3, 6])
def test_rows_that_are_numbered_one_higher_the_second_time_come_once(sent: int) -> None:
    """The first row shares the LSN of BEGIN, and is sent again as the second one."""
    begin, rows, ends = copied([_PAGE + 2 * n for n in range(6)])
    units = fed([begin, *rows[:sent], RESUMED, *sent_again(rows, 0, 2), ends[7]])
    assert ids(units) == [f"i{n}" for n in range(6)]
    assert units[-1].change_count == 6


@pytest.mark.parametrize(("count", "sent"), [(2, 2), (3, 2), (3, 3)])
def test_a_changed_key_is_whole_if_its_halves_were_there_the_first_time(count: int, sent: int) -> None:
    """The connector goes on behind the first of them, and leaves the second out."""
    begin, rows, ends = copied([_PAGE, _PAGE, _OTHER_PAGE][:count])
    rows[0] = coded({**json.loads(rows[0]), "op": "d", "before": {"id": "old"}, "after": None})
    units = fed([begin, *rows[:sent], RESUMED, *sent_again(rows, 2, 2), ends[count - 1]])
    assert [(row.after or row.before)["id"] for row in units[-1].rows] == ["old", "i1", "i2"][:count]


def test_started_twice_in_one_transaction_it_may_count_otherwise_each_time() -> None:
    """The second time it goes on where it was before the first."""
    begin, rows, ends = copied(_LSNS)
    first, second = sent_again(rows, 4, 4)[:2], rows[1:]
    units = fed([begin, *rows[:5], RESUMED, *first, RESUMED, *second, ends[7]])
    assert ids(units) == [f"i{n}" for n in range(7)]


def test_numbers_of_messages_are_brought_back_too() -> None:
    """A message has its LSN as rows have theirs."""
    log = ChangeLog()
    log.transaction([("c", "instance", None, {"id": "i0"}), ("m", "x", b"text", None), ("m", "x", b"more", None)])
    begin, *changes, end = map(json.loads, log.values)
    for place, each in enumerate(changes):
        each["source"]["lsn"] = _PAGE + 2 * place
    begin, *changes, end = map(coded, (begin, *changes, {**end, "event_count": 4}))
    units = fed([begin, *changes[:2], RESUMED, *sent_again(changes, 0, 2), end])
    assert (len(units[-1].rows), [each.content for each in units[-1].messages]) == (1, [b"text", b"more"])


# Four rows; between the first two and the others another transaction was committed, and the third stands right there.
_BESIDE = [_PAGE, _PAGE + 4, _PAGE + 6, _PAGE + 8]


def at(begin: bytes, lsn: int) -> bytes:
    """The same BEGIN, of a transaction that wrote first at *lsn*."""
    return coded({**json.loads(begin), "id": f"701:{lsn}"})


@pytest.mark.parametrize("left", [1, 3, 4])
def test_changes_left_out_behind_a_begin_stop_the_source(left: int) -> None:
    """What is sent then counts from 1, and END counts no more: without BEGIN once more, what it names has to come."""
    begin, rows, ends = copied(_BESIDE)
    sent = sent_again(rows, left, 1)
    with pytest.raises(StopError, match=r"INCOMPLETE_TRANSACTION.*behind a BEGIN"):
        fed([at(begin, _PAGE), RESUMED, *sent, ends[len(sent)]], commit_lsn=_BESIDE[2])
    with pytest.raises(StopError, match=r"INCOMPLETE_TRANSACTION.*behind a BEGIN"):
        fed([at(begin, _PAGE), RESUMED, at(begin, _PAGE), RESUMED, RESUMED, *sent, ends[len(sent)]], _BESIDE[2])


def test_behind_a_begin_that_is_sent_again_nothing_is_missing() -> None:
    """So it is as a rule."""
    begin, rows, ends = copied(_BESIDE)
    begin = at(begin, _PAGE)
    (unit,) = fed([begin, RESUMED, begin, *rows, ends[4]], commit_lsn=_BESIDE[2])
    assert len(unit.rows) == 4


def test_behind_a_begin_the_first_change_may_come_at_once() -> None:
    """It is where BEGIN says, or the transaction had written nothing before the other one was committed."""
    begin, rows, ends = copied(_BESIDE)
    (unit,) = fed([at(begin, _PAGE), RESUMED, *rows, ends[4]], commit_lsn=_BESIDE[2])
    assert len(unit.rows) == 4
    (unit,) = fed([at(begin, _PAGE - 2), RESUMED, *rows, ends[4]], commit_lsn=_PAGE - 2)
    assert len(unit.rows) == 4


def test_behind_the_begin_of_a_transaction_that_is_known_anything_may_be_left_out() -> None:
    """It was whole before."""
    begin, rows, ends = copied(_BESIDE)
    begin = at(begin, _PAGE)
    units = fed([begin, *rows, ends[4], begin, RESUMED, *sent_again(rows, 3, 1), ends[1]], commit_lsn=_BESIDE[2])
    assert [type(each) for each in units] == [Transaction, Skipped]
