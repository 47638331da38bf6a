"""
Regular expressions as sets of texts: is every text of one in another, and which text is not?

Only what the two validators read alike is understood: literals, classes, groups, alternatives, counts and the anchors.
Where they differ (``$`` before a last line feed, digits of other scripts) there are two flavours; a proof needs both.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from functools import lru_cache

ECMA, PYTHON = "ecma", "python"
FLAVOURS = (ECMA, PYTHON)
_STATES_MAX = 3000
_LAST = 0x10FFFF
_PUNCTUATION = set(string.punctuation)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_ECMA_CLASSES = {
    "d": ((48, 57),),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "s": (
        (9, 13),
        (32, 32),
        (0xA0, 0xA0),
        (0x1680, 0x1680),
        (0x2000, 0x200A),
        (0x2028, 0x2029),
        (0x202F, 0x202F),
        (0x205F, 0x205F),
        (0x3000, 0x3000),
        (0xFEFF, 0xFEFF),
    ),
}
# Surrogates are no characters of a JSON text; they stand in no class.
_SURROGATES = (0xD800, 0xDFFF)
Characters = tuple[tuple[int, int], ...]
_LINE_FEED: Characters = ((10, 10),)


class UnsupportedPatternError(ValueError):
    """The expression uses what is not understood here."""


@lru_cache
def _shorthand(letter: str, flavour: str) -> Characters:
    if flavour == ECMA:
        return _ECMA_CLASSES[letter]
    everything = "".join(map(chr, [*range(_SURROGATES[0]), *range(_SURROGATES[1] + 1, _LAST + 1)]))
    spans = (match.span() for match in re.finditer(rf"\{letter}+", everything))
    gap = _SURROGATES[1] - _SURROGATES[0] + 1
    shift = [
        (start + gap * (start >= _SURROGATES[0]), end - 1 + gap * (end - 1 >= _SURROGATES[0])) for start, end in spans
    ]
    return tuple(shift)


def complement(characters: Characters) -> Characters:
    """Every other character."""
    result, start = [], 0
    for low, high in sorted([*characters, _SURROGATES]):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        result.append((start, _LAST))
    return tuple(result)


@dataclass
class Automaton:
    """Nondeterministic; *empty* edges are ``(kind, target)`` with kind "", "start" or "end"."""

    flavour: str
    empty: list[list[tuple[str, int]]] = field(default_factory=list)
    steps: list[list[tuple[Characters, int]]] = field(default_factory=list)
    first: int = 0
    last: int = 0

    def state(self) -> int:
        """A new state."""
        if len(self.empty) >= _STATES_MAX:
            raise UnsupportedPatternError("too large")
        self.empty.append([])
        self.steps.append([])
        return len(self.empty) - 1

    def closure(self, states: set[tuple[int, str]], *, start: bool) -> frozenset[tuple[int, str]]:
        """
        What is reached without a character.

        A state carries what it has assumed of the rest: "" nothing, "end" that there is none, "feed" that it
        is one line feed.
        """
        found, todo = set(states), list(states)
        while todo:
            state, rest = todo.pop()
            for kind, target in self.empty[state]:
                if kind == "start" and not start:
                    continue
                rests = [rest]
                if kind == "end" and not rest:
                    rests = ["end", "feed"] if self.flavour == PYTHON else ["end"]
                for each in rests:
                    if (target, each) not in found:
                        found.add((target, each))
                        todo.append((target, each))
        return frozenset(found)

    def step(self, states: frozenset[tuple[int, str]], character: int) -> frozenset[tuple[int, str]]:
        """The states behind *character*."""
        reached = set()
        for state, rest in states:
            if rest == "end" or (rest == "feed" and character != 10):
                continue
            for characters, target in self.steps[state]:
                if any(low <= character <= high for low, high in characters):
                    reached.add((target, "end" if rest else ""))
        return self.closure(reached, start=False)

    def accepts(self, states: frozenset[tuple[int, str]]) -> bool:
        """Whether the text may end here."""
        return any(state == self.last and rest != "feed" for state, rest in states)


@lru_cache(maxsize=1024)
def automaton(pattern: str, flavour: str) -> Automaton | None:
    """The texts in which *pattern* is found; None when it is not understood."""
    try:
        return _Parser(pattern, flavour).automaton()
    except (UnsupportedPatternError, RecursionError):
        return None


class _Parser:
    def __init__(self, pattern: str, flavour: str) -> None:
        self.text, self.at, self.flavour = pattern, 0, flavour
        self.made = Automaton(flavour)

    def automaton(self) -> Automaton:
        made = self.made
        made.first, made.last = made.state(), made.state()
        for loop in (made.first, made.last):
            made.steps[loop].append((complement(()), loop))
        start, end = self._alternatives()
        if self.at < len(self.text):
            raise UnsupportedPatternError(self.text[self.at :])
        made.empty[made.first].append(("", start))
        made.empty[end].append(("", made.last))
        return made

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self) -> str:
        if self.at >= len(self.text):
            raise UnsupportedPatternError("ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _alternatives(self) -> tuple[int, int]:
        start, end = self.made.state(), self.made.state()
        while True:
            first, last = self._sequence()
            self.made.empty[start].append(("", first))
            self.made.empty[last].append(("", end))
            if self._peek() != "|":
                return start, end
            self._take()

    def _sequence(self) -> tuple[int, int]:
        start = end = self.made.state()
        while self._peek() and self._peek() not in "|)":
            begin = self.at
            first, last = self._atom()
            anchor = self.text[begin] in "^$"
            first, last = self._counted(begin, first, last, anchor=anchor)
            self.made.empty[end].append(("", first))
            end = last
        return start, end

    def _counted(self, begin: int, first: int, last: int, *, anchor: bool) -> tuple[int, int]:
        end = self.at
        low, high = self._count()
        if (low, high) == (1, 1) and self.at == end:
            return first, last
        if anchor or (self._peek() and self._peek() in "*+?{"):
            raise UnsupportedPatternError("count of an anchor or a count")
        after = self.at
        start = stop = self.made.state()
        copies = [(first, last)]
        for _copy in range((high if high is not None else low + 1) - 1):
            self.at = begin
            copies.append(self._atom())
        self.at = after
        exit_ = self.made.state()
        if high == 0:
            copies = []
        for index, (one, other) in enumerate(copies):
            if index >= low:
                self.made.empty[stop].append(("", exit_))
            self.made.empty[stop].append(("", one))
            stop = other
        if high is None:
            self.made.empty[stop].append(("", copies[-1][0]))
        self.made.empty[stop].append(("", exit_))
        return start, exit_

    def _count(self) -> tuple[int, int | None]:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        sign = self._peek()
        low: int
        high: int | None
        if sign in simple and sign:
            self._take()
            low, high = simple[sign]
        elif sign == "{":
            match = re.compile(r"\{([0-9]{1,4})(,([0-9]{1,4})?)?\}").match(self.text, self.at)
            if match is None:
                raise UnsupportedPatternError("count")
            self.at = match.end()
            low = int(match[1])
            high = low if not match[2] else int(match[3]) if match[3] else None
            if high is not None and high < low:
                raise UnsupportedPatternError("count")
        else:
            return 1, 1
        if self._peek() == "?":
            self._take()
        return low, high

    def _atom(self) -> tuple[int, int]:
        character = self._take()
        if character == "(":
            if self._peek() == "?":
                if self.text[self.at : self.at + 2] != "?:":
                    raise UnsupportedPatternError("group")
                self.at += 2
            inner = self._alternatives()
            if self._take() != ")":
                raise UnsupportedPatternError("group")
            return inner
        if character in "^$":
            start, end = self.made.state(), self.made.state()
            self.made.empty[start].append(("start" if character == "^" else "end", end))
            return start, end
        if character == "[":
            return self._one_of(self._class())
        if character == ".":
            return self._one_of(complement(_LINE_FEED))
        if character == "\\":
            return self._one_of(self._escape())
        if character in "*+?{}]":
            raise UnsupportedPatternError(character)
        return self._one_of(((ord(character), ord(character)),))

    def _one_of(self, characters: Characters) -> tuple[int, int]:
        start, end = self.made.state(), self.made.state()
        self.made.steps[start].append((characters, end))
        return start, end

    def _escape(self) -> Characters:
        letter = self._take()
        if letter.lower() in _ECMA_CLASSES:
            characters = _shorthand(letter.lower(), self.flavour)
            return characters if letter.islower() else complement(characters)
        if letter in _CONTROLS:
            code = ord(_CONTROLS[letter])
        elif letter in "xu":
            digits = self.text[self.at : self.at + (2 if letter == "x" else 4)]
            if not re.fullmatch("[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}", digits) or len(digits) != (2 if letter == "x" else 4):
                raise UnsupportedPatternError("escape")
            self.at += len(digits)
            code = int(digits, 16)
        elif letter in _PUNCTUATION:
            code = ord(letter)
        else:
            raise UnsupportedPatternError("escape")
        if _SURROGATES[0] <= code <= _SURROGATES[1]:
            raise UnsupportedPatternError("escape")
        return ((code, code),)

    def _class(self) -> Characters:
        negated = self._peek() == "^"
        if negated:
            self._take()
        ranges: list[tuple[int, int]] = []
        begin = self.at
        while self._peek() != "]" or self.at == begin:
            if self._peek() == "]":
                raise UnsupportedPatternError("class")
            low = self._member()
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in {"]", ""}:
                self._take()
                high = self._member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] < low[0][0]:
                    raise UnsupportedPatternError("range")
                ranges.append((low[0][0], high[0][1]))
            else:
                ranges.extend(low)
        self._take()
        return complement(tuple(ranges)) if negated else tuple(ranges)

    def _member(self) -> Characters:
        character = self._take()
        if character == "\\":
            return self._escape()
        # Sets within sets mean different things to different engines.
        if character == "[" or (character in "&|~-" and self._peek() == character):
            raise UnsupportedPatternError("class")
        return ((ord(character), ord(character)),)
