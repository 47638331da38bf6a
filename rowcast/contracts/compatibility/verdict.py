"""
The verdict on two schemas: may each side read what the other's writer emits?

``true`` is proven, and neither the second opinion nor a search for counterexamples speaks against it. ``false`` has an
instance that the writer emits and the reader rejects, as both validators confirm. All else is undecided: ``null``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from rowcast.contracts.compatibility.document import SchemaDocument, escape
from rowcast.contracts.compatibility.gap import Gap
from rowcast.contracts.compatibility.inclusion import Inclusion
from rowcast.contracts.compatibility.instances import Instances
from rowcast.contracts.compatibility.reservation import removed_and_reused
from rowcast.contracts.compatibility.rules import BACKWARD, FORWARD, POLICY, RULES, rule_of
from rowcast.contracts.compatibility.second_opinion import denies
from rowcast.contracts.compatibility.validator import Judges

_TRIES_PER_GAP = 120
_TRIES_AT_RANDOM = 100
_GAPS_MAX = 60
_AFFECTED = {
    BACKWARD: "; readers of the new version reject documents of the old one",
    FORWARD: "; readers of the old version reject documents of the new one",
    POLICY: "",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One difference that matters.

    *pointer* leads into the new schema where the place is there, else into the old one; *old* and *new* are the
    keyword's values. *witness*: an instance that the writer of *direction* emits and the reader rejects.
    """

    rule: str
    direction: str
    pointer: str
    old: Any
    new: Any
    witness: Any
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether new readers read old documents (*backward*), and old readers new ones (*forward*); None: undecided."""

    backward: bool | None
    forward: bool | None
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """As `schemas diff --json` prints it."""
        findings = [asdict(finding) for finding in self.findings]
        return {"backward": self.backward, "forward": self.forward, "findings": findings}


def compare(old: Any, new: Any) -> Comparison:
    """
    The verdict on the schemas *old* and *new*, both valid JSON Schemas.

    Nothing is fetched: a reference that leads out of its schema leaves the question undecided.
    """
    older, newer = SchemaDocument("old", old), SchemaDocument("new", new)
    try:
        backward, first = _judge(older, newer, BACKWARD)
        forward, second = _judge(newer, older, FORWARD)
        policy = [Finding(*each, None, *_told(each[0], each[1], each[2])) for each in removed_and_reused(older, newer)]
    except RecursionError:
        deep = tuple(_undecided(direction, "", "nested too deeply") for direction in (BACKWARD, FORWARD))
        return Comparison(None, None, deep)
    return Comparison(backward, forward, (*first, *second, *policy))


def reads(writer: Any, reader: Any) -> tuple[bool | None, tuple[Finding, ...]]:
    """Whether the schema *reader* accepts every document that a writer of *writer* may emit, and what shows if not."""
    verdict, findings = _judge(SchemaDocument("writer", writer), SchemaDocument("reader", reader), BACKWARD)
    return verdict, tuple(findings)


def _told(rule: str, direction: str, pointer: str, about: str = "") -> tuple[str, str]:
    return f"{pointer or '/'}: {RULES[rule].purpose}{about}{_AFFECTED[direction]}", RULES[rule].fix


def _judge(writer: SchemaDocument, reader: SchemaDocument, direction: str) -> tuple[bool | None, list[Finding]]:
    for side in (writer, reader):
        if side.foreign_dialect is not None:
            return None, [_undecided(direction, "/$schema", f"{side.name} is in the dialect {side.foreign_dialect}")]
    try:
        judges = Judges(writer), Judges(reader)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        return None, [_undecided(direction, "", f"the schema cannot be compiled: {reason}")]
    try:
        return _decide(writer, reader, judges, direction)
    except RecursionError:
        return None, [_undecided(direction, "", "nested too deeply")]


def _decide(
    writer: SchemaDocument, reader: SchemaDocument, judges: tuple[Judges, Judges], direction: str
) -> tuple[bool | None, list[Finding]]:
    instances = Instances(writer, reader)
    gaps = Inclusion(instances).gaps([writer.node], reader.node)
    trial = _Trial(judges, instances, writer)
    if gaps:
        return _with_gaps(gaps, trial, direction)
    witness = trial.at_random()
    if witness is not None or denies(writer, reader):
        verdict = None if witness is None else False
        return verdict, [_finding("ENGINE_DISAGREEMENT", direction, ("", None, None), witness and witness[0])]
    return True, []


def _with_gaps(gaps: list[Gap], trial: _Trial, direction: str) -> tuple[bool | None, list[Finding]]:
    found: dict[tuple[str, ...], Finding] = {}
    for gap in gaps[:_GAPS_MAX]:
        rule = rule_of(gap, direction)
        place = _place(gap, direction)
        key = (rule, place[0], gap.name if isinstance(gap.name, str) else "")
        if key not in found:
            witness = trial.of_gap(gap)
            if witness is not None:
                found[key] = _finding(rule, direction, place, witness[0], gap)
    if found:
        return False, list(found.values())
    witness = trial.at_random()
    if witness is not None:
        rule = "CONSTRAINT_ADDED" if direction == BACKWARD else "CONSTRAINT_REMOVED"
        return False, [_finding(rule, direction, _place(gaps[0], direction), witness[0])]
    unclear = {}
    for gap in gaps[:_GAPS_MAX]:
        pointer, old, new = _place(gap, direction)
        unclear[pointer] = _undecided(direction, pointer, f"{gap.keyword} could not be decided", old, new)
    return None, list(unclear.values())


class _Trial:
    """Looks for an instance that the writer emits and the reader rejects; a found one is in a tuple of one."""

    def __init__(self, judges: tuple[Judges, Judges], instances: Instances, writer: SchemaDocument) -> None:
        self._writer, self._reader = judges
        self._instances, self._root = instances, writer.node

    def of_gap(self, gap: Gap) -> tuple[Any] | None:
        return self._first(islice(gap.candidates(), _TRIES_PER_GAP))

    def at_random(self) -> tuple[Any] | None:
        return self._first(self._random())

    def _random(self) -> Iterator[Any]:
        for _try in range(_TRIES_AT_RANDOM):
            try:
                yield self._instances.random([self._root])
            except (LookupError, RecursionError):
                continue

    def _first(self, candidates: Iterator[Any]) -> tuple[Any] | None:
        for value in candidates:
            if not self._reader.accepts(value) and self._writer.emitted(value):
                confirmed = self._writer.confirms(value, emitted=True) and self._reader.confirms(value, emitted=False)
                if confirmed:
                    return (value,)
        return None


def _place(gap: Gap, direction: str) -> tuple[str, Any, Any]:
    keyword, reader = gap.keyword, gap.reader
    parts = [part for part in gap.cell.parts if part.document.name != "split"]
    given = next((part for part in parts if part.has(keyword)), None)
    written = None if given is None else given.schema[keyword]
    read = reader.schema[keyword] if reader.has(keyword) else reader.schema
    suffix = f"/{escape(keyword)}" if reader.has(keyword) else ""
    if direction == BACKWARD:
        return reader.pointer + suffix, written, read
    if given is not None:
        return f"{given.pointer}{suffix}", read, written
    return (parts[-1] if parts else reader).pointer, read, written


def _finding(rule: str, direction: str, place: tuple[str, Any, Any], witness: Any, gap: Gap | None = None) -> Finding:
    telling = gap is not None and (isinstance(gap.name, str) or rule.startswith("ENUM_VALUE"))
    about = f": {json.dumps(gap.name, ensure_ascii=False)}" if gap and telling else ""
    return Finding(rule, direction, *place, witness, *_told(rule, direction, place[0], about))


def _undecided(direction: str, pointer: str, reason: str, old: Any = None, new: Any = None) -> Finding:
    return Finding("UNDECIDED", direction, pointer, old, new, None, reason, RULES["UNDECIDED"].fix)
