"""The domain topics against what was committed. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from campaign.evidence import Evidence, Place
from campaign.finding import Checker, Findings
from campaign.oracle import ExpectedEvent, Key, token
from examples.main_job.evidence import AppendedRecord
from rowcast.errors import MalformedEventError
from rowcast.event import DomainEvent, decode


class Appended(NamedTuple):
    """An event as it stands on a topic."""

    event: DomainEvent
    record: AppendedRecord

    @property
    def place(self) -> Place:
        """Topic and partition."""
        return self.record.topic, self.record.partition


Topics = Mapping[Key, Mapping[int, Appended]]


def check_topics(evidence: Evidence, findings: Findings) -> Topics:
    """Check all records by themselves and against what was committed; returns each aggregate's events by version."""
    logs: dict[Key, list[Appended]] = defaultdict(list)
    for record in evidence.records:
        try:
            event = decode(record.topic, record.key, record.value, record.headers)
        except MalformedEventError as error:
            findings.add(Checker.PHANTOM, None, f"{record.topic} {record.partition}/{record.offset}: {error}")
            continue
        logs[event.identity.aggregate, event.identity.id_text].append(Appended(event, record))
    topics = {key: _check_log(key, log, findings) for key, log in logs.items()}
    for key in {**dict.fromkeys(evidence.expected), **dict.fromkeys(topics)}:
        versions = topics.get(key, {})
        _check_changes(key, evidence.expected.get(key, ()), versions, findings)
        _check_former(key, versions, findings)
    return topics


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
    wanted, said = [_wanted(each) for each in expected], [_said(each.event) for each in found]
    if wanted == said:
        return
    for tag, low, high, start, stop in SequenceMatcher(None, wanted, said, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for each in expected[low:high]:
            findings.add(Checker.LOST, key, f"no event as version {each.version}: {_wanted(each).decode()[:300]}")
        for extra in found[start:stop]:
            findings.add(Checker.PHANTOM, key, f"version {extra.event.version}: {_said(extra.event).decode()[:300]}")


def _wanted(event: ExpectedEvent) -> bytes:
    return token([event.kind, event.lsn, event.after, event.ancestors])


def _said(event: DomainEvent) -> bytes:
    lsn = None if event.name == "snapshot" else event.position
    return token([event.name, lsn, event.after, event.ancestors])


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
    if known is None or known[0] is None or event.name in ("created", "snapshot"):
        return None
    after, ancestors = known
    if event.after is None:
        return after
    former = {name: value for name, value in after.items() if token(value) != token(event.after.get(name))}
    return former if token(ancestors) == token(event.ancestors) else {**former, "ancestors": ancestors}
