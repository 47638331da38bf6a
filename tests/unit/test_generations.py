"""When generations begin and end."""

from __future__ import annotations

import pytest

from rowcast.errors import StopError
from stream_app.core.change import Operation, RowChange
from stream_app.generation import COMPLETE, EMITTING, READING, Generation, Generations


def row(lsn: int = 10, *, first: bool = False) -> RowChange:
    return RowChange(Operation.READ, "public.a", None, {}, None, None, lsn, 5, first=first)


def test_a_snapshot_is_one_generation_of_all_types() -> None:
    """It begins with the first row, is read until the stream begins, and its events carry its LSN."""
    generations = Generations("s", ["a", "b"], [])
    generations.note_row(row(first=True), 3)
    generations.note_row(row(), 4)

    assert generations.reading == {"a", "b"}
    assert generations.begin_emitting(9, 99, "later").lsn == 10
    assert generations.reading == frozenset()
    generations.complete()
    assert [each.status for each in generations.take_changed()] == [READING] * 2 + [EMITTING] * 2 + [COMPLETE] * 2


def test_an_empty_database_has_an_empty_generation() -> None:
    """The first streamed transaction shows that the snapshot found nothing."""
    generations = Generations("s", ["a"], [])

    assert generations.ends_with_stream
    assert generations.begin_emitting(9, 99, "now").lsn == 99
    assert generations.number == 1


def test_a_type_that_was_declared_later_ends_no_generation_of_the_others() -> None:
    """Its changes wait for a snapshot of its own; nobody else's rows count as gone."""
    generations = Generations("s", ["a", "b"], [Generation("a", 1, COMPLETE, 0, 1, "t")])

    assert generations.reading == {"b"}
    assert not generations.ends_with_stream


@pytest.mark.parametrize("second", [row(first=True), row(lsn=20)])
def test_a_second_snapshot_inside_the_first_stops_the_source(second: RowChange) -> None:
    """It shows by its first row, or by another LSN where the first table is empty."""
    generations = Generations("s", ["a"], [])
    generations.note_row(row(first=True), 0)
    with pytest.raises(StopError, match="SNAPSHOT_INTERRUPTED"):
        generations.note_row(second, 1)


def test_an_abandoned_generation_is_followed_by_another() -> None:
    """After resnapshot the next first row begins a generation with a higher number."""
    generations = Generations("s", ["a"], [])
    generations.note_row(row(first=True), 0)
    generations.abandon()

    assert generations.reading == {"a"}
    generations.note_row(row(lsn=20, first=True), 7)
    assert generations.number == 2
