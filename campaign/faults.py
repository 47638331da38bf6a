"""
Faults: how each hits, how long it lasts, and how it is mended.

A plan of faults follows from a seed alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
import requests

from benchmarks.local_web import call
from campaign import roads
from campaign.control_loss import LOST, OLDER, OLDER_LEFT, RECOVERED
from campaign.errors import NoVerdictError
from campaign.log_end import LogEnd
from campaign.process import Role, is_frozen, thaw
from campaign.site import Site
from campaign.stand import CONNECT, CONTROL, KAFKA, SOURCE, Stand
from examples.main_job.progress import tell
from rowcast.errors import RowcastError
from rowcast.topics import change_log_topic

WORKER, STANDBY, CONSUMER = "worker", "standby worker", "consumer"
_SEQUENCER_PLACES = (
    "before_publish",
    "in_publish",
    "after_publish",
    "in_commit",
    "after_commit",
)
# Mostly where effects, marks and offsets stand side by side and are not committed.
_CONSUMER_PLACES = ("before_transaction", "after_lock", "in_commit", "in_commit", "in_commit", "after_commit")
_FROM_START = ("failpoint", "slow")
_OF_THE_SNAPSHOT = (SOURCE, CONNECT, KAFKA, roads.CONNECT_SOURCE, roads.CONNECT_KAFKA, "restart", "stop")
_WITHIN = "within a transaction"
_LONGEST_AWAY_S = 2.0
# A standby first has to take over.
_REACHED_WITHIN_S = {WORKER: 8.0, CONSUMER: 8.0, STANDBY: 28.0}
_RUNS_WITHIN_S = 10.0
_LOOK_S = 0.05
_INSIST_S = 60.0
# A worker's lease, and the time after which a consumer's group or its database gives up on it, with some to spare.
_TAKEN_OVER_S = {WORKER: 9.0, STANDBY: 9.0, CONSUMER: 6.0, CONNECT: 99.0, KAFKA: 99.0}
# The promise is for faults of up to two minutes; a round is to last half a minute.
_FROZEN_S = {WORKER: 12.0, CONSUMER: 8.0, CONNECT: 6.0, KAFKA: 5.0}


class PlannedFault(NamedTuple):
    """A fault *at_s* seconds after the load began: *kind* on *target*, for *lasts_s*; *detail* says where exactly."""

    at_s: float
    kind: str
    target: str
    lasts_s: float
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.target}{self.detail and ' ' + self.detail}"


class Theme(NamedTuple):
    """
    What the first faults of a round are, so that rare ones come in every few rounds; the others are any.

    Some need a worker with *small* limits, that rows are *reread*, or a consumer whose handlers are *failing*. Of its
    *losses* one of these befalls the control database besides.
    """

    name: str
    exactly_once: bool
    first: Callable[[random.Random, float], list[PlannedFault]]
    small: bool = False
    reread: bool = False
    failing: bool = False
    losses: tuple[str, ...] = ()


def plan_faults(rng: random.Random, theme: Theme) -> list[PlannedFault]:
    """Two faults, sometimes more, that may overlap; the first are those of the *theme*."""
    at_s = rng.uniform(0.3, 1.5)
    planned = theme.first(rng, at_s)
    for _ in range(rng.choice([1, 1, 2])):
        at_s += rng.choice([rng.uniform(0.0, 0.5), rng.uniform(0.5, 4.0)])
        fault = _any(rng, at_s)
        # A process has its failpoints from its start, so the first of a role is the only one.
        # A snapshot that breaks off stops the source, and one follows where its control database is lost.
        while any(_in_each_others_way(fault, each) for each in planned) or (
            theme.losses and fault.target in _OF_THE_SNAPSHOT
        ):
            fault = _any(rng, at_s)
        planned.append(fault)
    return planned


def _in_each_others_way(one: PlannedFault, other: PlannedFault) -> bool:
    return one.target == other.target and {one.kind, other.kind} <= {"failpoint", "slow", "leave"}


def needs_standby(fault: PlannedFault) -> bool:
    """Whether another instance has to take over, or may from a process that comes back."""
    return fault.kind == "leave" or outlives_lease(fault)


def outlives_lease(fault: PlannedFault) -> bool:
    """Whether another instance may take over from a process that comes back."""
    return fault.kind in ("freeze", "failpoint") and fault.lasts_s > _TAKEN_OVER_S[fault.target]


def _any(rng: random.Random, at_s: float) -> PlannedFault:
    return rng.choice([_kill, _kill, _failpoint, _freeze, _road, _connector, _operator])(rng, at_s)


def _takeovers(rng: random.Random, at_s: float) -> list[PlannedFault]:
    """And then the standby that has taken over is away, with a batch in its hands that it may not publish any more."""
    lasts_s = _TAKEN_OVER_S[STANDBY] + rng.uniform(3.0, 5.0)
    # What the broker has of an open transaction, the next owner waits for: nothing of it may be there yet.
    detail = f"sequencer.before_publish=stop@{rng.randint(5, 12)}"
    return [_takeover(rng, at_s), PlannedFault(at_s, "failpoint", STANDBY, lasts_s, detail)]


def _takeover(rng: random.Random, at_s: float) -> PlannedFault:
    """A worker that is away for longer than its lease, with a batch in its hands, and comes back to a busy owner."""
    lasts_s = _TAKEN_OVER_S[WORKER] + rng.uniform(3.0, 5.0)
    place = rng.choice([*["after_publish"] * 5, "in_commit"])
    # Slow before, so that the batch is large, and another waits: the one may not be committed, nor the other published.
    hit = rng.randint(9, 15)
    slow = f"sequencer.before_publish=sleep:0.15@2-{hit}," if place == "after_publish" else ""
    return PlannedFault(at_s, "failpoint", WORKER, lasts_s, f"{slow}sequencer.{place}=stop@{hit}")


def _away(rng: random.Random, at_s: float) -> PlannedFault:
    """A worker that stays away, or comes back when another one works."""
    if rng.random() < 0.7:
        return PlannedFault(at_s, "leave", WORKER, 0.0)
    return PlannedFault(at_s, "freeze", WORKER, _TAKEN_OVER_S[WORKER] + rng.uniform(1.0, 3.0))


def _consumer(rng: random.Random, at_s: float) -> PlannedFault:
    """A consumer that dies, or is away for longer than its transaction may be silent, and comes back."""
    name = f"consumer.{rng.choice(_CONSUMER_PLACES)}"
    lasts_s = _TAKEN_OVER_S[CONSUMER] + rng.uniform(1.0, 4.0)
    action = rng.choice(["kill", "stop", "stop"])
    return PlannedFault(at_s, "failpoint", CONSUMER, lasts_s, f"{name}={action}@{rng.randint(2, 5)}")


def _behind(rng: random.Random, at_s: float) -> list[PlannedFault]:
    """A worker that is always behind, so that rows that are read are newer than what it knows; and a fault."""
    hits = rng.randint(40, 80)
    slow = PlannedFault(at_s, "slow", WORKER, 0.0, f"sequencer.in_commit=sleep:0.3@5-{hits}")
    return [slow, _kill(rng, at_s + rng.uniform(2.0, 6.0))]


def _read_again(rng: random.Random, at_s: float) -> PlannedFault:
    """A consumer that gets again what it has applied, or whose place another one takes."""
    return PlannedFault(at_s + rng.uniform(1.0, 4.0), rng.choice(["rewind", "rewind", "leave"]), CONSUMER, 0.0)


def _merging(rng: random.Random, at_s: float) -> PlannedFault:
    """A worker that dies while it stages a transaction, or goes through one that is staged."""
    place = rng.choice(["in_staging", "before_publish", "after_publish", "after_commit", "after_commit"])
    return PlannedFault(at_s, "failpoint", WORKER, 1.0, f"sequencer.{place}=kill@{rng.randint(15, 60)}")


def _again(rng: random.Random, at_s: float) -> PlannedFault:
    """What makes a connector send again where it does not write in Kafka transactions: of one, some a second time."""
    lasts_s = rng.uniform(0.5, _LONGEST_AWAY_S)
    # Not before much has been sent: what it sends again is what it sent since it last stored its place.
    at_s += rng.uniform(2.0, 4.0)
    return PlannedFault(at_s, "kill", CONNECT, lasts_s, _WITHIN)


def _again_to_another(rng: random.Random, at_s: float) -> list[PlannedFault]:
    """And the worker that has processed it once is not the one that gets it again."""
    connector = _again(rng, at_s)
    return [connector, PlannedFault(connector.at_s + 0.4, "kill", WORKER, 0.0)]


def _alone(
    plan: Callable[[random.Random, float], PlannedFault],
) -> Callable[[random.Random, float], list[PlannedFault]]:
    return lambda rng, at_s: [plan(rng, at_s)]


def _publishing(rng: random.Random, at_s: float) -> PlannedFault:
    """A worker that dies between what belongs together, early enough that its lease ends while clients write."""
    place = rng.choice(_SEQUENCER_PLACES)
    return PlannedFault(at_s, "failpoint", WORKER, 1.0, f"sequencer.{place}=kill@{rng.randint(6, 15)}")


def _cut_off(rng: random.Random, at_s: float) -> PlannedFault:
    """A worker that loses a server, or an answer of it."""
    road, ways = rng.choice(
        [(roads.WORKER_KAFKA, ["cut", "hold down"]), (roads.WORKER_CONTROL, ["lose answer", "cut"])]
    )
    return PlannedFault(at_s, "break", road, rng.uniform(0.5, 3.0), rng.choice(ways))


def _kill(rng: random.Random, at_s: float) -> PlannedFault:
    target = rng.choice([WORKER, WORKER, CONSUMER, CONSUMER, CONNECT, KAFKA, SOURCE, CONTROL])
    return PlannedFault(at_s, "kill", target, rng.uniform(0, _LONGEST_AWAY_S))


def _failpoint(rng: random.Random, at_s: float) -> PlannedFault:
    return rng.choice([_publishing, _cut_off, _takeover, _consumer])(rng, at_s)


def _freeze(rng: random.Random, at_s: float) -> PlannedFault:
    target = rng.choice([WORKER, WORKER, CONSUMER, CONNECT, KAFKA])
    return PlannedFault(at_s, "freeze", target, rng.uniform(0.5, _FROZEN_S[target]))


def _road(rng: random.Random, at_s: float) -> PlannedFault:
    road = rng.choice(roads.ROADS)
    ways = ["cut", "refuse", "hold", "hold up", "hold down"]
    if road in (roads.WORKER_CONTROL, roads.CONSUMER_DATABASE):
        ways += ["lose answer", "lose answer"]
    return PlannedFault(at_s, "break", road, rng.uniform(0.5, 6.0), rng.choice(ways))


def _operator(rng: random.Random, at_s: float) -> PlannedFault:
    """What somebody does who has a reason."""
    return rng.choice([_connector, _rewind])(rng, at_s)


def _rewind(rng: random.Random, at_s: float) -> PlannedFault:
    del rng
    return PlannedFault(at_s, "rewind", CONSUMER, 0.0)


def _connector(rng: random.Random, at_s: float) -> PlannedFault:
    return PlannedFault(at_s, "connector", rng.choice(["restart", "stop"]), rng.uniform(0, _LONGEST_AWAY_S))


# Fresh seeds come in this order; those without exactly-once source stand together, for each change restarts Connect.
THEMES = (
    Theme("publishing", True, _alone(_publishing)),
    Theme("cut off", True, _alone(_cut_off)),
    Theme("takeover", True, _takeovers),
    Theme("away", True, _alone(_away)),
    Theme("staged", True, _alone(_merging), small=True),
    Theme("read again", True, _behind, reread=True),
    Theme("consumer", True, _alone(_consumer), losses=(OLDER, OLDER_LEFT)),
    Theme("applied before", True, _alone(_read_again), failing=True, losses=(LOST, RECOVERED)),
    Theme("sent again", False, _alone(_again), small=True),
    Theme("sent again to another", False, _again_to_another),
)


def theme_of(seed: int) -> Theme:
    """The theme of a seed."""
    return THEMES[seed % len(THEMES)]


@dataclass
class Fault:
    """One that was planned and is carried out; *hit_at* is when it hit (Unix time), None if it never did."""

    plan: PlannedFault
    hit_at: float | None = None
    in_flight: int = 0
    over: bool = False
    error: Exception | None = None


@dataclass
class Faults:
    """Carries faults out, each in a thread of its own; *in_flight* counts the generator's open transactions."""

    stand: Stand
    site: Site
    roles: dict[str, list[Role]]
    in_flight: Callable[[], int]
    frozen: set[int] = field(default_factory=set)

    def carry_out(self, fault: Fault) -> None:
        """Wait for its moment, hit, wait, mend."""
        try:
            if fault.plan.kind not in _FROM_START:  # what is in its process already
                self._wait(fault.plan.at_s)
            kind: Callable[[Fault], None] = getattr(self, f"_{fault.plan.kind}")
            kind(fault)
        # Raised where the round waits for its faults.
        except Exception as error:  # noqa: BLE001
            fault.error = error
        finally:
            fault.over = True

    def mend_all(self) -> None:
        """Thaw whatever is still frozen."""
        for pid in list(self.frozen):
            thaw(pid)

    def failpoints(self, planned: Iterable[PlannedFault], target: str) -> str:
        """What the first process of *target* is started with, or a standby."""
        return ",".join(each.detail for each in planned if each.kind in _FROM_START and each.target == target)

    def _hits(self, fault: Fault) -> None:
        fault.hit_at, fault.in_flight = time.time(), self.in_flight()
        tell(f"  {fault.plan}, {fault.in_flight} transactions in flight")

    def _kill(self, fault: Fault) -> None:
        target = fault.plan.target
        if target in self.roles:
            self._hit_first(target, Role.kill)
            self._hits(fault)
            return
        start = self._kill_within(target) if fault.plan.detail == _WITHIN else self.stand.kill(target)
        self._hits(fault)
        self._wait(fault.plan.lasts_s)
        start()

    def _kill_within(self, target: str) -> Callable[[], None]:
        end = LogEnd(self.site.brokers, change_log_topic(self.site.name))
        try:
            return self.stand.kill(target, end.is_within_transaction)
        finally:
            end.close()

    def _failpoint(self, fault: Fault) -> None:
        role = self._first(fault.plan.target)
        deadline_s, pid = time.monotonic() + _REACHED_WITHIN_S[fault.plan.target], role.pid()
        while not role.died() and role.pid() == pid:
            if time.monotonic() > deadline_s:
                self._hits(fault)  # the place was not reached so often: the process dies anywhere
                role.kill()
                return
            time.sleep(_LOOK_S)
        self._hits(fault)
        if pid is not None and is_frozen(pid):
            self._stay_frozen(pid, fault.plan.lasts_s)

    def _freeze(self, fault: Fault) -> None:
        target = fault.plan.target
        pid = self._hit_first(target, Role.freeze) if target in self.roles else self.stand.freeze(target)
        self._hits(fault)
        self._stay_frozen(pid, fault.plan.lasts_s)

    def _slow(self, fault: Fault) -> None:
        """It is slow from its start until it dies."""
        self._wait(fault.plan.at_s)
        self._hits(fault)

    def _leave(self, fault: Fault) -> None:
        """Nobody starts it again: a standby has to do."""
        self._hits(fault)
        self._first(fault.plan.target).close()

    def _rewind(self, fault: Fault) -> None:
        """All topics are read again from their beginning."""
        self._hits(fault)
        _insist(self.site.rewind_consumer)

    def _first(self, target: str) -> Role:
        """The process of *target* that works, unless a standby has taken over from it; or the first standby."""
        if target == STANDBY:
            return self.roles[WORKER][1]
        return next(each for each in self.roles[target] if not each.closed)

    def _hit_first(self, target: str, hit: Callable[[Role], int | None]) -> int:
        """The process of *target* that was hit; one that has just died is started again, and waited for."""
        deadline_s = time.monotonic() + _RUNS_WITHIN_S
        while (pid := hit(self._first(target))) is None:
            if time.monotonic() > deadline_s:
                raise NoVerdictError(f"{target} does not run")
            time.sleep(_LOOK_S)
        return pid

    def _stay_frozen(self, pid: int, seconds: float) -> None:
        self.frozen.add(pid)
        self._wait(seconds)
        thaw(pid)
        self.frozen.discard(pid)

    def _break(self, fault: Fault) -> None:
        road, way = self.site.roads[fault.plan.target], fault.plan.detail
        self._hits(fault)
        if way == "cut":
            road.cut()
        elif way == "refuse":
            road.refuse()
        elif way == "lose answer":
            road.lose_answer()
        else:
            road.hold(*way.split()[1:])
        self._wait(fault.plan.lasts_s)
        road.heal()

    def _connector(self, fault: Fault) -> None:
        self._hits(fault)
        with self.site.connect() as connect:
            if fault.plan.target == "restart":
                _insist(lambda: connect.restart(self.site.connector))
                return
            _insist(lambda: connect.stop(self.site.connector))
            self._wait(fault.plan.lasts_s)
            _insist(lambda: call(f"{connect.url}/connectors/{self.site.connector}/resume", "PUT"))

    def _wait(self, seconds: float) -> None:
        """A fault lasts; nothing can tell when it has lasted long enough."""
        time.sleep(seconds)


def _insist(action: Callable[[], object]) -> None:
    """Do *action* as soon as the other side can be reached: another fault may have it."""
    deadline_s = time.monotonic() + _INSIST_S
    while True:
        try:
            action()
        except (RowcastError, requests.RequestException, psycopg.OperationalError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return


def describe(fault: Fault) -> dict[str, Any]:
    """A fault for the ledger."""
    return {
        "fault": str(fault.plan),
        "lasts_s": round(fault.plan.lasts_s, 1),
        "hit": fault.hit_at is not None,
        "in_flight": fault.in_flight,
    }
