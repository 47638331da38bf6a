"""Texts that match some patterns, keep a length and do not match another pattern: are there any, and which?"""

from __future__ import annotations

import string
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from rowcast.contracts.compatibility.pattern import ECMA, FLAVOURS, Automaton, automaton

_STATES_MAX = 4000
_SAMPLES_MAX = 16
_LIKED = [ord(each) for each in string.ascii_lowercase + string.digits + string.ascii_uppercase + "-_. é"]
_State = tuple[tuple[frozenset[tuple[int, str]], ...], int]


@dataclass(frozen=True)
class TextSet:
    """Texts of *low* to *high* code points that match every one of *patterns*, and not *without*."""

    patterns: tuple[str, ...] = ()
    low: int = 0
    high: int | None = None
    without: str | None = None

    def is_empty(self) -> bool:
        """True when there is surely no such text, whichever validator looks."""
        if self.high is not None and self.low > self.high:
            return True
        return _is_empty(self)

    def samples(self) -> Iterator[str]:
        """Some such texts, short ones first; none when the patterns are not understood."""
        yield from _samples(self)

    def search(self, flavour: str) -> _Search:
        """The search for such texts as the validators of *flavour* see them."""
        machines = [automaton(pattern, flavour) for pattern in self.patterns]
        without = None if self.without is None else automaton(self.without, flavour)
        known = [machine for machine in machines if machine]
        sound = len(known) == len(machines) and (without is None) == (self.without is None)
        return _Search(
            known, without, self.low, self.high, sound=sound, known=without is not None or self.without is None
        )


@lru_cache(maxsize=4096)
def _is_empty(texts: TextSet) -> bool:
    return all(texts.search(flavour).is_empty() for flavour in FLAVOURS)


@lru_cache(maxsize=4096)
def _samples(texts: TextSet) -> tuple[str, ...]:
    return tuple(dict.fromkeys(islice(texts.search(ECMA).samples(), _SAMPLES_MAX)))


class _Search:
    """
    Breadth first over the product of the automata.

    *sound*: a text that is found is one; *known*: leaving out patterns that are not understood only adds texts, so
    that finding none proves that there is none, unless *without* is among them.
    """

    def __init__(
        self,
        machines: list[Automaton],
        without: Automaton | None,
        low: int,
        high: int | None,
        *,
        sound: bool,
        known: bool,
    ) -> None:
        self.machines, self.without, self.low, self.high = machines, without, low, high
        self.sound, self.known, self.whole = sound, known, True
        self.cap = low if high is None else high
        self.characters = _Classes([*machines, without] if without else machines)

    def is_empty(self) -> bool:
        if not self.known or self.cap > _STATES_MAX:
            return False
        found = next(self._paths(), None)
        return found is None and self.whole

    def samples(self) -> Iterator[str]:
        if not self.sound or self.cap > _STATES_MAX:
            return
        for path in self._paths():
            yield from dict.fromkeys(self.characters.spelled(path, turn) for turn in range(3))

    def _start(self) -> _State:
        machines = [*self.machines, self.without] if self.without else self.machines
        return tuple(each.closure({(each.first, "")}, start=True) for each in machines), 0

    def _accepts(self, state: _State) -> bool:
        states, length = state
        if length < self.low:
            return False
        wanted = all(each.accepts(at) for each, at in zip(self.machines, states, strict=False))
        return wanted and not (self.without and self.without.accepts(states[-1]))

    def _paths(self) -> Iterator[tuple[int, ...]]:
        start = self._start()
        empty: tuple[int, ...] = ()
        seen, todo = {start}, deque([(start, empty)])
        while todo:
            state, path = todo.popleft()
            if self._accepts(state):
                yield path
            if self.high is not None and state[1] >= self.high:
                continue
            for index, character in enumerate(self.characters.representatives):
                behind = self._behind(state, character)
                if behind is None or behind in seen:
                    continue
                if len(seen) >= _STATES_MAX:
                    self.whole = False
                    return
                seen.add(behind)
                todo.append((behind, (*path, index)))

    def _behind(self, state: _State, character: int) -> _State | None:
        states, length = state
        machines = [*self.machines, self.without] if self.without else self.machines
        reached = tuple(each.step(at, character) for each, at in zip(machines, states, strict=True))
        if not all(reached[: len(self.machines)]):
            return None
        # Lengths beyond the smallest wanted one need not be told apart when there is no largest.
        return reached, min(length + 1, self.cap) if self.high is None else length + 1


class _Classes:
    """Characters that no automaton tells apart, with one to stand for each class."""

    def __init__(self, machines: Sequence[Automaton]) -> None:
        sets = {characters for each in machines for edges in each.steps for characters, _target in edges}
        cuts = sorted(
            {0, 10, 11, 0xD800, 0xE000} | {cut for each in sets for low, high in each for cut in (low, high + 1)}
        )
        ends = [*cuts[1:], 0x110000]
        flat = [[number for low, high in sorted(each) for number in (low, high + 1)] for each in sets]
        classes: dict[tuple[bool, ...], list[tuple[int, int]]] = {}
        for low, end in zip(cuts, ends, strict=True):
            if low <= 0x10FFFF and not 0xD800 <= low <= 0xDFFF:
                inside = (low == 10, *(_contains(each, low) for each in flat))
                classes.setdefault(inside, []).append((low, end - 1))
        self._choices = [_liked(spans) or list(range(spans[0][0], spans[0][1] + 1)[:3]) for spans in classes.values()]
        self.representatives = [choices[0] for choices in self._choices]

    def spelled(self, path: tuple[int, ...], turn: int) -> str:
        """The text of a path; another *turn* chooses other characters."""
        choices = (self._choices[index] for index in path)
        return "".join(chr(each[turn * (at + 1) % len(each)]) for at, each in enumerate(choices))


def _liked(spans: list[tuple[int, int]]) -> list[int]:
    return [each for each in _LIKED if any(low <= each <= high for low, high in spans)]


def _contains(flat: list[int], character: int) -> bool:
    # Overlapping ranges of one class are sorted by start; those of ours do not overlap unless written so.
    if any(flat[i + 1] > flat[i + 2] for i in range(0, len(flat) - 2, 2)):
        return any(flat[i] <= character < flat[i + 1] for i in range(0, len(flat), 2))
    return bisect_right(flat, character) % 2 == 1
