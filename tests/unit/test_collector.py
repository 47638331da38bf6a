"""The collector of cycles is called less often while a consumer runs, and as the application chose otherwise."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from rowcast.consumer.collector import ALLOCATIONS, collecting_seldom


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_the_threshold_is_raised_and_restored() -> None:
    """Also when the consumer ends with an error."""
    gc.set_threshold(700, 10, 10)
    during = []

    def fail() -> None:
        with collecting_seldom():
            during.append(gc.get_threshold())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert during == [(ALLOCATIONS, 10, 10)]
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("chosen", [0, ALLOCATIONS + 1])
def test_what_the_application_chose_stays(chosen: int) -> None:
    """Off, or seldomer than that."""
    gc.set_threshold(chosen, 5, 5)
    with collecting_seldom():
        assert gc.get_threshold() == (chosen, 5, 5)
    assert gc.get_threshold() == (chosen, 5, 5)
