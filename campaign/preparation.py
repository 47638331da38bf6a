"""What a round begins with: rows, a pipeline that has applied them, and whoever is to disturb and to watch it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from campaign.control_loss import ControlLoss
from campaign.errors import NoVerdictError
from campaign.faults import CONSUMER, STANDBY, WORKER, Fault, Faults
from campaign.hiding import Hiding
from campaign.journal import Journal
from campaign.known_keys import KnownKeys
from campaign.load import Load
from campaign.observation import EffectCount, Sampler
from campaign.oracle import expect
from campaign.process import Role, is_frozen, thaw
from campaign.random_schema import Row, Rows, Type
from campaign.rereading import Rereading
from campaign.round_plan import RoundPlan
from campaign.rows import RowChange, key_of, read_rows
from campaign.site import Site
from campaign.stand import Stand
from campaign.stopwatch import Stopwatch
from campaign.witness import Witness

_ROWS_BEFORE = 12
_HIDDEN_ROWS = 4
_READY_S = 90.0
_PAUSE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """
    The parts of a round in its *site*: each of the *roles* with its processes, *initial* rows, and the observers.

    *ready*: the pipeline has applied these rows. What `given_up` is set of waits no more.
    """

    plan: RoundPlan
    site: Site
    clock: Stopwatch
    given_up: threading.Event
    initial: Rows
    witness: Witness
    roles: dict[str, list[Role]]
    sampler: Sampler
    journal: Journal
    load: Load
    rereading: Rereading
    loss: ControlLoss
    faults: Faults
    carried: Sequence[Fault]
    ready: bool

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for *condition* and keep everything alive meanwhile; False after so many *seconds*."""
        return keep_until(self.roles, condition, seconds, self.given_up)


def keep_until(
    roles: dict[str, list[Role]], condition: Callable[[], bool], seconds: float, given_up: threading.Event
) -> bool:
    """
    Wait for *condition* and keep all *roles* alive meanwhile; False after so many *seconds*.

    Raises:
        NoVerdictError: the round is *given_up*.

    """
    deadline_s = time.monotonic() + seconds
    while not condition():
        for role in (role for each in roles.values() for role in each):
            role.keep()
        if time.monotonic() > deadline_s:
            return False
        if given_up.wait(_PAUSE_S):
            raise NoVerdictError("the round was given up")
    return True


def prepare(
    plan: RoundPlan, stand: Stand, site: Site, clock: Stopwatch, end: tuple[ExitStack, threading.Event]
) -> Prepared:
    """Everything of *plan* in the empty *site*, up to the moment at which the load may begin; *end* ends it."""
    opened, given_up = end
    # To a snapshot that is being read, a table that was truncated since it began is empty: no MVCC there.
    truncated = plan.loss is None or not plan.loss.rebuilt
    rng, keys = random.Random(f"{plan.seed} rows"), KnownKeys(plan.types, plan.constrained, truncated=truncated)
    with clock.part("tables"):
        site.create_tables(rng, plan.constrained)
        initial = _fill(plan, site, keys, rng)
    with clock.part("apply"):
        site.apply(exactly_once=plan.exactly_once, roads=plan.loss is None)
        witness = Witness(site.source_url, site.name, plan.types)
        witness.begin()
    roles = {
        WORKER: [site.worker(f"worker-{n}", plan.limits) for n in range(1 + plan.standbys[WORKER])],
        CONSUMER: [
            site.consumer(f"consumer-{n}", plan.applier, plan.failing) for n in range(1 + plan.standbys[CONSUMER])
        ],
    }
    sampler = Sampler(site.consumer_url)
    journal = opened.enter_context(Journal(site.folder / "journal.jsonl"))
    load = Load(site.source_url, keys, journal, plan.seed)
    hiding = Hiding(site.name, site.source_url, keys, journal, random.Random(f"{plan.seed} hidden"))
    rereading = Rereading(plan.rereads, site, hiding, threading.Event())
    loss = ControlLoss(plan.loss, site, threading.Event())
    faults = Faults(stand, site, roles, journal.in_flight)
    ends = (sampler.end, load.end, rereading.end, loss.end, faults.mend_all)
    for each in (*(role.close for of in roles.values() for role in of), *ends):
        opened.callback(each)
    with clock.part("start"):
        ready = _start(roles, faults, plan, (site, expect(plan.types, initial, []).count, given_up))
    sampler.start()
    return Prepared(
        plan=plan,
        site=site,
        clock=clock,
        given_up=given_up,
        initial=initial,
        witness=witness,
        roles=roles,
        sampler=sampler,
        journal=journal,
        load=load,
        rereading=rereading,
        loss=loss,
        faults=faults,
        carried=[Fault(each) for each in plan.faults],
        ready=ready,
    )


def _start(
    roles: dict[str, list[Role]], faults: Faults, plan: RoundPlan, wanted: tuple[Site, int, threading.Event]
) -> bool:
    """Start the first of each role, wait until the rows of before are applied, and start the standbys."""
    site, count, given_up = wanted
    for target, (first, *_) in roles.items():
        first.start(faults.failpoints(plan.faults, target))
    effects = EffectCount(site.consumer_url)

    def arrived() -> bool:
        for role in (role for each in roles.values() for role in each):
            if (pid := role.pid()) is not None and is_frozen(pid):
                thaw(pid)  # at its failpoint, before anything is in flight
        return effects.read() >= count

    ready = keep_until(roles, arrived, _READY_S, given_up)
    # One that does not write in Kafka transactions stores its place now and then.
    ready = ready and (plan.exactly_once or keep_until(roles, site.place_is_stored, _READY_S, given_up))
    effects.close()
    for target, (_, *standbys) in roles.items():
        for role in standbys:  # only now, so that it is the first one that works, and that faults hit
            role.start(faults.failpoints(plan.faults, STANDBY) if target == WORKER else "")
    return ready


def _fill(plan: RoundPlan, site: Site, keys: KnownKeys, rng: random.Random) -> Rows:
    """Rows that are there before anybody captures them."""
    with psycopg.connect(site.source_url) as connection:
        for made in plan.types:
            for _ in range(_ROWS_BEFORE):
                row = keys.row(rng, made, fresh=True)
                _insert(connection, made, row)
                keys.note([RowChange(made.name, None, row)])
            for _ in range(_HIDDEN_ROWS if plan.rereads else 0):
                row = keys.hidden_row(rng, made)
                _insert(connection, made, row)
                keys.hidden[made.name].append(key_of(made, row))
        return read_rows(connection, plan.types)


def _insert(connection: psycopg.Connection[Any], made: Type, row: Row) -> None:
    values = ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO {made.name} ({', '.join(row)}) VALUES ({values})".encode(), list(row.values()))
