"""The verdict on runs with and without planted defects: real-looking records of all four parties."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest
from recorded_run import (
    PARTITIONS,
    Inventory,
    Pipeline,
    a_run,
    counts,
    header,
    live,
    record_with,
    swapped_with,
    without_applied,
)

from examples.inventory.published import Key, State
from examples.main_job.defects import DefectKind
from examples.main_job.expectation import final_states
from examples.main_job.murmur2 import murmur2
from examples.main_job.verdict import NoComparisonError, judge

NOTHING = {"lost": 0, "duplicate_effects": 0, "out_of_order": 0, "invalid": 0}


@pytest.mark.parametrize("seed", range(5))
def test_faultless_run_is_clean(seed: int) -> None:
    """Records of a faultless run give no defect, and every live event is traced to its transaction."""
    evidence = a_run(seed)

    verdict = judge(evidence)

    assert [str(defect) for defect in verdict.defects] == []
    snapshot_events = len(evidence.initial)
    assert len(verdict.behind) == len(evidence.appended) - snapshot_events


def test_second_run_on_the_same_topics_is_clean() -> None:
    """Events of earlier runs are history: the load's first change follows the last of them."""
    evidence = a_run()
    half = evidence.transactions[60].ticket
    first = [each for each in evidence.transactions if each.ticket <= half]
    between = final_states(evidence.initial, first)
    live_from = dict.fromkeys(evidence.live_from, 0)
    for record in evidence.appended:
        if int(header(record, "ce_rowcastposition")) <= half * 8:
            live_from[record.topic, record.partition] = record.offset + 1

    verdict = judge(
        replace(
            evidence, initial=between, transactions=evidence.transactions[61:], live_from=live_from, fresh=False
        )
    )  # fmt: skip

    assert [str(defect) for defect in verdict.defects] == []


def test_event_that_never_came_out_is_lost() -> None:
    """A committed change without an event is one lost change, found where it belongs."""
    evidence = a_run()
    record = live(evidence)[3]
    event_id = header(record, "ce_id")

    verdict = judge(
        replace(
            evidence,
            appended=[each for each in evidence.appended if each is not record],
            applied=without_applied(evidence, event_id),
        )
    )

    assert counts(verdict)["lost"] == 1
    assert verdict.of(DefectKind.LOST)[0].version == int(header(record, "ce_sequence"))
    assert verdict.of(DefectKind.LOST)[0].key == Key(event_id.split(":")[0], header(record, "ce_subject"))


def test_last_event_of_an_aggregate_lost_without_a_hole() -> None:
    """A lost newest event leaves no hole in the versions and is found all the same."""
    evidence = a_run()
    record = live(evidence, "deleted")[-1]

    verdict = judge(
        replace(
            evidence,
            appended=[each for each in evidence.appended if each is not record],
            applied=without_applied(evidence, header(record, "ce_id")),
        )
    )

    assert counts(verdict) == {**NOTHING, "lost": 1}


def test_snapshot_event_missing_is_lost() -> None:
    """A row from before the capture that never came out is lost."""
    evidence = a_run()
    versions = [header(record, "ce_subject") for record in evidence.appended]
    record = record_with(evidence, lambda each: versions.count(header(each, "ce_subject")) == 1)

    verdict = judge(
        replace(
            evidence,
            appended=[each for each in evidence.appended if each is not record],
            applied=without_applied(evidence, header(record, "ce_id")),
        )
    )

    assert counts(verdict) == {**NOTHING, "lost": 1}


def test_event_never_applied_is_lost() -> None:
    """An event on the topics that the consumer never noted is lost."""
    evidence = a_run()
    event_id = header(live(evidence)[5], "ce_id")

    verdict = judge(replace(evidence, applied=without_applied(evidence, event_id)))

    assert counts(verdict) == {**NOTHING, "lost": 1}


def test_event_applied_twice_is_a_duplicate_effect() -> None:
    """The same event noted twice by the handler is a duplicate effect, wherever the second time stands."""
    evidence = a_run()
    row = evidence.applied[60]

    verdict = judge(replace(evidence, applied=[*evidence.applied, row._replace(seq=len(evidence.applied) + 1)]))

    assert counts(verdict) == {**NOTHING, "duplicate_effects": 1}


def test_version_issued_twice_with_other_content_is_a_duplicate_effect() -> None:
    """Two different records for one version of an aggregate are a duplicate effect; byte-equal ones are not."""
    evidence = a_run()
    record = live(evidence)[-1]
    again = record._replace(offset=10_000)
    other = again._replace(headers=(*record.headers, ("ce_traceparent", b"00-1-1-00")))

    assert counts(judge(replace(evidence, appended=[*evidence.appended, again]))) == NOTHING
    assert counts(judge(replace(evidence, appended=[*evidence.appended, other])))["duplicate_effects"] == 1


def test_events_applied_in_the_wrong_order() -> None:
    """Two versions of one aggregate applied the wrong way round are out of order."""
    evidence = a_run()
    second = next(row for row in evidence.applied if row.version == 2)
    first = next(row for row in evidence.applied if row.version == 1 and row.id_text == second.id_text)
    swapped = [
        row._replace(seq={first.seq: second.seq, second.seq: first.seq}.get(row.seq, row.seq))
        for row in evidence.applied
    ]

    verdict = judge(replace(evidence, applied=swapped))

    assert counts(verdict) == {**NOTHING, "out_of_order": 1}


def test_events_appended_in_the_wrong_order() -> None:
    """Two versions of one aggregate appended the wrong way round are out of order."""
    evidence = a_run()
    third = next(each for each in live(evidence) if int(header(each, "ce_sequence")) == 3)
    second = record_with(
        evidence,
        lambda each: header(each, "ce_subject") == third.key.decode() and int(header(each, "ce_sequence")) == 2,  # type: ignore[union-attr]  # live records have a key
    )
    places = {second.offset: third.offset, third.offset: second.offset}
    appended = [
        each._replace(offset=places[each.offset]) if each in (second, third) else each for each in evidence.appended
    ]

    verdict = judge(replace(evidence, appended=appended))

    assert counts(verdict) == {**NOTHING, "out_of_order": 1}


@pytest.mark.parametrize(
    "corruption",
    [
        {"value": b"{"},
        {"value": orjson.dumps({"after": {}, "before": None, "ancestors": {}, "context": {}})},
        {"headers": ()},
        {"key": b"another"},
    ],
)
def test_corrupt_record_is_invalid(corruption: dict[str, Any]) -> None:
    """A record that is no event, breaks its schema or carries another key is invalid."""
    evidence = a_run()

    verdict = judge(replace(evidence, appended=swapped_with(evidence, live(evidence)[2], **corruption)))

    assert counts(verdict)["invalid"] >= 1


@pytest.mark.parametrize("aspect", ["after", "ancestors", "before", "context"])
def test_valid_event_that_says_something_else_is_invalid(aspect: str) -> None:
    """An event that its schema accepts but that disagrees with what was committed is invalid, once."""
    evidence = a_run()
    record = next(each for each in live(evidence) if each.topic == "inventory.item.v1")
    value = orjson.loads(record.value or b"")
    match aspect:
        case "after":
            value["after"]["hrid"] = "it-of-another"
        case "ancestors":
            value["ancestors"]["instance"] = [str(UUID(int=7))]
        case "before":
            value["before"] = {}
        case _:
            value["context"] = {"actor": "somebody else"}

    verdict = judge(replace(evidence, appended=swapped_with(evidence, record, value=orjson.dumps(value))))

    assert {name for name, count in counts(verdict).items() if count} == {"invalid"}


def test_record_in_the_wrong_partition_is_invalid() -> None:
    """A record that another client would not look for in that partition is invalid."""
    evidence = a_run()
    record = live(evidence)[0]
    elsewhere = (record.partition + 1) % PARTITIONS

    verdict = judge(
        replace(evidence, appended=swapped_with(evidence, record, partition=elsewhere, offset=9_999))
    )  # fmt: skip

    assert counts(verdict)["invalid"] == 1


def test_event_of_a_rolled_back_change_is_invalid() -> None:
    """An event without a committed change is invalid, be its aggregate known or not."""
    evidence = a_run()
    pipeline = Pipeline(ends=dict.fromkeys(evidence.live_from, 5000))
    inventory = Inventory(Random(99), dict(evidence.final))
    known = next(key for key in evidence.final if key.aggregate == "instance")
    newest = max(row.version for row in evidence.applied if row.id_text == known.id_text)
    pipeline.said[known] = (newest, evidence.final[known])
    pipeline.say(known, inventory.changed(known, title="Rolled back")[known], position=10_000)
    pipeline.say(*inventory.instance(), position=10_000)
    applied = [row._replace(seq=row.seq + 10_000) for row in pipeline.applied]

    verdict = judge(
        replace(
            evidence, appended=[*evidence.appended, *pipeline.appended], applied=[*evidence.applied, *applied]
        )
    )  # fmt: skip

    assert counts(verdict) == {**NOTHING, "invalid": 2}


def test_applied_event_that_is_on_no_topic_is_invalid() -> None:
    """An effect without an event is invalid."""
    evidence = a_run()
    ghost = evidence.applied[-1]._replace(seq=10_000, version=99, event_id="item:x:99")

    verdict = judge(replace(evidence, applied=[*evidence.applied, ghost]))

    assert counts(verdict) == {**NOTHING, "invalid": 1}


def test_compacted_hole_is_excused() -> None:
    """A missing version is excused when the record behind it is older than the window, and only then."""
    evidence = a_run()
    third = next(each for each in live(evidence) if int(header(each, "ce_sequence")) == 3)
    appended = [
        each
        for each in evidence.appended
        if header(each, "ce_subject") != header(third, "ce_subject") or int(header(each, "ce_sequence")) > 1
    ]
    history = replace(evidence, appended=appended, fresh=False)

    assert counts(judge(history))["lost"] >= 1
    assert not [
        defect
        for defect in judge(replace(history, compacted_before_ms=20_000)).defects
        if "an event before version" in defect.expected
    ]


def test_foreign_write_to_the_source_allows_no_comparison() -> None:
    """When the load's log does not lead to the final rows, there is no verdict."""
    evidence = a_run()
    final = dict(evidence.final)
    final.pop(next(iter(final)))

    with pytest.raises(NoComparisonError):
        judge(replace(evidence, final=final))


def test_times_are_compared_as_instants() -> None:
    """The same instant written with other digits or another zone is the same state."""
    evidence = a_run()
    record = next(each for each in evidence.appended if each.topic == "inventory.item.v1")
    key = Key("item", header(record, "ce_subject"))
    state = evidence.initial[key]
    assert state.after is not None
    text = state.after["updated_at"].replace("Z", "+00:00")
    initial = {**evidence.initial, key: State({**state.after, "updated_at": text}, state.ancestors)}

    assert (
        counts(judge(replace(evidence, initial=initial, final=final_states(initial, evidence.transactions)))) == NOTHING
    )


@pytest.mark.parametrize(
    ("key", "hash_value"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_murmur2_is_the_one_of_the_java_client(key: bytes, hash_value: int) -> None:
    """The hash equals the published values of the Java client's own test."""
    assert murmur2(key) == hash_value & 0xFFFFFFFF
