"""
Somebody has rows read or sent again while the load goes on: `rowcast sources resync`, from the database and from state.

Before rows are read again, hidden ones change, so that there is something to be found.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg

from campaign.command import run_command
from campaign.errand import Errand
from campaign.hiding import Hiding
from campaign.site import Site
from examples.main_job.progress import tell

DATABASE, STATE = "database", "state"
_DONE = {DATABASE: " rows differed, ", STATE: ": sent again"}
_ANSWER_S = 15
_GIVEN_UP_S = 90.0
_DIAL_S = 0.3


class PlannedReread(NamedTuple):
    """
    A command *at_s* seconds after the one before it, or after the load began, about rows of *origin*.

    Those of one *aggregate* type, or of all (empty). The first process of a command that *dies_after_s* is killed.
    """

    at_s: float
    origin: str
    aggregate: str
    dies_after_s: float | None


def plan_rereads(rng: random.Random, types: Sequence[str], *, wanted: bool) -> tuple[PlannedReread, ...]:
    """Where they are *wanted*, and in one of three other rounds: rows are read again, mostly twice, or sent again."""
    if not wanted and rng.random() < 0.67:
        return ()
    origins = [DATABASE, DATABASE, STATE] if wanted else rng.choice([[DATABASE], [DATABASE, STATE], [STATE]])
    rng.shuffle(origins)
    return tuple(
        PlannedReread(
            at_s=rng.uniform(0.2, 2.0),
            origin=origin,
            aggregate=rng.choice(types) if origin == STATE else "",
            dies_after_s=rng.uniform(0.5, 2.0) if rng.random() < 0.25 else None,
        )
        for origin in origins
    )


class Rereading(Errand):
    """Carries out what is *planned* at *site*; *asked* counts how often each type was to be sent again."""

    def __init__(self, planned: Sequence[PlannedReread], site: Site, hiding: Hiding, ending: threading.Event) -> None:
        super().__init__(ending, _ANSWER_S)
        self._planned, self._site, self._hiding = planned, site, hiding
        self.asked = Counter[str]()
        self.done = 0

    def _run(self) -> None:
        for each in self._planned:
            if self._ending.wait(each.at_s):
                return
            if each.origin == DATABASE and not self._until(self._hide):
                return
            if not self._until(_Command(each, self._site, self._ending, self.asked).run):
                return  # what is hidden must not change again before it was read
            self.done += 1

    def _hide(self) -> bool:
        with suppress(psycopg.OperationalError):
            return self._hiding.hide(self._ending)
        return False

    def _until(self, action: Callable[[], bool]) -> bool:
        """Do *action* until it succeeds; whoever is asked may be away."""
        deadline_s = time.monotonic() + _GIVEN_UP_S
        while not action():
            if time.monotonic() > deadline_s or self._ending.wait(_DIAL_S):
                return False
        return True


class _Command:
    def __init__(self, planned: PlannedReread, site: Site, ending: threading.Event, asked: Counter[str]) -> None:
        self._planned, self._ending, self._asked = planned, ending, asked
        self._site, self._dies_after_s = site, planned.dies_after_s
        options = ["--from", planned.origin, "--timeout", str(_ANSWER_S)]
        options += ["--aggregate", planned.aggregate] if planned.aggregate else []
        self._arguments = ["sources", "resync", site.name, *options]

    def run(self) -> bool:
        """Whether it says that it is done."""
        if self._planned.origin == STATE:
            self._asked[self._planned.aggregate] += 1
        dies_after_s, self._dies_after_s = self._dies_after_s, None
        _, said = run_command(self._site, self._arguments, dies_after_s or 4 * _ANSWER_S)
        done = _DONE[self._planned.origin] in said
        if done:
            tell(f"  {said.strip().splitlines()[0]}")
        return done
