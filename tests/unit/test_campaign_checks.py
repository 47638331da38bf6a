"""Every checker of the campaign finds the defect that it is for, planted into the evidence of a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from campaign.consumer_checks import freshness_s
from campaign.evidence import Claim, Effect, Evidence, HaltReason, Held, Sample
from campaign.finding import Checker
from campaign.judgement import judge
from campaign.oracle import Commit, ExpectedEvent, expected_events
from campaign.random_schema import Type
from campaign.rows import RowChange
from examples.main_job.evidence import AppendedRecord
from rowcast.event import DomainEvent, EventKind
from rowcast.identity import Identity
from rowcast.sources.field import FieldDefinition

FIELDS = {"name": FieldDefinition(place="c0")}
TYPES = [Type("thing", 0, {"k0": "integer", "c0": "text"}, ("k0",), None, (), FIELDS)]
TOPIC = "shop.thing.v1"
KEY = ("thing", "1")


def row(key: int, name: str | None) -> dict[str, Any]:
    return {"k0": key, "c0": name}


def domain_event(expected: ExpectedEvent, before: Any) -> DomainEvent:
    return DomainEvent(
        identity=Identity("shop", expected.key[0], (expected.key[1],)),
        domain="shop",
        kind=EventKind(expected.kind),
        major=1,
        version=expected.version,
        position=expected.lsn or 50,
        time=datetime.fromtimestamp((expected.moment_us or 0) / 1_000_000, UTC).isoformat(),
        source_uri="/shop",
        dataschema="urn:test",
        after=expected.after,
        before=before,
        ancestors=expected.ancestors,
        context={},
    )


def appended(offset: int, event: DomainEvent) -> AppendedRecord:
    record = event.encode()
    return AppendedRecord(record.topic, 0, offset, 1_000 + offset, record.key, record.value, record.headers)


def clean_round() -> Evidence:
    """Two rows from before, then four transactions; each is on the topic and applied, in order, a second later."""
    initial = {("thing", (number,)): row(number, "old") for number in (1, 2)}
    changes = [row(1, "a"), row(3, "new"), row(1, "b"), None]
    commits = [
        Commit(
            number,
            100 * number,
            1_000.0 + number,
            [RowChange("thing", (2,), None) if new is None else RowChange("thing", None, new)],
            (1_000 + number) * 1_000_000,
        )
        for number, new in enumerate(changes, 1)
    ]
    expected = expected_events(TYPES, initial, commits)
    events = sorted((each for found in expected.values() for each in found), key=lambda each: each.lsn or 0)
    former: dict[Any, Any] = {}
    records, effects, samples, held = [], [], [], dict[Any, Held]()
    for offset, each in enumerate(events):
        before = None if each.kind in ("snapshot", "created") else former[each.key]
        records.append(appended(offset, domain_event(each, before)))
        former[each.key] = each.after
        effects.append(Effect(offset, each.key, each.version, f"{each.key[1]}:{each.version}", 1_002.0 + offset))
        held = {**held, each.key: Held(each.version, each.after, each.ancestors)}
        samples.append(Sample(2_000.0 + offset, held))
    claims = [
        Claim(1, commit.lsn, 1_000.5 + number, {(TOPIC, 0): len(initial) + number}, 1_999.0)
        for number, commit in enumerate(commits, 1)
    ]
    return Evidence(
        expected=expected, commits=commits, records=records, effects=effects, final=held, samples=samples, claims=claims
    )


def without(values: Any, place: int) -> list[Any]:
    return [*values[:place], *values[place + 1 :]]


def swapped(values: Any, place: int, other: int) -> list[Any]:
    made = list(values)
    made[place], made[other] = made[other], made[place]
    return made


def rewritten(evidence: Evidence, place: int, **changes: Any) -> AppendedRecord:
    """The record at *place* with other contents."""
    history = sorted((each for found in evidence.expected.values() for each in found), key=lambda each: each.lsn or 0)
    event = replace(domain_event(history[place], {"name": "old"}), **changes)
    return appended(place, event)


def record_lost(evidence: Evidence) -> Evidence:
    return replace(evidence, records=without(evidence.records, 4))


def last_record_lost(evidence: Evidence) -> Evidence:
    """The tail of an aggregate, of which no version tells."""
    return replace(evidence, records=without(evidence.records, 5))


def effect_lost(evidence: Evidence) -> Evidence:
    return replace(evidence, effects=without(evidence.effects, 3))


def never_committed(evidence: Evidence) -> Evidence:
    """A further version of the second row."""
    known = evidence.expected["thing", "2"][-1]
    more = ExpectedEvent(known.key, 3, "created", 400, {"name": "ghost"}, {})
    return replace(evidence, records=[*evidence.records, appended(6, domain_event(more, None))])


def other_position(evidence: Evidence) -> Evidence:
    return replace(
        evidence, records=[*evidence.records[:2], rewritten(evidence, 2, position=101), *evidence.records[3:]]
    )


def no_event(evidence: Evidence) -> Evidence:
    broken = evidence.records[0]._replace(value=b"{")
    return replace(evidence, records=[broken, *evidence.records[1:]])


def effect_without_record(evidence: Evidence) -> Evidence:
    return replace(evidence, effects=[*evidence.effects, Effect(9, KEY, 4, "", 1_010.0)])


def effect_twice(evidence: Evidence) -> Evidence:
    return replace(evidence, effects=[*evidence.effects, evidence.effects[0]._replace(seq=9)])


def effects_swapped(evidence: Evidence) -> Evidence:
    first, second = evidence.effects[2], evidence.effects[4]
    made = [each for each in evidence.effects if each not in (first, second)]
    return replace(evidence, effects=[*made, first._replace(seq=4), second._replace(seq=2)])


def records_swapped(evidence: Evidence) -> Evidence:
    return replace(evidence, records=swapped(evidence.records, 2, 4))


def other_contents(evidence: Evidence) -> Evidence:
    return replace(evidence, records=[*evidence.records, rewritten(evidence, 4, after={"name": "c"})])


def same_record_twice(evidence: Evidence) -> Evidence:
    return replace(evidence, records=[*evidence.records, evidence.records[4]._replace(offset=6)])


def older_record_last(evidence: Evidence) -> Evidence:
    return replace(evidence, records=[*evidence.records, evidence.records[2]._replace(offset=6)])


def wrong_before(evidence: Evidence) -> Evidence:
    wrong = rewritten(evidence, 2, before={"name": "never"})
    return replace(evidence, records=[*evidence.records[:2], wrong, *evidence.records[3:]])


def context_of_another(evidence: Evidence) -> Evidence:
    wrong = rewritten(evidence, 4, context={"actor": "somebody else"})
    return replace(evidence, records=[*evidence.records[:4], wrong, *evidence.records[5:]])


def other_moment(evidence: Evidence) -> Evidence:
    """It says another time than that of its commit."""
    history = evidence.expected[KEY]
    timed = [*history[:-1], history[-1]._replace(moment_us=1_000_000)]
    return replace(evidence, expected={**evidence.expected, KEY: timed})


def in_another_partition(evidence: Evidence) -> Evidence:
    """All stand in the first of three partitions."""
    return replace(evidence, partitions=3)


def refused_and_not_named(evidence: Evidence) -> Evidence:
    return replace(evidence, refused=[(0, {}), (evidence.commits[1].lsn, {"thing": 1})])


def halted(evidence: Evidence) -> Evidence:
    """Of the last two transactions nothing comes, and the progress record behind them calls the type halted."""
    told = evidence.claims[-1]._replace(ends={(TOPIC, 0): 4}, halted={"thing": 1_003.0})
    return replace(evidence, claims=[*evidence.claims[:2], told])


def halted_for_a_reason(evidence: Evidence, since: float, until: float = 2_000.0) -> Evidence:
    return replace(halted(evidence), halts={"thing": [HaltReason(since, until)]})


def halted_before_its_reason(evidence: Evidence) -> Evidence:
    return halted_for_a_reason(evidence, 1_003.5)


def halted_for_ever(evidence: Evidence) -> Evidence:
    """Somebody was told that it is over."""
    return halted_for_a_reason(evidence, 1_002.5, 1_003.0)


def incomplete_before_the_halt(evidence: Evidence) -> Evidence:
    """The second transaction, which came before the reason, is not below the offsets either."""
    made = halted_for_a_reason(evidence, 1_002.5)
    return replace(made, claims=[made.claims[-1]._replace(ends={(TOPIC, 0): 3})])


def sample_behind_a_halted_claim(evidence: Evidence) -> Evidence:
    """What the halted type had before the reason is missing at a consumer that has read up to the offsets."""
    made = halted_for_a_reason(evidence, 1_002.5)
    return replace(made, claims=[made.claims[-1]._replace(ends={(TOPIC, 0): 3})], samples=evidence.samples[2:3])


def refused_before_the_halt_and_not_named(evidence: Evidence) -> Evidence:
    return replace(halted_for_a_reason(evidence, 1_002.5), refused=[(0, {}), (evidence.commits[1].lsn, {"thing": 1})])


def sent_again(evidence: Evidence) -> Evidence:
    """The last state of the first row once more, with its next version, which was applied."""
    last = evidence.expected[KEY][-1]
    again = replace(domain_event(last, {}), kind=EventKind.SNAPSHOT, version=4, position=evidence.commits[-1].lsn)
    effect = Effect(9, KEY, 4, "", 1_010.0)
    final = {**evidence.final, KEY: Held(4, last.after, last.ancestors)}
    return replace(
        evidence, records=[*evidence.records, appended(6, again)], effects=[*evidence.effects, effect], final=final
    )


def sent_again_with_another_state(evidence: Evidence) -> Evidence:
    """Somebody asked for what was published, and got an older state."""
    made = sent_again(evidence)
    older = rewritten(evidence, 2, kind=EventKind.SNAPSHOT, version=4, before={"name": "b"})
    return replace(made, records=[*evidence.records, older._replace(offset=6)], sent_again={"thing": 1})


def hidden_change_not_found(evidence: Evidence) -> Evidence:
    """What changed unseen was to be found by a resync."""
    last = evidence.expected[KEY][-1]
    hidden = last._replace(version=4, kind="snapshot", lsn=None, after={"name": "found"}, asked=True)
    return replace(evidence, expected={**evidence.expected, KEY: [*evidence.expected[KEY], hidden]})


def other_final_state(evidence: Evidence) -> Evidence:
    return replace(evidence, final={**evidence.final, KEY: Held(3, {"name": "z"}, {})})


def other_sampled_state(evidence: Evidence) -> Evidence:
    sample = evidence.samples[3]
    return replace(evidence, samples=[replace(sample, held={**sample.held, KEY: Held(2, {"name": "b"}, {})})])


def sample_behind_its_claim(evidence: Evidence) -> Evidence:
    """All records up to the claim are applied as far as offsets tell, and a change before it is missing."""
    early = evidence.claims[1]._replace(lsn=evidence.commits[2].lsn)
    return replace(evidence, claims=[early], samples=evidence.samples[3:4])


def sample_goes_back(evidence: Evidence) -> Evidence:
    return replace(evidence, samples=[evidence.samples[4], evidence.samples[3]])


def claim_too_early(evidence: Evidence) -> Evidence:
    return replace(evidence, claims=[*evidence.claims[:-1], evidence.claims[-1]._replace(ends={(TOPIC, 0): 5})])


def heartbeat_too_young(evidence: Evidence) -> Evidence:
    return replace(evidence, claims=[evidence.claims[0]._replace(heartbeat_at=1_003.5)])


def newer_epoch_goes_back(evidence: Evidence) -> Evidence:
    return replace(evidence, claims=[*evidence.claims, evidence.claims[0]._replace(epoch=2)])


def applied_late(evidence: Evidence) -> Evidence:
    return replace(evidence, effects=[*evidence.effects[:-1], evidence.effects[-1]._replace(committed_at=1_304.5)])


PLANTS: list[tuple[Callable[[Evidence], Evidence], Checker]] = [
    (record_lost, Checker.LOST),
    (last_record_lost, Checker.LOST),
    (effect_lost, Checker.LOST),
    (never_committed, Checker.PHANTOM),
    (other_position, Checker.PHANTOM),
    (no_event, Checker.PHANTOM),
    (effect_without_record, Checker.PHANTOM),
    (effect_twice, Checker.DOUBLE_EFFECT),
    (effects_swapped, Checker.INVERSION),
    (records_swapped, Checker.INVERSION),
    (sample_goes_back, Checker.INVERSION),
    (lambda evidence: replace(evidence, records=without(evidence.records, 2)), Checker.HOLE),
    (other_contents, Checker.TWO_CONTENTS),
    (same_record_twice, Checker.REPEATED),
    (older_record_last, Checker.LAST_RECORD),
    (wrong_before, Checker.FORMER),
    (context_of_another, Checker.PHANTOM),
    (other_moment, Checker.PHANTOM),
    (in_another_partition, Checker.PHANTOM),
    (refused_and_not_named, Checker.PROGRESS),
    (halted, Checker.PROGRESS),
    (halted_before_its_reason, Checker.PROGRESS),
    (halted_for_ever, Checker.PROGRESS),
    (incomplete_before_the_halt, Checker.PROGRESS),
    (sample_behind_a_halted_claim, Checker.MIRROR),
    (refused_before_the_halt_and_not_named, Checker.PROGRESS),
    (sent_again, Checker.PHANTOM),
    (sent_again_with_another_state, Checker.PHANTOM),
    (hidden_change_not_found, Checker.LOST),
    (other_final_state, Checker.MIRROR),
    (other_sampled_state, Checker.MIRROR),
    (sample_behind_its_claim, Checker.MIRROR),
    (claim_too_early, Checker.PROGRESS),
    (heartbeat_too_young, Checker.PROGRESS),
    (newer_epoch_goes_back, Checker.PROGRESS),
    (applied_late, Checker.STALE),
]


def test_a_round_without_defects_has_no_finding() -> None:
    """What the defects are planted into is clean."""
    evidence = clean_round()
    assert [len(each) for each in evidence.expected.values()] == [3, 2, 1]
    assert judge(evidence).found == []
    assert freshness_s(evidence) == 3.0


@pytest.mark.parametrize(("plant", "checker"), PLANTS)
def test_a_planted_defect_is_found_by_its_checker(plant: Callable[[Evidence], Evidence], checker: Checker) -> None:
    """One defect, and the checker that is for it."""
    findings = judge(plant(clean_round()))
    assert checker in {each.checker for each in findings.found}
    assert findings.counts()[checker] > 0


def test_what_was_asked_for_is_no_finding() -> None:
    """Sent again at most as often as somebody asked for it; found by a resync wherever that stands in the log."""
    again = sent_again(clean_round())
    assert judge(replace(again, sent_again={"thing": 1})).found == []
    found = replace(again, expected=hidden_change_not_found(clean_round()).expected)
    last = found.expected[KEY][-1]._replace(after=clean_round().expected[KEY][-1].after)
    assert judge(replace(found, expected={**found.expected, KEY: [*found.expected[KEY][:-1], last]})).found == []


def test_a_type_that_somebody_made_unfit_may_be_called_halted() -> None:
    """Nothing is asked of it from then on: neither its events below the offsets, nor who of it is refused meanwhile."""
    evidence = halted_for_a_reason(clean_round(), 1_002.5)
    assert judge(evidence).found == []
    assert judge(replace(evidence, samples=evidence.samples[3:4])).found == []
    refused = [(0, {}), (evidence.commits[2].lsn, {"thing": 1})]
    assert judge(replace(evidence, refused=refused)).found == []


def test_epochs_go_back_where_the_control_database_does() -> None:
    """And only there: what is told afterwards is compared with what was told afterwards."""
    evidence = clean_round()
    again = [each._replace(epoch=2, appended_at=2_001.0) for each in evidence.claims]
    restored = replace(evidence, claims=[*evidence.claims, *again], restored_at=2_000.0)
    assert judge(restored).found == []
    back = again[0]._replace(epoch=3, appended_at=2_002.0)
    assert judge(replace(restored, claims=[*restored.claims, back])).counts()[Checker.PROGRESS] == 1


def test_every_checker_of_evidence_is_tried() -> None:
    """`stopped` is about processes, not about evidence."""
    assert {checker for _, checker in PLANTS} == set(Checker) - {Checker.STOPPED}
