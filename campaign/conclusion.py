"""What a round is judged by, after its load has ended: what was committed, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from campaign.connector_loss import left_out
from campaign.consumer_checks import freshness_s
from campaign.control_loss import as_told
from campaign.declaration import PARTITIONS
from campaign.errors import NoVerdictError
from campaign.evidence import Evidence
from campaign.observation import (
    EffectCount,
    change_log_values,
    connect,
    count_sent_again,
    domain_records,
    read_claims,
    read_effects,
    take_sample,
)
from campaign.oracle import Commit, Oracle, expect
from campaign.preparation import Prepared
from campaign.rereading import STATE
from campaign.rows import apply_changes, canonical, read_rows
from campaign.site import Site
from campaign.witness import compare
from campaign.writer import HIDDEN
from examples.main_job.progress import tell
from rowcast.errors import MalformedEventError
from rowcast.event import decode
from rowcast.topics import change_log_topic

_INCOMPLETE = "INCOMPLETE_TRANSACTION"
_ARRIVAL_S = 300.0
_SETTLE_S = 0.5
_IDLE_S = 60.0  # longer than a consumer needs that has to start, on a machine with other work


def conclude(round_: Prepared) -> Evidence:
    """
    All evidence of a round whose load has ended, after the pipeline had the time for everything.

    Raises:
        NoVerdictError: the observers do not agree, or the connector has left changes out and the source is stopped.

    """
    clock = round_.clock
    with clock.part("truth"):
        commits = _committed(round_)
        oracle = expect(round_.plan.types, round_.initial, _as_told(round_, commits))
    with clock.part("arrival"):
        _wait_arrival(round_, oracle.count, commits)
        round_.sampler.end()
    with clock.part("evidence"):
        _see_what_the_connector_sent(round_.site, commits)
        evidence = _evidence(round_, oracle, commits)
    return replace(evidence, sent_again=round_.rereading.asked, restored_at=round_.loss.restored_at)


def _committed(round_: Prepared) -> list[Commit]:
    """
    What was committed.

    Raises:
        NoVerdictError: the generator's log, the second slot and the source's tables do not agree.

    """
    types = round_.plan.types
    tables = {each.name: each for each in types}
    committed = round_.journal.committed()
    witnessed = round_.witness.read()
    compare(types, witnessed, committed)
    commits = []
    rows = dict(round_.initial)
    for seen in witnessed:
        attempt = committed.get(seen.xid)
        if attempt is None:
            continue  # it changed nothing, as both agree
        acked_at, hidden = attempt.ended_at or 0.0, attempt.kind == HIDDEN
        commits.append(Commit(seen.xid, seen.lsn, acked_at, attempt.changes, seen.moment_us, attempt.context, hidden))
        apply_changes(rows, attempt.changes, tables)
    with psycopg.connect(round_.site.source_url) as connection:
        final = read_rows(connection, types)
    for key in rows.keys() | final.keys():
        made = tables[key[0]]
        if key not in rows or key not in final or canonical(made, rows[key]) != canonical(made, final[key]):
            raise NoVerdictError(f"{key}: the log says {rows.get(key)}, SELECT says {final.get(key)}")
    return commits


def _as_told(round_: Prepared, commits: list[Commit]) -> list[Commit]:
    """
    *commits* as they have to be told: a snapshot has the last state alone of what was not published before it.

    How far the pipeline had come when its control database was lost, only what it had said tells.
    """
    snapshot_lsn = round_.loss.snapshot_lsn
    if snapshot_lsn is None:
        return commits
    site, lsns = round_.site, {each.lsn for each in commits}
    told = [each.lsn for each in read_claims(site.brokers, site.name)]
    for each in domain_records(site.brokers, site.topics):
        with suppress(MalformedEventError):  # it is a finding later
            event = decode(each.topic, each.key, each.value, each.headers)
            if event.name != "snapshot" and event.position in lsns:
                told.append(event.position)
    return as_told(commits, max((lsn for lsn in told if lsn < snapshot_lsn), default=0), snapshot_lsn)


def _wait_arrival(round_: Prepared, count: int, commits: Sequence[Commit]) -> None:
    """Wait until everything has its effect, or the pipeline says that there is nothing more to come."""
    site = round_.site
    resent = any(each.origin == STATE for each in round_.plan.rereads)
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

    if not round_.wait(arrived, _ARRIVAL_S):
        tell(f"  not everything arrived within {_ARRIVAL_S:.0f} s")
    effects.close()
    settled_s = time.monotonic() + _SETTLE_S
    round_.wait(lambda: time.monotonic() > settled_s, _SETTLE_S + 1)  # for what should not come


def _see_what_the_connector_sent(site: Site, commits: Sequence[Commit]) -> None:
    """A source that stopped because changes never came is right; one that did not stop is judged like any other."""
    if site.stop_code() != _INCOMPLETE:
        return
    if lacking := left_out(change_log_values(site.brokers, change_log_topic(site.name)), commits):
        names = ", ".join(map(str, lacking))
        raise NoVerdictError(f"the connector left changes of transaction {names} out, and the source stopped")


def _evidence(round_: Prepared, oracle: Oracle, commits: list[Commit]) -> Evidence:
    site = round_.site
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
        samples=round_.sampler.samples,
        claims=read_claims(site.brokers, site.name),
    )


def figures(round_: Prepared, evidence: Evidence) -> dict[str, Any]:
    """What the ledger notes of a round besides its verdict; the change log stays with the other files."""
    plan, site = round_.plan, round_.site
    values = change_log_values(site.brokers, change_log_topic(site.name))
    (site.folder / "changes.jsonl").write_bytes(b"\n".join(values))
    return {
        "events": len(evidence.records),
        "effects": len(evidence.effects),
        **round_.journal.counts(),
        "aggregate_types": sum(each.is_aggregate for each in plan.types),
        "tables": len(plan.types),
        "aggregates": len(evidence.expected),
        "samples": len(evidence.samples),
        "progress_records": len(evidence.claims),
        "freshness_max_s": round(freshness_s(evidence), 1),
        "exactly_once_source": plan.exactly_once,
        "theme": plan.theme,
        "standbys": [role for role, wanted in plan.standbys.items() if wanted],
        "handler": plan.applier,
        "handler_fails": plan.failing,
        "limits": plan.limits,
        "refused": sum(evidence.refused[-1][1].values()),
        "sent_again": count_sent_again(values),
        "control_database": None if plan.loss is None else plan.loss.kind,
        "rereads": {"planned": len(plan.rereads), "done": round_.rereading.done},
    }
