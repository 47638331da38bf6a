"""
Consumers in the picture: whether each reads what its event's contract promises, and whom a change breaks.

The part of a consumer is a reader, the contract a writer; a consumer is broken by a change when its part rejects a
document of the new writer at a place that the change is about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from rowcast.contracts.checking import Affected, Evidence, Finding, pointer_of, schema_faults
from rowcast.contracts.compatibility.document import Node, SchemaDocument, escape
from rowcast.contracts.compatibility.rules import FORWARD, UNDECIDED
from rowcast.contracts.compatibility.screening import Screening
from rowcast.contracts.consumer_part import ConsumerPart, load_part, part_files
from rowcast.contracts.contract import Contract
from rowcast.contracts.derivation import DIALECT, in_contract
from rowcast.contracts.profile import ROOT_KEYWORDS, Note, check_fields
from rowcast.contracts.remedies import REMEDIES
from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    from rowcast.contracts.compatibility.verdict import Finding as Difference

# The place of a value in an event: names, `*` for any element. ``after`` and ``before`` are one place: the entity.
Place = tuple[str, ...]
_ROOT_KEYWORDS = (ROOT_KEYWORDS - {"$id"}) | {"x-ancestors"}
_ENTITY = {"after", "before"}
_ONLY_OF_CONTRACTS = {"DESCRIPTION_MISSING", "PII_MISSING"}
_SHOWN = 120


class Readership:
    """The consumers' parts below one folder, held against *contracts*: all valid ones of the project."""

    def __init__(self, folder: Path, schemas: Path, contracts: Iterable[Contract]) -> None:
        self._schemas = schemas
        self._newest: dict[tuple[str, str, int], Contract] = {}
        for contract in contracts:
            key = (contract.domain, contract.aggregate, contract.major)
            if key not in self._newest or contract.minor > self._newest[key].minor:
                self._newest[key] = contract
        self._read: dict[tuple[int, int], tuple[Contract, bool | None, tuple[Difference, ...]]] = {}
        self.parts: list[ConsumerPart] = []
        self.findings: list[Finding] = []
        for path, name in part_files(folder):
            if name is None:
                message = "expected <app>/<domain>.<aggregate>.v<major>.json"
                self.findings.append(Finding(str(path), "", "CONSUMER_NAME", message))
                continue
            try:
                part = load_part(path, name)
            except ConfigurationError as error:
                self.findings.append(Finding(str(path), "", "CONSUMER_UNREADABLE", f"{error.message} ({error.fix})"))
                continue
            wrong = list(self._check(part))
            self.findings += wrong
            if not any(finding.rule == "SCHEMA_INVALID" for finding in wrong):
                self.parts.append(part)

    def newest(self, part: ConsumerPart) -> Contract | None:
        """The newest contract of the major that *part* reads; None when there is none that is valid."""
        return self._newest.get((part.domain, part.aggregate, part.major))

    def reads(self, part: ConsumerPart, contract: Contract) -> tuple[bool | None, tuple[Difference, ...]]:
        """Whether *part* accepts every event that *contract* allows, and what shows if not."""
        key = (id(part), id(contract))
        if key not in self._read:
            # The contract is kept, so that its id stays its own.
            self._read[key] = (contract, *_reads(part, contract))
        _contract, verdict, differences = self._read[key]
        return verdict, differences

    def affected(self, older: Contract, newer: Contract, difference: Difference) -> Affected | None:
        """Who is broken by *difference* between two versions; None where no consumer of the event is known."""
        forward = difference.direction == FORWARD
        writer, reader = (newer, older) if forward else (older, newer)
        places = set(_places(reader.value_schema(), difference))
        return self._split(newer, lambda part: _overlap(places, self._refused(part, writer)))

    def edited(self, old: Contract, new: Contract) -> Affected | None:
        """Who reads *old*, and is broken by *new*, which stands in its file."""
        return self._split(new, lambda part: not self.reads(part, new)[0] and bool(self.reads(part, old)[0]))

    def deleted(self, old: Contract) -> Affected | None:
        """Who is left without a contract when *old* is gone."""
        return self._split(old, lambda part: self.newest(part) is None)

    def _split(self, contract: Contract, broken: Callable[[ConsumerPart], bool]) -> Affected | None:
        key = (contract.domain, contract.aggregate, contract.major)
        parts = [part for part in self.parts if (part.domain, part.aggregate, part.major) == key]
        breaks = tuple(part.app for part in parts if broken(part))
        untouched = tuple(part.app for part in parts if part.app not in breaks)
        return Affected(breaks, untouched) if parts else None

    def _refused(self, part: ConsumerPart, writer: Contract) -> set[Place]:
        verdict, differences = self.reads(part, writer)
        if verdict is True:
            return set()
        schema = part.value_schema()
        return {place for each in differences for place in _places(schema, each)}

    def _check(self, part: ConsumerPart) -> Iterator[Finding]:
        file = str(part.path)
        notes = list(_notes(part))
        invalid = list(schema_faults(part.path, part.entity))
        yield from [Finding(file, *note) for note in notes] + invalid
        contract = self.newest(part)
        if contract is None:
            if not any((self._schemas / part.domain / part.aggregate).glob(f"v{part.major}.*.json")):
                yield Finding(file, "", "CONSUMER_EVENT_UNKNOWN", f"there is no contract of {part.event}")
        elif not notes and not invalid:
            for pointer in _unknown_fields(part, contract):
                message = f"is no field of {contract.version}: it is never there"
                yield Finding(file, pointer, "CONSUMER_FIELD_UNKNOWN", message)
            yield from self._broken(part, contract)

    def _broken(self, part: ConsumerPart, contract: Contract) -> Iterator[Finding]:
        seen = set()
        for each in self.reads(part, contract)[1]:
            pointer = in_contract(each.pointer)
            if (each.rule, pointer) in seen:
                continue
            seen.add((each.rule, pointer))
            rule, message = "CONSUMER_BROKEN", f"{part.app} rejects events that {contract.version} allows"
            if each.rule == UNDECIDED:
                rule, message = "CONSUMER_UNDECIDED", f"whether {part.app} reads {contract.version}: {each.message}"
            else:
                message += f"; it asks for {_short(each.new)}, the contract has {_short(each.old)}"
            evidence = Evidence(each.direction, contract.version, each.old, each.new, each.witness, REMEDIES[rule])
            yield Finding(str(part.path), pointer, rule, message, evidence)


def _notes(part: ConsumerPart) -> Iterator[Note]:
    entity = part.entity
    if entity.get("$schema") != DIALECT:
        yield "/$schema", "DIALECT", f"must be {DIALECT}"
    if not str(entity.get("description") or "").strip():
        yield "", "DESCRIPTION_MISSING", "needs a description: what the consumer does with it"
    for keyword in sorted(entity.keys() - _ROOT_KEYWORDS):
        message = f"not supported at the root: {', '.join(sorted(_ROOT_KEYWORDS))}"
        yield f"/{escape(keyword)}", "UNSUPPORTED_KEYWORD", message
    names = entity.get("required", [])
    for name in names if isinstance(names, list) else []:
        if name not in list(entity["properties"]):
            yield "/required", "REQUIRED", f"names {name!r}, which is not a property"
    yield from (note for note in check_fields(entity) if note[1] not in _ONLY_OF_CONTRACTS)


def _reads(part: ConsumerPart, contract: Contract) -> tuple[bool | None, tuple[Difference, ...]]:
    if _at_a_glance(part, contract):
        return True, ()
    # The engine takes a while to import, and most parts repeat what the contract says of their fields.
    from rowcast.contracts.compatibility.verdict import reads

    return reads(contract.value_schema(), part.value_schema())


def _at_a_glance(part: ConsumerPart, contract: Contract) -> bool:
    # The fields of the part, as it and as the contract describe them, are compared as two versions would be.
    mine, theirs = part.entity, contract.entity
    required = mine.get("required", [])
    if not (set(required) <= set(theirs.get("required", ())) and set(part.ancestors) <= set(contract.ancestors)):
        return False
    shared = {name: theirs["properties"][name] for name in part.fields if name in theirs["properties"]}
    rest = {"required": required, "$defs": mine.get("$defs", {})}
    same = rest["$defs"] in ({}, theirs.get("$defs"))
    screening = Screening()
    asked = screening.outline({**rest, "properties": _bare(mine["properties"])})
    return (
        same
        and mine.keys() <= _ROOT_KEYWORDS
        and asked.compatible(screening.outline({**rest, "properties": _bare(shared)}))
    )


def _bare(properties: Mapping[str, Any]) -> dict[str, Any]:
    # Without what Rowcast adds to JSON Schema, which parts have no need to repeat.
    return {
        name: {keyword: value for keyword, value in schema.items() if not keyword.startswith("x-")}
        for name, schema in properties.items()
    }


def _places(schema: dict[str, Any], difference: Difference) -> Iterator[Place]:
    if difference.rule == UNDECIDED:
        yield ()
        return
    errors = list(jsonschema_rs.Draft202012Validator(schema, validate_formats=True).iter_errors(difference.witness))
    # A witness may break other keywords too; those that the difference is about tell its place.
    meant = [error for error in errors if pointer_of(error.schema_path) == difference.pointer]
    for error in meant or errors:
        path = [*error.instance_path, *([error.kind.as_dict()["property"]] if error.kind.name == "required" else [])]
        place = tuple("*" if isinstance(part, int) else part for part in path)
        yield ("after", *place[1:]) if place[:1] and place[0] in _ENTITY else place


def _overlap(first: set[Place], second: set[Place]) -> bool:
    return any(one[: len(other)] == other[: len(one)] for one in first for other in second)


def _unknown_fields(part: ConsumerPart, contract: Contract) -> Iterator[str]:
    reader, writer = SchemaDocument(part.app, part.entity), SchemaDocument(contract.version, contract.entity)
    yield from _unknown(reader.node, [writer.node], set())


def _unknown(reader: Node, writers: list[Node], seen: set[Any]) -> Iterator[str]:
    key = (reader.key, tuple(node.key for node in writers))
    if key in seen:
        return
    seen.add(key)
    reader, writers = _resolved(reader), [_resolved(node) for node in writers]
    writers += [_resolved(each) for node in writers if node.has("oneOf") for each in node.children("oneOf")]
    declared = [node for node in writers if node.has("properties")]
    for name in reader.get("properties", {}) if declared else ():
        found = [node.child("properties", name) for node in declared if name in node.get("properties")]
        if found:
            yield from _unknown(reader.child("properties", name), found, seen)
        else:
            yield reader.child("properties", name).pointer
    for keyword in ("items", "additionalProperties"):
        inner = [node.child(keyword) for node in writers if node.has(keyword)]
        if reader.has(keyword) and inner:
            yield from _unknown(reader.child(keyword), inner, seen)
    for variant in reader.children("oneOf") if reader.has("oneOf") else ():
        yield from _unknown(variant, writers, seen)


def _resolved(node: Node) -> Node:
    for _step in range(10):
        target = node.document.resolve(node.get("$ref")) if node.has("$ref") else None
        if target is None:
            return node
        node = target
    return node


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
