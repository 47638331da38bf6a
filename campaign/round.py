"""One round: a fresh pipeline under random load and faults, and the judgement on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.conclusion import conclude, figures
from campaign.control_loss import ControlLoss
from campaign.errors import NoVerdictError
from campaign.evidence import Evidence
from campaign.faults import Fault, describe
from campaign.finding import Checker, Findings
from campaign.judgement import judge
from campaign.load import PAUSE_S
from campaign.observation import domain_records
from campaign.oracle import Oracle
from campaign.preparation import Prepared, prepare
from campaign.rereading import Rereading
from campaign.round_plan import RoundPlan
from campaign.rows import RowChange
from campaign.site import Site
from campaign.stand import Stand
from campaign.stopwatch import Stopwatch
from examples.main_job.progress import tell

EVENTS_MIN, FAULTS_MIN = 3_000, 2
_EVENTS = EVENTS_MIN + 30
_LOAD_S = 300.0
_MISCOUNTED = 150  # around the snapshot of a rebuild
_AFTER_S = 1.5
# A worker with small limits works through less than clients without a pause would commit. They make none where Connect
# is to die in the middle of a transaction.
_LIMITED_S = 0.05
_SLOW_S = 0.2
_SLOWER_S = 2.0


@dataclass
class RoundResult:
    """What came of a round; *void* says why it does not count, None where it does, *last_words* are the logs'."""

    seed: int
    findings: Findings
    void: str | None
    seconds: float
    figures: dict[str, Any]
    faults: list[dict[str, Any]] = field(default_factory=list)
    last_words: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``findings``, ``void`` or ``clean``."""
        if self.findings.found:
            return "findings"
        return "void" if self.void else "clean"


class Round:
    """
    The round of *plan* on *stand*, with its files below *folder*: `prepare`, `drive`, `conclude`, in this order.

    `drive` needs the stand for itself; the other two are patient with each other. After an error in any of them, and in
    the end, nothing is left of it in the stand.
    """

    def __init__(self, plan: RoundPlan, stand: Stand, folder: Path) -> None:
        self.plan, self._stand, self._folder = plan, stand, folder
        self._open = ExitStack()
        self._given_up = threading.Event()
        self._clock = Stopwatch()
        self._round: Prepared | None = None

    def prepare(self) -> None:
        """
        Up to the moment at which the load may begin.

        Raises:
            NoVerdictError: something that is not of the pipeline broke, as with the others.

        """
        with self._clock.part("stack"):
            # A part that a broken round has left dead comes first: Connect would not start without it.
            self._stand.up()
            self._stand.deliver_exactly_once(wanted=self.plan.exactly_once)
        with self._clock.part("databases"):
            site = Site.create(self._folder, self._stand, self.plan.types)
        self._open.callback(self._drop, site)
        with self._dropped_on_error():
            self._round = prepare(self.plan, self._stand, site, self._clock, (self._open, self._given_up))

    def drive(self) -> None:
        """Load and faults, until all is over and enough was committed."""
        with self._dropped_on_error(), self._clock.part("load"):
            if self._prepared.ready:
                _drive(self._prepared)

    def conclude(self) -> RoundResult:
        """Wait until everything has arrived, judge it, and leave the files of a round with findings, nothing else."""
        with self._dropped_on_error():
            result = self._judge()
        self.drop()
        result.figures["parts_s"] = {name: round(seconds, 1) for name, seconds in self._clock.parts_s.items()}
        if result.verdict != "findings":
            self._prepared.site.forget()
        return result

    def give_up(self) -> None:
        """Whatever it waits for, it does no more; for another thread."""
        self._given_up.set()

    def __str__(self) -> str:
        """Where it stands."""
        waited_for = [f"fault: {each.plan}" for each in self._round.carried if not each.over] if self._round else []
        return f"seed {self.plan.seed} ({self.plan.theme}): {', '.join([str(self._clock), *waited_for])}"

    def drop(self) -> None:
        """Leave nothing of it in the stand; the files stay."""
        self._open.close()

    @property
    def _prepared(self) -> Prepared:
        assert self._round is not None, "`prepare` is the first"
        return self._round

    @contextmanager
    def _dropped_on_error(self) -> Iterator[None]:
        """Where what is inside breaks, nothing stays in the stand; after an interruption, no file either."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception):
                self.give_up()
            try:
                self.drop()
            except Exception as left:  # noqa: BLE001 - a server that is down must not hide why
                tell(f"seed {self.plan.seed}: something of it is left in the stack: {left}")
            raise

    def _drop(self, site: Site) -> None:
        with self._clock.part("drop"):
            site.drop()
        if self._given_up.is_set():
            site.forget()

    def _judge(self) -> RoundResult:
        round_ = self._prepared
        evidence = conclude(round_)
        with self._clock.part("judge"):
            findings = judge(evidence)
        roles = [role for each in round_.roles.values() for role in each]
        for role in roles:
            if role.ended:
                findings.add(Checker.STOPPED, None, f"{role.name} ended by itself")
        return RoundResult(
            seed=self.plan.seed,
            findings=findings,
            void=_void_reason(evidence, round_.carried),
            seconds=0.0,
            figures=figures(round_, evidence),
            faults=[describe(each) for each in round_.carried],
            last_words=[line for role in roles for line in role.last_words()],
        )


def _drive(round_: Prepared) -> None:
    load, rereading, loss, carried = round_.load, round_.rereading, round_.loss, round_.carried
    threads = [threading.Thread(target=round_.faults.carry_out, args=(each,), daemon=True) for each in carried]
    oracle, seen = Oracle(round_.plan.types), set[int]()
    oracle.change([RowChange(name, None, row) for (name, _), row in round_.initial.items()], None)

    untold: int | None = None

    def count() -> int:
        """About how many events there will be: clients hear of commits in another order than that of the WAL."""
        nonlocal untold
        for xid, attempt in load.journal.committed().items():
            if xid not in seen:
                seen.add(xid)
                oracle.change(attempt.changes, xid)
        if untold is None and loss.over:
            # What a snapshot told instead, and what is still on its way.
            untold = 0
            if loss.snapshot_lsn is not None:
                there = len(domain_records(round_.site.brokers, round_.site.topics))
                untold = oracle.count - there + _MISCOUNTED
        return oracle.count - (untold or 0)

    pause_s = load.pause_s = _LIMITED_S if round_.plan.limits and round_.plan.exactly_once else PAUSE_S
    began_s, parts_s = time.monotonic(), round_.clock.parts_s
    load.start()
    rereading.start()
    loss.start()
    for thread in threads:
        thread.start()

    def done() -> bool:
        load.check()
        _check_faults(carried, rereading, loss)
        enough = count() >= _EVENTS
        hit = all(each.over for each in carried)
        now_s = time.monotonic() - began_s
        if enough:
            parts_s.setdefault("of it until enough", now_s)
        # What somebody did who came back late shows in what follows.
        past = hit and now_s - parts_s.setdefault("of it until the faults were over", now_s) > _AFTER_S
        # Somebody may be waiting until a worker that is slow has caught up, or a snapshot tells what was committed.
        quiet_s = _SLOWER_S if past else pause_s if hit else _SLOW_S
        load.pause_s = quiet_s if enough else _SLOW_S if loss.under_way else pause_s
        return enough and past and rereading.over and loss.over

    if not round_.wait(done, _LOAD_S):
        raise NoVerdictError(f"after {_LOAD_S:.0f} s of load: {oracle.count} events, {carried}")
    _check_faults(carried, rereading, loss)
    load.finish()


def _check_faults(carried: Sequence[Fault], rereading: Rereading, loss: ControlLoss) -> None:
    """See that everything could be done that was planned."""
    for each in carried:
        if each.error is not None:
            raise NoVerdictError(f"{each.plan}: {each.error!r}") from each.error
    if rereading.error is not None:
        raise NoVerdictError(f"reading again: {rereading.error!r}") from rereading.error
    if loss.error is not None:
        raise NoVerdictError(f"control database: {loss.error!r}") from loss.error


def _void_reason(evidence: Evidence, carried: Sequence[Fault]) -> str | None:
    if len(evidence.records) < EVENTS_MIN:
        return f"{len(evidence.records)} events, and a round has at least {EVENTS_MIN}"
    hit = sum(each.hit_at is not None and each.in_flight > 0 and each.plan.kind != "slow" for each in carried)
    if carried and hit < FAULTS_MIN:
        return f"{hit} faults hit while transactions were in flight, and a round has at least {FAULTS_MIN}"
    return None
