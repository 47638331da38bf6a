"""
The course of one measurement, seen from outside: at which moment which offsets had been reached. Pure.

All moments are of CLOCK_MONOTONIC, one clock for all processes of a machine.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.errors import MeasureError

Place = tuple[str, int]
Offsets = Mapping[Place, int]


@dataclass(frozen=True, slots=True)
class Timing:
    """*counted* records were passed in *seconds*, between two moments at which offsets were seen."""

    counted: int
    seconds: float
    began_s: float
    ended_s: float

    @property
    def per_s(self) -> float:
        """Records a second."""
        return self.counted / self.seconds


@dataclass(slots=True)
class Course:
    """What was seen since *began_s*: (moment, next offset of each topic and partition), in order."""

    began_s: float
    seen: list[tuple[float, Offsets]] = field(default_factory=list)

    def note(self, at_s: float, offsets: Offsets) -> None:
        """Everything before *offsets* was done at *at_s*."""
        if not self.seen or self.seen[-1][1] != offsets:
            self.seen.append((at_s, dict(offsets)))

    def timing(self, records: Mapping[Place, Sequence[int]], ends: Offsets) -> Timing:
        """
        How long *records* (sorted offsets by place) took until all of *ends* were passed.

        The clock starts at the first moment at which one of them was done, and counts those that were not: starting
        up and filling the first batch are not part of it. Where that leaves less than half of them, the clock starts
        with the course itself and counts all.

        Raises:
            MeasureError: the ends were not reached.

        """
        total = sum(map(len, records.values()))
        ended_s = next((at_s for at_s, offsets in self.seen if _passed(offsets, ends)), None)
        if ended_s is None or not total:
            raise MeasureError("the last record was not reached")
        for at_s, offsets in self.seen:
            done = sum(bisect_left(each, offsets.get(place, 0)) for place, each in records.items())
            if done:
                if 2 * done <= total:
                    return Timing(total - done, ended_s - at_s, at_s, ended_s)
                break
        return Timing(total, ended_s - self.began_s, self.began_s, ended_s)


def _passed(offsets: Offsets, ends: Offsets) -> bool:
    return all(offsets.get(place, 0) >= end for place, end in ends.items())
