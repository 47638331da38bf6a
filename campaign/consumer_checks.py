"""The live consumer and the progress topic against what was committed. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

from campaign.evidence import Claim, Evidence, Held, Place, Sample
from campaign.finding import Checker, Findings
from campaign.oracle import ExpectedEvent, Key, token
from campaign.topic_checks import Topics

FRESH_S = 300.0
_SHOWN = 3


def check_effects(evidence: Evidence, topics: Topics, findings: Findings) -> None:
    """Each event of the topics has one effect, in the order of the versions."""
    applied: dict[Key, list[int]] = defaultdict(list)
    for effect in sorted(evidence.effects):
        applied[effect.key].append(effect.version)
    for key in {**dict.fromkeys(topics), **dict.fromkeys(applied)}:
        published, seen = topics.get(key, {}), set[int]()
        for version in applied.get(key, []):
            if version in seen:
                findings.add(Checker.DOUBLE_EFFECT, key, f"version {version} has another effect")
            elif seen and version < max(seen):
                findings.add(Checker.INVERSION, key, f"version {version} has its effect after that of {max(seen)}")
            if version not in published:
                findings.add(Checker.PHANTOM, key, f"an effect of version {version}, which is on no topic")
            seen.add(version)
        for missing in sorted(published.keys() - seen)[:_SHOWN]:
            findings.add(Checker.LOST, key, f"version {missing} is on its topic and has no effect")


def check_mirror(evidence: Evidence, findings: Findings) -> None:
    """In the end the consumer's tables hold the last state of every aggregate; at each sample a former one of it."""
    for key in {**dict.fromkeys(evidence.expected), **dict.fromkeys(evidence.final)}:
        history, held = evidence.expected.get(key, ()), evidence.final.get(key)
        if held is None or not history or not _holds(held, history[-1]):
            findings.add(Checker.MIRROR, key, f"the consumer holds {str(held)[:200]} in the end")
    former: Mapping[Key, Held] = {}
    for sample in evidence.samples:
        for key, held in sample.held.items():
            if former.get(key) == held:
                continue  # as the sample before, which was looked at
            history = evidence.expected.get(key, ())
            if held.version > len(history) or not _holds(held, history[held.version - 1]):
                findings.add(Checker.MIRROR, key, f"at {sample.at:.3f} the consumer held {str(held)[:200]}")
            if key in former and held.version < former[key].version:
                findings.add(Checker.INVERSION, key, f"the consumer went back to version {held.version}")
        former = sample.held


def check_progress(evidence: Evidence, topics: Topics, findings: Findings) -> None:
    """What a progress record says is complete, is: on the topics, and at a consumer that has read so far."""
    lsns = [commit.lsn for commit in evidence.commits]
    acked = sorted((commit.acked_at, commit.lsn) for commit in evidence.commits)
    behind = _highest_so_far([lsn for _, lsn in acked])
    offsets = _offsets(evidence.expected, topics)
    told: Claim | None = None
    named: set[tuple[Key, int]] = set()
    restored_at = evidence.restored_at or math.inf
    for claim in sorted(evidence.claims, key=lambda claim: (claim.appended_at > restored_at, claim.epoch, claim.lsn)):
        reach = _reach(evidence, claim)
        for key, lsn, place, offset in offsets:
            ahead = lsn <= reach.get(key[0], claim.lsn) and (offset is None or offset >= claim.ends.get(place, 0))
            if ahead and (key, lsn) not in named:
                named.add((key, lsn))
                findings.add(Checker.PROGRESS, key, f"complete up to {claim.lsn} without its event of {lsn}")
        count = bisect_right(acked, (claim.heartbeat_at, 0))
        if count and behind[count - 1] > claim.lsn:
            text = f"it says complete up to {claim.lsn}, and {behind[count - 1]} was acknowledged before its heartbeat"
            findings.add(Checker.PROGRESS, None, text)
        for aggregate in sorted(claim.halted.keys() - reach.keys()):
            text = f"at {claim.lsn} it says that {aggregate} is halted, and nobody gave a reason"
            findings.add(Checker.PROGRESS, None, text)
        if (refused := _refused_at(evidence, claim.lsn, reach)) != claim.refused:
            text = f"at {claim.lsn} it says that {claim.refused} are refused, and {refused} cannot be published"
            findings.add(Checker.PROGRESS, None, text)
        if told is not None and claim.lsn < told.lsn and not told.appended_at <= restored_at < claim.appended_at:
            findings.add(Checker.PROGRESS, None, f"epoch {claim.epoch} goes back to {claim.lsn}")
        told = claim
    for sample in evidence.samples:
        _check_complete(sample, _completeness(sample, evidence.claims, topics), evidence, findings)
    assert lsns == sorted(lsns), "commits come in the order of the second slot"


def _reach(evidence: Evidence, claim: Claim) -> dict[str, int]:
    """
    Of each type that *claim* may call halted, the LSN up to which it is complete nevertheless.

    That is the last commit before its table became unfit: who gave the reason knows when, and *claim* may not be wider.
    """
    reach = {}
    for aggregate, since in claim.halted.items():
        reasons = evidence.halts.get(aggregate, ())
        fitting = [each for each in reasons if each.since <= since and claim.heartbeat_at <= each.until]
        if fitting:
            begins_us = max(fitting).since * 1_000_000
            before = (each.lsn for each in evidence.commits if (each.moment_us or 0) < begins_us)
            reach[aggregate] = min(claim.lsn, max(before, default=0))
    return reach


def _refused_at(evidence: Evidence, lsn: int, reach: Mapping[str, int]) -> int:
    """How many are refused at *lsn*; nothing becomes of those of a halted type behind what it reaches."""

    def at(lsn: int) -> Mapping[str, int]:
        return evidence.refused[bisect_right(evidence.refused, lsn, key=lambda each: each[0]) - 1][1]

    others = sum(count for aggregate, count in at(lsn).items() if aggregate not in reach)
    return others + sum(at(each).get(aggregate, 0) for aggregate, each in reach.items())


def freshness_s(evidence: Evidence) -> float:
    """How old the oldest change was when it was applied, since its COMMIT had returned; 0 when nothing was."""
    acked = {commit.lsn: commit.acked_at for commit in evidence.commits}
    applied: dict[tuple[Key, int], float] = {}
    for effect in evidence.effects:
        applied.setdefault((effect.key, effect.version), effect.committed_at)
    ages = [
        applied[key, event.version] - acked[event.lsn]
        for key, history in evidence.expected.items()
        for event in history
        if event.lsn is not None and not event.asked and (key, event.version) in applied
    ]
    return max(ages, default=0.0)


def check_freshness(evidence: Evidence, findings: Findings) -> None:
    """No change was older than the promise when it was applied."""
    if (oldest_s := freshness_s(evidence)) > FRESH_S:
        findings.add(Checker.STALE, None, f"a change was applied {oldest_s:.0f} s after its commit")


def _holds(held: Held, event: ExpectedEvent) -> bool:
    return (held.version, token(held.after), token(held.ancestors)) == (
        event.version,
        token(event.after),
        token(event.ancestors),
    )


def _highest_so_far(values: Sequence[int]) -> list[int]:
    highest, found = 0, []
    for value in values:
        highest = max(highest, value)
        found.append(highest)
    return found


def _offsets(
    expected: Mapping[Key, Sequence[ExpectedEvent]], topics: Topics
) -> list[tuple[Key, int, Place, int | None]]:
    """Each expected event with its commit, and where its record stands; those that are lost stand nowhere."""
    found: list[tuple[Key, int, Place, int | None]] = []
    for key, history in expected.items():
        versions = topics.get(key, {})
        for event in history:
            appended = versions.get(event.version)
            place = ("", 0) if appended is None else appended.place
            offset = None if appended is None else appended.record.offset
            found.append((key, event.due, place, offset))
    return found


def _completeness(sample: Sample, claims: Sequence[Claim], topics: Topics) -> Claim | None:
    """The newest claim of which the consumer has applied all that stands below its offsets, by its tables alone."""
    missing: dict[Place, int] = {}
    for key, versions in topics.items():
        held = sample.held.get(key)
        for version, appended in versions.items():
            if held is None or version > held.version:
                place, offset = appended.place, appended.record.offset
                missing[place] = min(missing.get(place, offset), offset)
    reached = [
        claim
        for claim in claims
        if claim.appended_at <= sample.at and all(end <= missing.get(place, end) for place, end in claim.ends.items())
    ]
    return max(reached, key=lambda claim: (claim.epoch, claim.lsn), default=None)


def _check_complete(sample: Sample, claim: Claim | None, evidence: Evidence, findings: Findings) -> None:
    if claim is None:
        return
    reach = _reach(evidence, claim)
    for key, history in evidence.expected.items():
        due = bisect_right(history, reach.get(key[0], claim.lsn), key=lambda event: event.due)
        held = sample.held.get(key)
        if due and (held is None or held.version < due):
            version = 0 if held is None else held.version
            text = f"at {sample.at:.3f} it had version {version}, complete up to {claim.lsn} means {due}"
            findings.add(Checker.MIRROR, key, text)
