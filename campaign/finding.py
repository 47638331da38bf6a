"""Findings: what is wrong, and which checker says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from campaign.oracle import Key


class Checker(StrEnum):
    """What is checked; `docs/reference/campaign.md` defines each."""

    LOST = "lost"
    PHANTOM = "phantom"
    DOUBLE_EFFECT = "double_effect"
    HOLE = "hole"
    INVERSION = "inversion"
    TWO_CONTENTS = "two_contents"
    REPEATED = "repeated"
    LAST_RECORD = "last_record"
    FORMER = "former"
    MIRROR = "mirror"
    PROGRESS = "progress"
    STALE = "stale"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, of the aggregate *key* where it is about one."""

    checker: Checker
    key: Key | None
    text: str

    def __str__(self) -> str:
        subject = "" if self.key is None else f" {self.key[0]} {self.key[1]!r}:"
        return f"{self.checker}:{subject} {self.text}"


@dataclass(slots=True)
class Findings:
    """All of them, in the order in which they were found."""

    found: list[Finding] = field(default_factory=list)

    def add(self, checker: Checker, key: Key | None, text: str) -> None:
        """Note one."""
        self.found.append(Finding(checker, key, text))

    def counts(self) -> dict[str, int]:
        """How many each checker has, zeros included."""
        counted = Counter(each.checker for each in self.found)
        return {str(checker): counted[checker] for checker in Checker}
