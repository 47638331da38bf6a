"""One round: a fresh pipeline under random load and faults, and the judgement on it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from campaign.consumer_checks import freshness_s
from campaign.declaration import PARTITIONS
from campaign.errors import NoVerdictError
from campaign.evidence import Evidence
from campaign.faults import CONSUMER, WORKER, Fault, Faults, describe
from campaign.finding import Checker, Findings
from campaign.hiding import Hiding
from campaign.journal import Journal
from campaign.judgement import judge
from campaign.known_keys import KnownKeys
from campaign.load import Load
from campaign.observation import (
    EffectCount,
    Sampler,
    connect,
    count_sent_again,
    domain_records,
    read_claims,
    read_effects,
    take_sample,
)
from campaign.oracle import Commit, Oracle, expect
from campaign.process import Role, is_frozen, thaw
from campaign.random_schema import Row, Rows, Type
from campaign.rereading import STATE, Rereading
from campaign.round_plan import RoundPlan
from campaign.rows import RowChange, apply_changes, canonical, key_of, read_rows
from campaign.site import Site
from campaign.stand import Stand
from campaign.witness import Witness, compare
from campaign.writer import HIDDEN
from examples.main_job.progress import tell
from rowcast.topics import change_log_topic

EVENTS_MIN, FAULTS_MIN = 3_000, 2
_EVENTS = EVENTS_MIN + 30
_ROWS_BEFORE = 12
_HIDDEN_ROWS = 4
_READY_S = 90.0
_LOAD_S = 300.0
_ARRIVAL_S = 300.0
_SETTLE_S = 0.5
_IDLE_S = 60.0  # longer than a consumer needs that has to start, on a machine with other work
_PAUSE_S = 0.1
_SLOW_S = 0.2
_SLOWER_S = 2.0


@dataclass
class RoundResult:
    """What came of a round; *void* says why it does not count, None where it does."""

    seed: int
    findings: Findings
    void: str | None
    seconds: float
    figures: dict[str, Any]
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``findings``, ``void`` or ``clean``."""
        if self.findings.found:
            return "findings"
        return "void" if self.void else "clean"


class Round:
    """The round of *plan* on *stand*, with its files below *folder*."""

    def __init__(self, plan: RoundPlan, stand: Stand, folder: Path) -> None:
        self._plan, self._stand, self._folder = plan, stand, folder
        self._types = {each.name: each for each in plan.types}
        self._rng = random.Random(f"{plan.seed} rows")
        self._open = ExitStack()

    def run(self) -> RoundResult:
        """
        Run it, judge it, and leave nothing of it but the files of a round that is not clean.

        Raises:
            NoVerdictError: something that is not of the pipeline broke.

        """
        began_s = time.monotonic()
        self._stand.deliver_exactly_once(wanted=self._plan.exactly_once)
        self._stand.up()
        site = Site.create(self._folder, self._stand, self._plan.types)
        try:
            with self._open:
                result = self._run(site)
        except KeyboardInterrupt:
            self._open.callback(site.forget)
            raise
        finally:
            site.drop()
            self._open.close()
        result.seconds = time.monotonic() - began_s
        if result.verdict != "findings":
            site.forget()
        return result

    def _run(self, site: Site) -> RoundResult:
        plan, rng = self._plan, self._rng
        keys = KnownKeys(plan.types, plan.constrained)
        site.create_tables(rng, plan.constrained)
        initial = self._fill(site, keys)
        site.apply(exactly_once=plan.exactly_once)
        witness = Witness(site.source_url, site.name, plan.types)
        witness.begin()
        roles = {
            WORKER: [site.worker(f"worker-{n}", plan.limits) for n in range(1 + plan.standbys[WORKER])],
            CONSUMER: [
                site.consumer(f"consumer-{n}", plan.applier, plan.failing) for n in range(1 + plan.standbys[CONSUMER])
            ],
        }
        sampler = Sampler(site.consumer_url)
        journal = self._open.enter_context(Journal(site.folder / "journal.jsonl"))
        load = Load(site.source_url, keys, journal, plan.seed)
        hiding = Hiding(site.name, site.source_url, keys, journal, random.Random(f"{plan.seed} hidden"))
        rereading = Rereading(plan.rereads, site, hiding, threading.Event())
        faults = Faults(self._stand, site, roles, journal.in_flight)
        carried = [Fault(each) for each in plan.faults]
        ends = (sampler.end, load.end, rereading.end, faults.mend_all)
        for end in (*(role.close for each in roles.values() for role in each), *ends):
            self._open.callback(end)
        for target, (first, *_) in roles.items():
            first.start(faults.failpoints(plan.faults, target))
        ready = self._wait_ready(site, roles, expect(plan.types, initial, []).count)
        sampler.start()
        for _, *standbys in roles.values():
            for role in standbys:  # only now, so that it is the first one that works, and that faults hit
                role.start()
        if ready:
            self._drive(load, initial, (carried, rereading), faults)
        commits, oracle = self._truth(site, witness, load, initial)
        self._wait_arrival(site, roles, oracle.count, commits)
        sampler.end()
        evidence = replace(self._evidence(site, oracle, commits, sampler), sent_again=rereading.asked)
        findings = judge(evidence)
        ended = [role.name for each in roles.values() for role in each if role.ended]
        for name in ended:
            findings.add(Checker.STOPPED, None, f"{name} ended by itself")
        return RoundResult(
            seed=plan.seed,
            findings=findings,
            void=_void_reason(evidence, carried),
            seconds=0.0,
            figures={
                **self._figures(evidence, journal),
                "sent_again": count_sent_again(site.brokers, change_log_topic(site.name)),
                "rereads": {"planned": len(plan.rereads), "done": rereading.done},
            },
            faults=[describe(each) for each in carried],
        )

    def _fill(self, site: Site, keys: KnownKeys) -> Rows:
        """Rows that are there before anybody captures them."""
        with psycopg.connect(site.source_url) as connection:
            for made in self._plan.types:
                for _ in range(_ROWS_BEFORE):
                    row = keys.row(self._rng, made, fresh=True)
                    _insert(connection, made, row)
                    keys.note([RowChange(made.name, None, row)])
                for _ in range(_HIDDEN_ROWS if self._plan.rereads else 0):
                    row = keys.hidden_row(self._rng, made)
                    _insert(connection, made, row)
                    keys.hidden[made.name].append(key_of(made, row))
            return read_rows(connection, self._plan.types)

    def _wait_ready(self, site: Site, roles: dict[str, list[Role]], count: int) -> bool:
        """Wait until the rows of before are applied; False if they do not come."""
        effects = EffectCount(site.consumer_url)

        def arrived() -> bool:
            for role in (role for each in roles.values() for role in each):
                if (pid := role.pid()) is not None and is_frozen(pid):
                    thaw(pid)  # at its failpoint, before anything is in flight
            return effects.read() >= count

        ready = self._wait(roles, arrived, _READY_S)
        effects.close()
        return ready

    def _drive(self, load: Load, initial: Rows, beside: tuple[list[Fault], Rereading], faults: Faults) -> None:
        carried, rereading = beside
        threads = [threading.Thread(target=faults.carry_out, args=(each,), daemon=True) for each in carried]
        oracle, seen = Oracle(self._plan.types), set[int]()
        oracle.change([RowChange(name, None, row) for (name, _), row in initial.items()], None)

        def count() -> None:
            """About how many events there will be: clients hear of commits in another order than that of the WAL."""
            for xid, attempt in load.journal.committed().items():
                if xid not in seen:
                    seen.add(xid)
                    oracle.change(attempt.changes, xid)

        load.start()
        rereading.start()
        for thread in threads:
            thread.start()

        def done() -> bool:
            load.check()
            count()
            enough = oracle.count >= _EVENTS
            hit = all(each.over for each in carried)
            if enough:
                # Somebody may be waiting until a worker that is slow has caught up.
                load.pause_s = _SLOWER_S if hit else _SLOW_S
            return enough and hit and rereading.over

        if not self._wait(faults.roles, done, _LOAD_S):
            raise NoVerdictError(f"after {_LOAD_S:.0f} s of load: {oracle.count} events, {carried}")
        for each in carried:
            if each.error is not None:
                raise NoVerdictError(f"{each.plan}: {each.error!r}") from each.error
        if rereading.error is not None:
            raise NoVerdictError(f"reading again: {rereading.error!r}") from rereading.error
        load.finish()

    def _wait(self, roles: dict[str, list[Role]], condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for *condition* and keep everything alive meanwhile."""
        deadline_s = time.monotonic() + seconds
        while not condition():
            for role in (role for each in roles.values() for role in each):
                role.keep()
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_PAUSE_S)
        return True

    def _truth(self, site: Site, witness: Witness, load: Load, initial: Rows) -> tuple[list[Commit], Oracle]:
        """
        What was committed, and what has to be published of it.

        Raises:
            NoVerdictError: the generator's log, the second slot and the source's tables do not agree.

        """
        committed = load.journal.committed()
        witnessed = witness.read()
        compare(self._plan.types, witnessed, committed)
        commits = []
        rows = dict(initial)
        for seen in witnessed:
            attempt = committed[seen.xid]
            acked_at, hidden = attempt.ended_at or 0.0, attempt.kind == HIDDEN
            commits.append(
                Commit(seen.xid, seen.lsn, acked_at, attempt.changes, seen.moment_us, attempt.context, hidden)
            )
            apply_changes(rows, attempt.changes, self._types)
        with psycopg.connect(site.source_url) as connection:
            final = read_rows(connection, self._plan.types)
        for key in rows.keys() | final.keys():
            made = self._types[key[0]]
            if key not in rows or key not in final or canonical(made, rows[key]) != canonical(made, final[key]):
                raise NoVerdictError(f"{key}: the log says {rows.get(key)}, SELECT says {final.get(key)}")
        return commits, expect(self._plan.types, initial, commits)

    def _wait_arrival(self, site: Site, roles: dict[str, list[Role]], count: int, commits: Sequence[Commit]) -> None:
        """Wait until everything has its effect, or the pipeline says that there is nothing more to come."""
        resent = any(each.origin == STATE for each in self._plan.rereads)
        effects, last = EffectCount(site.consumer_url), max((each.lsn for each in commits), default=0)
        state, quiet = [0, time.monotonic()], [-1]

        def arrived() -> bool:
            now = effects.read()
            if now != state[0]:
                state[:] = [now, time.monotonic()]
            # How much was sent again, only the topics tell.
            if now >= count and (not resent or (told_all() and now >= len(domain_records(site.brokers, site.topics)))):
                return True
            if time.monotonic() - state[1] < _IDLE_S:
                return False
            state[1] = time.monotonic()
            claims = read_claims(site.brokers, site.name)
            quiet.append(len(claims))
            # There is one a second, also when nothing happens: who says nothing for so long says nothing any more.
            return quiet[-2] == quiet[-1] or any(each.lsn >= last for each in claims)

        def told_all() -> bool:
            return any(each.lsn >= last for each in read_claims(site.brokers, site.name))

        if not self._wait(roles, arrived, _ARRIVAL_S):
            tell(f"  not everything arrived within {_ARRIVAL_S:.0f} s")
        effects.close()
        settled_s = time.monotonic() + _SETTLE_S
        self._wait(roles, lambda: time.monotonic() > settled_s, _SETTLE_S + 1)  # for what should not come

    def _evidence(self, site: Site, oracle: Oracle, commits: list[Commit], sampler: Sampler) -> Evidence:
        with connect(site.consumer_url) as connection:
            effects, last = read_effects(connection), take_sample(connection)
        return Evidence(
            expected=oracle.events,
            refused=oracle.refused,
            partitions=PARTITIONS,
            commits=commits,
            records=domain_records(site.brokers, site.topics),
            effects=effects,
            final=last.held,
            samples=sampler.samples,
            claims=read_claims(site.brokers, site.name),
        )

    def _figures(self, evidence: Evidence, journal: Journal) -> dict[str, Any]:
        return {
            "events": len(evidence.records),
            "effects": len(evidence.effects),
            **journal.counts(),
            "aggregate_types": sum(each.is_aggregate for each in self._plan.types),
            "tables": len(self._plan.types),
            "aggregates": len(evidence.expected),
            "samples": len(evidence.samples),
            "progress_records": len(evidence.claims),
            "freshness_max_s": round(freshness_s(evidence), 1),
            "exactly_once_source": self._plan.exactly_once,
            "theme": self._plan.theme,
            "standbys": [role for role, wanted in self._plan.standbys.items() if wanted],
            "handler": self._plan.applier,
            "handler_fails": self._plan.failing,
            "limits": self._plan.limits,
            "refused": evidence.refused[-1][1],
        }


def _insert(connection: psycopg.Connection[Any], made: Type, row: Row) -> None:
    values = ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO {made.name} ({', '.join(row)}) VALUES ({values})".encode(), list(row.values()))


def _void_reason(evidence: Evidence, carried: Sequence[Fault]) -> str | None:
    if len(evidence.records) < EVENTS_MIN:
        return f"{len(evidence.records)} events, and a round has at least {EVENTS_MIN}"
    hit = sum(each.hit_at is not None and each.in_flight > 0 and each.plan.kind != "slow" for each in carried)
    if carried and hit < FAULTS_MIN:
        return f"{hit} faults hit while transactions were in flight, and a round has at least {FAULTS_MIN}"
    return None
