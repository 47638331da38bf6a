"""
The control database is lost, or goes back to an older copy, while the load goes on, and somebody brings it back.

From the new snapshot on everything is told again change by change. Of what was committed before it and not published
yet, only the last state of the rows is told; where the snapshot begins, the new slot of the connector tells.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg

from campaign.command import run_command
from campaign.errand import Errand
from campaign.errors import NoVerdictError
from campaign.oracle import Commit
from campaign.site import Site
from campaign.witness import SLOT
from examples.main_job.progress import tell

LOST, RECOVERED, OLDER, OLDER_LEFT = "lost", "lost, recovered", "older copy", "older copy, left alone"
_CODE = "CONTROL_DATABASE_BEHIND"
_PLACES = ("withdrawn", "fenced", "taken_over")
_COMMAND_S = 60.0
_GIVEN_UP_S = 120.0
_DIAL_S = 0.3
_LOOK_S = 0.02
_JOIN_S = 15.0
_SLOT = f"""
SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots
WHERE database = current_database() AND NOT starts_with(slot_name, '{SLOT}')
"""


class PlannedLoss(NamedTuple):
    """
    *kind* happens *at_s* seconds after the load began.

    A copy is made when it begins. The first rebuild dies at the failpoint *dies_at*, where there is one.
    """

    at_s: float
    kind: str
    dies_at: str

    @property
    def rebuilt(self) -> bool:
        """Whether somebody rebuilds the source; a worker goes on from an older copy by itself."""
        return self.kind != OLDER_LEFT


def plan_loss(rng: random.Random, kinds: Sequence[str]) -> PlannedLoss:
    """One of these *kinds*, at any time."""
    return PlannedLoss(rng.uniform(1.5, 3.0), rng.choice(kinds), rng.choice(["", "", *_PLACES]))


class ControlLoss(Errand):
    """
    Carries out what is *planned* at *site*, if anything.

    *snapshot_lsn*: what was committed before is in the new snapshot, what came later in the change log. *restored_at*:
    since then (Unix time) the worker goes on from an older copy.
    """

    def __init__(self, planned: PlannedLoss | None, site: Site, ending: threading.Event) -> None:
        super().__init__(ending, _JOIN_S)
        self.planned, self._site = planned, site
        self.snapshot_lsn: int | None = None
        self.restored_at: float | None = None
        self.under_way = False

    def _run(self) -> None:
        try:
            if self.planned is not None:
                self._lose(self.planned)
        finally:
            self.under_way = False

    def _lose(self, planned: PlannedLoss) -> None:
        older = planned.kind in (OLDER, OLDER_LEFT)
        if older:
            self._insist(self._site.copy_control)
        if self._ending.wait(planned.at_s):
            return
        self.under_way = planned.rebuilt
        self._insist(self._site.restore_control if older else self._site.lose_control)
        self.restored_at = time.time() if older else None
        tell(f"  control database: {planned.kind}")
        if planned.rebuilt:
            self._bring_back(planned)

    def _bring_back(self, planned: PlannedLoss) -> None:
        """Rebuild until that is said to be done, and wait until the new snapshot has begun."""
        command = ["sources", "rebuild", self._site.name, "--yes"]
        if planned.kind == RECOVERED:
            self._until(lambda: self._says(["sources", "apply", self._site.name]))
            # Its worker stops the source as soon as it looks.
            command = ["sources", "recover", self._site.name, "--code", _CODE, "--yes"]
        failpoints = [f"rebuild.{planned.dies_at}=kill"] if planned.dies_at else []
        with _new_slot(self._site.source_url) as slot:
            self._until(lambda: self._says(command, failpoints.pop() if failpoints else ""))
            self._until(lambda: slot.begins is not None)
            self.snapshot_lsn = slot.begins
        tell(f"  {self._site.name}: rebuilt")

    def _says(self, command: Sequence[str], failpoints: str = "") -> bool:
        return run_command(self._site, command, _COMMAND_S, failpoints)[0] == 0

    def _insist(self, action: Callable[[], object]) -> None:
        """Do *action* as soon as the server can be reached: another fault may have it."""

        def done() -> bool:
            with suppress(psycopg.OperationalError):
                action()
                return True
            return False

        self._until(done)

    def _until(self, done: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + _GIVEN_UP_S
        while not done():
            if self._ending.wait(_DIAL_S):
                raise NoVerdictError("the round was given up")
            if time.monotonic() > deadline_s:
                raise NoVerdictError(f"the control database is not brought back: {self._site.folder}/commands.log")


class _NewSlot:
    """*begins*: the first LSN of the connector's slot, None until one was made after the former one was dropped."""

    def __init__(self) -> None:
        self.begins: int | None = None
        self._gone = False

    def look(self, connection: psycopg.Connection[Any]) -> None:
        """See what there is."""
        row = connection.execute(_SLOT.encode()).fetchone()
        if row is None:
            self._gone, self.begins = True, None
        elif self._gone and self.begins is None and row[0] is not None:
            self.begins = int(row[0])


@contextmanager
def _new_slot(url: str) -> Iterator[_NewSlot]:
    """Look at the slots of the source at *url* again and again."""
    slot, ending = _NewSlot(), threading.Event()

    def watch() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not ending.wait(_LOOK_S):
                slot.look(connection)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield slot
    finally:
        ending.set()
        thread.join(_JOIN_S)


def as_told(commits: Sequence[Commit], told_lsn: int, snapshot_lsn: int) -> list[Commit]:
    """*commits* as a snapshot tells them: those behind *told_lsn*, up to the snapshot, are one, which nobody saw."""
    between = [each for each in commits if told_lsn < each.lsn <= snapshot_lsn]
    if not between:
        return list(commits)
    changes = [change for each in between for change in each.changes]
    read = Commit(0, snapshot_lsn, max(each.acked_at for each in between), changes, hidden=True)
    place = commits.index(between[0])
    return [*commits[:place], read, *commits[place + len(between) :]]
