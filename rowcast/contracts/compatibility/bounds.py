"""The bounds of a cell's numbers, lengths and counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rowcast.contracts.compatibility.cell import Cell
from rowcast.contracts.compatibility.text_set import TextSet


@dataclass(frozen=True)
class Interval:
    """Numbers between two bounds, each with whether it is itself left out; None: no bound."""

    low: Any = None
    high: Any = None
    low_out: bool = False
    high_out: bool = False

    def is_empty(self) -> bool:
        """Whether no number is in it."""
        if self.low is None or self.high is None:
            return False
        return bool(self.low > self.high or (self.low == self.high and (self.low_out or self.high_out)))

    def within_low(self, bound: Any, *, out: bool) -> bool:
        """Whether all of it is at or above *bound*, or above when *out*."""
        return self.low is not None and bool(self.low > bound or (self.low == bound and (self.low_out or not out)))

    def within_high(self, bound: Any, *, out: bool) -> bool:
        """Whether all of it is at or below *bound*, or below when *out*."""
        return self.high is not None and bool(self.high < bound or (self.high == bound and (self.high_out or not out)))

    def apart(self, other: Interval) -> bool:
        """Whether no number is in both."""
        return Interval(self.low, other.high, self.low_out, other.high_out).is_empty() or (
            Interval(other.low, self.high, other.low_out, self.high_out).is_empty()
        )


def interval(cell: Cell) -> Interval:
    """The numbers of *cell*, as its bounds say; integers get integers for bounds."""
    lows = [(bound, False) for bound in cell.having("minimum")] + [
        (bound, True) for bound in cell.having("exclusiveMinimum")
    ]
    highs = [(bound, True) for bound in cell.having("maximum")] + [
        (bound, False) for bound in cell.having("exclusiveMaximum")
    ]
    low, low_out = max(lows, default=(None, False))
    high, high_in = min(highs, default=(None, True))
    if cell.integer:
        low = None if low is None else math.floor(low) + 1 if low_out else math.ceil(low)
        high = None if high is None else math.floor(high) if high_in else math.ceil(high) - 1
        for factor in cell.having("multipleOf"):
            if isinstance(factor, int):
                low = None if low is None else -(-low // factor) * factor
                high = None if high is None else high // factor * factor
        return Interval(low, high)
    return Interval(low, high, low_out, not high_in)


def texts(cell: Cell, without: str | None = None) -> TextSet:
    """The texts of *cell*, as patterns and lengths say."""
    patterns = tuple(dict.fromkeys(cell.having("pattern")))
    return TextSet(patterns, cell.least("minLength") or 0, cell.most("maxLength"), without)


def property_counts(cell: Cell) -> tuple[int, int | None]:
    """The least and the largest number of properties."""
    least = max(cell.least("minProperties") or 0, len(cell.required))
    names = None if cell.declared is None else len(cell.declared)
    return least, min((each for each in (cell.most("maxProperties"), names) if each is not None), default=None)


def item_counts(cell: Cell) -> tuple[int, int | None]:
    """The least and the largest number of elements."""
    return cell.least("minItems") or 0, cell.items_max
