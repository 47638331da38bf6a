"""
How contracts may change: published versions stay, new ones are numbered on, versions of one major are compatible.

Compared are the derived schemas, each version of a major with each other one, in both directions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowcast.contracts.checking import Evidence, Finding
from rowcast.contracts.compatibility.rules import POLICY
from rowcast.contracts.compatibility.screening import Screening, without_words
from rowcast.contracts.contract import Contract, contract_of, contract_version
from rowcast.contracts.derivation import in_contract
from rowcast.contracts.json_text import parse_json
from rowcast.contracts.published import Published
from rowcast.contracts.readership import Readership
from rowcast.contracts.sunset import shortened
from rowcast.deprecation import KEYWORD
from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    from rowcast.contracts.compatibility.verdict import Comparison
    from rowcast.contracts.compatibility.verdict import Finding as Difference

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The versions of one aggregate type: *current* ones, and those that were *published* before."""

    folder: Path
    current: Mapping[Version, Contract]
    published: Mapping[Version, Contract]

    def path(self, version: Version) -> Path:
        """Where a version's file belongs."""
        return self.folder / f"v{version[0]}.{version[1]}.json"


def lineages(schemas: Path, current: Iterable[Contract], before: Published | None) -> list[Lineage]:
    """The lineages of all aggregate types under *schemas*."""
    now: dict[Path, dict[Version, Contract]] = {}
    for contract in current:
        now.setdefault(contract.path.parent, {})[contract.major, contract.minor] = contract
    then: dict[Path, dict[Version, Contract]] = {}
    for name, content in (before.files if before else {}).items():
        path = schemas / name
        version = contract_version(path)
        if version is None or name.count("/") != 2:
            continue
        known = now.get(path.parent, {}).get(version)
        if known is not None and known.content == content:
            then.setdefault(path.parent, {})[version] = known
            continue
        try:
            then.setdefault(path.parent, {})[version] = contract_of(path, parse_json(content.decode(), name))
        except (UnicodeDecodeError, ConfigurationError):
            # It was no contract when it was published: there is nothing to keep to.
            continue
    return [Lineage(folder, now.get(folder, {}), then.get(folder, {})) for folder in sorted({*now, *then})]


def check_evolution(
    schemas: Path, current: Iterable[Contract], before: Published | None, readership: Readership
) -> list[Finding]:
    """
    Everything that is wrong with how the *current* contracts under *schemas* have changed since *before*.

    What a change breaks names the consumers of *readership* that it breaks, and the others of the event.
    """
    return [finding for each in lineages(schemas, current, before) for finding in evolution_findings(each, readership)]


def evolution_findings(lineage: Lineage, readership: Readership) -> Iterator[Finding]:
    """Everything that is wrong with how one aggregate type's contract has changed."""
    yield from _published_versions(lineage, readership)
    yield from _numbers(lineage)
    yield from shortened(lineage.published.values(), lineage.current.values())
    majors = sorted({major for major, _minor in lineage.current})
    for major in majors:
        yield from _major(lineage, [each for each in sorted(lineage.current) if each[0] == major], readership)


def _published_versions(lineage: Lineage, readership: Readership) -> Iterator[Finding]:
    for version, old in sorted(lineage.published.items()):
        new = lineage.current.get(version)
        path = str(lineage.path(version))
        if new is None:
            if not lineage.path(version).exists():
                message = f"{old.version} was published and is gone"
                yield Finding(path, "", "VERSION_DELETED", message, consumers=readership.deleted(old))
        elif old is not new and plain(old.entity) != plain(new.entity):
            after = suggestion(lineage, old, new)
            where = f"{old.domain}/{old.aggregate}"
            message = f"was published; the change belongs into v{after[0]}.{after[1]}: `schemas new-version {where}`"
            yield Finding(path, "", "VERSION_EDITED", message, consumers=readership.edited(old, new))


def _numbers(lineage: Lineage) -> Iterator[Finding]:
    known = sorted(lineage.published)
    for version in sorted(lineage.current.keys() - lineage.published.keys()):
        if known and version not in following(known):
            options = " or ".join(f"v{major}.{minor}" for major, minor in following(known))
            message = f"expected {options}: versions are numbered on"
            yield Finding(str(lineage.path(version)), "", "VERSION_GAP", message)
        known.append(version)


def following(versions: Iterable[Version]) -> list[Version]:
    """The versions that may come next: a minor of each major, and the next major."""
    newest: dict[int, int] = {}
    for major, minor in versions:
        newest[major] = max(minor, newest.get(major, 0))
    if not newest:
        return [(1, 0)]
    return [*((major, minor + 1) for major, minor in sorted(newest.items())), (max(newest) + 1, 0)]


def suggestion(lineage: Lineage, old: Contract, new: Contract) -> Version:
    """The version that *new*, a change to the published *old*, should get: the next minor if all of them allow it."""
    versions = {**lineage.published, **lineage.current}
    siblings = [each for version, each in lineage.published.items() if version[0] == old.major]
    schema = new.value_schema()
    comparisons = [_compare(each.value_schema(), schema) for each in siblings]
    if all(each.backward and each.forward for each in comparisons):
        return old.major, max(minor for major, minor in versions if major == old.major) + 1
    return max(major for major, _minor in versions) + 1, 0


def plain(entity: Mapping[str, Any]) -> str:
    """*entity* without words that readers do not depend on, and without its end, as comparable text."""
    content = {name: part for name, part in entity.items() if name != KEYWORD}
    return json.dumps(without_words(content), sort_keys=True)


def _major(lineage: Lineage, versions: list[Version], readership: Readership) -> Iterator[Finding]:
    if len(versions) < 2:
        return
    screening = Screening()
    outlines = {version: screening.outline(lineage.current[version].entity) for version in versions}
    for older, newer in combinations(versions, 2):
        if not outlines[older].compatible(outlines[newer]):
            yield from _pair(lineage.current[older], lineage.current[newer], readership)


def _pair(older: Contract, newer: Contract, readership: Readership) -> Iterator[Finding]:
    comparison = _compare(older.value_schema(), newer.value_schema())
    seen = set()
    for each in comparison.findings:
        if each.direction == POLICY:
            continue
        pointer = in_contract(each.pointer)
        if (each.rule, pointer, each.direction) not in seen:
            seen.add((each.rule, pointer, each.direction))
            told = _message(each, older), _evidence(each, older), readership.affected(older, newer, each)
            yield Finding(str(newer.path), pointer, each.rule, *told)


def _compare(old: Any, new: Any) -> Comparison:
    # Most changes are compatible at a glance; the engine takes a while to import.
    from rowcast.contracts.compatibility.verdict import compare

    return compare(old, new)


def _message(each: Difference, older: Contract) -> str:
    text = each.message.removeprefix(f"{each.pointer or '/'}: ")
    return f"{text}, compared with {older.version}"


def _evidence(each: Difference, older: Contract) -> Evidence:
    return Evidence(each.direction, older.version, each.old, each.new, each.witness, each.fix)
