"""When generations begin and end."""

from __future__ import annotations

import pytest

from rowcast.errors import StopError
from stream_app.core.change import Operation, RowChange
from stream_app.generation import CANCELLED, COMPARING, COMPLETE, EMITTING, READING, Generation, Generations


def row(lsn: int = 10, *, first: bool = False) -> RowChange:
    return RowChange(Operation.READ, "public.a", None, {}, None, None, lsn, 5, first=first)


def never_noted() -> None:
    """The source was set up before its snapshots were expected anywhere."""


def test_a_snapshot_is_one_generation_of_all_types() -> None:
    """It begins with the first row, is read until the stream begins, and its events carry its LSN."""
    generations = Generations("s", ["a", "b"], [], never_noted)
    generations.note_row(row(first=True), 3)
    generations.note_row(row(), 4)

    assert generations.reading == {"a", "b"}
    assert generations.begin_emitting(9, 99, "later").lsn == 10
    assert generations.reading == frozenset()
    generations.complete()
    assert [each.status for each in generations.take_changed()] == [READING] * 4 + [EMITTING] * 2 + [COMPLETE] * 2


def test_an_empty_database_has_an_empty_generation() -> None:
    """The first streamed transaction shows that the snapshot found nothing."""
    generations = Generations("s", ["a"], [], never_noted)

    assert generations.ends_with_stream
    assert generations.begin_emitting(9, 99, "now").lsn == 99
    assert generations.number == 1


def test_a_type_that_was_declared_later_ends_no_generation_of_the_others() -> None:
    """Its changes wait for a snapshot of its own; nobody else's rows count as gone."""
    generations = Generations("s", ["a", "b"], [Generation("a", 1, COMPLETE, 0, 1, "t")], never_noted)

    assert generations.reading == {"b"}
    assert not generations.ends_with_stream


@pytest.mark.parametrize("second", [row(first=True), row(lsn=20)])
def test_a_second_snapshot_inside_the_first_stops_the_source(second: RowChange) -> None:
    """It shows by its first row, or by another LSN where the first table is empty."""
    generations = Generations("s", ["a"], [], never_noted)
    generations.note_row(row(first=True), 0)
    with pytest.raises(StopError, match="SNAPSHOT_INTERRUPTED"):
        generations.note_row(second, 1)


def test_an_abandoned_generation_is_followed_by_another() -> None:
    """After resnapshot the next first row begins a generation with a higher number."""
    generations = Generations("s", ["a"], [], lambda: 7)
    generations.note_row(row(first=True), 0)
    generations.abandon()

    assert generations.reading == {"a"}
    generations.note_row(row(lsn=20, first=True), 7)
    assert generations.number == 2


def test_a_generation_begins_with_the_notice_and_is_placed_by_its_first_row() -> None:
    """Without a row by what ends it."""
    generations = Generations("s", ["a"], [], never_noted)
    generations.note_start(5)
    assert generations.reading == {"a"}
    generations.note_row(row(lsn=20, first=True), 6)
    assert generations.begin_emitting(9, 99, "later").lsn == 20

    empty = Generations("s", ["a"], [], never_noted)
    empty.note_start(5)
    assert empty.begin_emitting(9, 99, "later").lsn == 99


@pytest.mark.parametrize(
    ("asked", "offset", "expected"),
    [(None, 30, False), (10, 30, False), (11, 30, True), (30, 30, True), (31, 30, False)],
)
def test_another_snapshot_has_to_be_asked_for(asked: int | None, offset: int, *, expected: bool) -> None:
    """After the generation that began at 10, at or behind the end that the change log had when it was set up anew."""
    generations = Generations("s", ["a"], [Generation("a", 1, COMPLETE, 10, 1, "t")], lambda: asked)
    if expected:
        generations.note_start(offset)
        assert generations.number == 2
    else:
        with pytest.raises(StopError, match=r"SNAPSHOT_INTERRUPTED.*not set up anew"):
            generations.note_start(offset)


def test_a_snapshot_that_begins_anew_before_its_first_row_stops_the_source() -> None:
    """Its slot is older than what it reads."""
    generations = Generations("s", ["a"], [], never_noted)
    generations.note_start(5)
    with pytest.raises(StopError, match=r"SNAPSHOT_INTERRUPTED.*not finished"):
        generations.note_start(6)


def test_a_comparison_is_no_snapshot() -> None:
    """Events go on, rows are marked with its number, and where a snapshot is expected stays what it was."""
    generations = Generations("s", ["a", "b"], [Generation(name, 1, COMPLETE, 7, 1, "t") for name in "ab"], lambda: 9)
    assert generations.begin_comparing(["a"]) is None, "a snapshot is expected behind 9"

    generations = Generations("s", ["a", "b"], [Generation(name, 1, COMPLETE, 7, 1, "t") for name in "ab"], lambda: 5)
    assert generations.begin_comparing(["a"]) == 2
    assert (generations.comparing, generations.number, generations.reading) == (2, 2, frozenset())
    assert generations.begin_comparing(["b"]) == 3
    assert not generations.begin_applying(2)
    assert generations.begin_applying(3)
    generations.complete()
    changed = [(each.aggregate, each.number, each.status, each.started_offset) for each in generations.take_changed()]
    assert changed == [
        ("a", 2, COMPARING, 7),
        ("a", 2, CANCELLED, 7),
        ("b", 3, COMPARING, 7),
        ("b", 3, EMITTING, 7),
        ("b", 3, COMPLETE, 7),
    ]


def test_a_snapshot_ends_a_comparison() -> None:
    """What was read beside the log is older than the snapshot."""
    asked = [5]
    generations = Generations("s", ["a"], [Generation("a", 1, COMPLETE, 3, 1, "t")], lambda: asked[0])
    asked[0] = 2
    assert generations.begin_comparing(["a"]) == 2
    assert generations.begin_comparing(["unknown"]) is None
    asked[0] = 5
    generations.note_start(6)

    assert (generations.comparing, generations.number, generations.reading) == (0, 3, {"a"})
    assert generations.begin_comparing(["a"]) is None
