"""The domain topics against what was committed. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from campaign.evidence import Evidence, Place
from campaign.finding import Checker, Findings
from campaign.oracle import ExpectedEvent, Key, token
from examples.main_job.evidence import AppendedRecord
from examples.main_job.murmur2 import partition_of
from rowcast.errors import MalformedEventError
from rowcast.event import DomainEvent, decode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Appended(NamedTuple):
    """An event as it stands on a topic."""

    event: DomainEvent
    record: AppendedRecord

    @property
    def place(self) -> Place:
        """Topic and partition."""
        return self.record.topic, self.record.partition


Topics = Mapping[Key, Mapping[int, Appended]]
Expected = Mapping[Key, Sequence[ExpectedEvent]]


def check_topics(evidence: Evidence, findings: Findings) -> tuple[Topics, Expected]:
    """
    Check all records by themselves and against what was committed.

    Returns each aggregate's events by version, and what had to be published, with what somebody asked for at the places
    where it stands.
    """
    logs: dict[Key, list[Appended]] = defaultdict(list)
    for record in evidence.records:
        try:
            event = decode(record.topic, record.key, record.value, record.headers)
        except MalformedEventError as error:
            findings.add(Checker.PHANTOM, None, f"{record.topic} {record.partition}/{record.offset}: {error}")
            continue
        key = event.identity.aggregate, event.identity.id_text
        logs[key].append(Appended(event, record))
        if evidence.partitions and record.partition != partition_of(record.key or b"", evidence.partitions):
            findings.add(Checker.PHANTOM, key, f"version {event.version} stands in partition {record.partition}")
    topics = {key: _check_log(key, log, findings) for key, log in logs.items()}
    expected: dict[Key, Sequence[ExpectedEvent]] = {}
    for key in {**dict.fromkeys(evidence.expected), **dict.fromkeys(topics)}:
        versions = topics.get(key, {})
        expected[key] = _placed(evidence.expected.get(key, ()), versions, evidence.sent_again.get(key[0], 0))
        _check_changes(key, expected[key], versions, findings)
        _check_former(key, versions, findings)
    return topics, expected


def _placed(
    history: Sequence[ExpectedEvent], versions: Mapping[int, Appended], sent_again: int
) -> Sequence[ExpectedEvent]:
    """
    *history* with the positions of what was asked for, and with what was sent again, at most so often.

    Only the log tells where it stands: between two commits, at a moment that nobody else knows. What does not fit
    stays as it is, for the comparison.
    """
    placed: list[ExpectedEvent] = []
    waiting = list(reversed(history))
    for appended in versions.values():
        event, last = appended.event, placed[-1] if placed else None
        if waiting and _wanted(_at(waiting[-1], event)) == _said(event, _at(waiting[-1], event)):
            placed.append(_at(waiting.pop(), event))
        elif sent_again and last is not None and _is_repeated(event, last):
            sent_again -= 1
            placed.append(_at(last._replace(kind="snapshot", asked=True), event))
        else:
            break
    placed += reversed(waiting)
    return [each._replace(version=number) for number, each in enumerate(placed, 1)]


def _at(expected: ExpectedEvent, event: DomainEvent) -> ExpectedEvent:
    if not expected.asked:
        return expected
    return expected._replace(lsn=event.position, moment_us=None, context={})


def _is_repeated(event: DomainEvent, last: ExpectedEvent) -> bool:
    same = token([event.after, event.ancestors]) == token([last.after, last.ancestors])
    behind = event.position >= (last.lsn or 0)
    return event.name == "snapshot" and event.after is not None and same and behind and not event.context


def _check_log(key: Key, log: Sequence[Appended], findings: Findings) -> dict[int, Appended]:
    versions: dict[int, Appended] = {}
    highest = 0
    for appended in log:
        version, record = appended.event.version, appended.record
        known = versions.setdefault(version, appended)
        if known is not appended:
            same = (known.record.value, known.record.headers) == (record.value, record.headers)
            at = f"version {version} at {known.record.offset} and at {record.offset}"
            findings.add(Checker.REPEATED if same else Checker.TWO_CONTENTS, key, at)
        elif version < highest:
            findings.add(Checker.INVERSION, key, f"version {version} stands behind version {highest}")
        highest = max(highest, version)
    if log[-1].event.version != highest:
        findings.add(Checker.LAST_RECORD, key, f"its last record is version {log[-1].event.version} of {highest}")
    for missing in sorted(set(range(1, highest)) - versions.keys())[:3]:
        findings.add(Checker.HOLE, key, f"version {missing} is missing, {highest} is there")
    return dict(sorted(versions.items()))


def _check_changes(
    key: Key, expected: Sequence[ExpectedEvent], versions: Mapping[int, Appended], findings: Findings
) -> None:
    found = list(versions.values())
    wanted = [_wanted(each) for each in expected]
    said = [_said(each.event, expected[place] if place < len(expected) else None) for place, each in enumerate(found)]
    if wanted == said:
        return
    for tag, low, high, start, stop in SequenceMatcher(None, wanted, said, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for each in expected[low:high]:
            findings.add(Checker.LOST, key, f"no event as version {each.version}: {_wanted(each).decode()[:300]}")
        for extra in found[start:stop]:
            said_of = _said(extra.event, None).decode()
            findings.add(Checker.PHANTOM, key, f"version {extra.event.version}: {said_of[:300]}")


def _wanted(event: ExpectedEvent) -> bytes:
    lsn = None if event.kind == "snapshot" else event.lsn
    return token([event.kind, lsn, event.moment_us, event.after, event.ancestors, event.context])


def _said(event: DomainEvent, expected: ExpectedEvent | None) -> bytes:
    """What *event* says; when, only where that is known of what is *expected* in its place."""
    lsn = None if event.name == "snapshot" else event.position
    timed = expected is not None and expected.moment_us is not None
    moment_us = moment(event) if timed else None
    return token([event.name, lsn, moment_us, event.after, event.ancestors, event.context])


def moment(event: DomainEvent) -> int:
    """When the transaction of *event* was committed, as it says (Unix time in microseconds)."""
    return (datetime.fromisoformat(event.time) - _EPOCH) // timedelta(microseconds=1)


def _check_former(key: Key, versions: Mapping[int, Appended], findings: Findings) -> None:
    """`before` has to lead back to the version before it."""
    known: tuple[Any, Any] | None = None
    number = 0
    for version, appended in versions.items():
        event = appended.event
        if version == number + 1 and token(event.before) != token(_former(event, known)):
            findings.add(Checker.FORMER, key, f"version {version} says before {str(event.before)[:200]}")
        known, number = (event.after, dict(event.ancestors)), version


def _former(event: DomainEvent, known: tuple[Any, Any] | None) -> Any:
    if known is None or known[0] is None or event.name == "created":
        return None
    after, ancestors = known
    if event.after is None:
        return after
    former = {name: value for name, value in after.items() if token(value) != token(event.after.get(name))}
    return former if token(ancestors) == token(event.ancestors) else {**former, "ancestors": ancestors}
