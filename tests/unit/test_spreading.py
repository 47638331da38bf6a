"""How sources that are free spread over the workers."""

from __future__ import annotations

import pytest

from stream_app.supervisor import TICK_S, due


def ticks_until_claimed(sources: int, owned: list[int]) -> tuple[int, list[int]]:
    """
    How many ticks pass until workers that own *owned* sources have claimed *sources* that became free; what they own.

    They take turns, and each sees at once what another has claimed.
    """
    free, owned = [f"s{number}" for number in range(sources)], list(owned)
    for tick in range(1_000):
        for worker, others in enumerate(owned):
            claimed = due(dict.fromkeys(free, tick * TICK_S), others)
            owned[worker] += len(claimed)
            free = [each for each in free if each not in claimed]
        if not free:
            return tick, owned
    raise AssertionError(f"{len(free)} are left")


def test_few_sources_go_one_after_another_to_who_owns_least() -> None:
    """Three new sources on two workers: both work."""
    _, owned = ticks_until_claimed(3, [0, 0])
    assert sorted(owned) == [1, 2]
    assert ticks_until_claimed(1, [2, 0])[1] == [2, 1]
    assert ticks_until_claimed(2, [1, 1])[1] == [2, 2]


@pytest.mark.parametrize(("sources", "owned"), [(30, [30]), (60, [0]), (100, [3]), (50, [50, 50])])
def test_any_number_of_sources_is_claimed_within_seconds(sources: int, owned: list[int]) -> None:
    """A worker died that had many: with the lease that has to run out first, it takes less than 30 seconds."""
    ticks, _ = ticks_until_claimed(sources, owned)
    assert ticks <= 20


def test_many_sources_spread() -> None:
    """Two workers that start together share sixty sources, neither with less than a third."""
    _, owned = ticks_until_claimed(60, [0, 0])
    assert sum(owned) == 60
    assert min(owned) >= 20


def test_a_worker_without_sources_takes_what_it_has_just_seen() -> None:
    """Nobody waits for a worker that may not be there."""
    assert due({"one": 0.0}, 0) == ["one"]
    assert due({"one": 0.0}, 1) == []
    assert due({}, 0) == []
