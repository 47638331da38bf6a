"""Which sources publish which events, as their files say."""

from __future__ import annotations

from pathlib import Path

from rowcast.contracts.contract import find_contract
from rowcast.sources.source_file import FOLDER, load_sources
from rowcast.topics import domain_topic


def producers(project: Path, schemas: Path) -> dict[str, list[str]]:
    """
    The sources of a project folder by the topics that they write, in all live majors.

    Raises:
        ConfigurationError: a source file is wrong, or the contract of an aggregate is missing.

    """
    found: dict[str, list[str]] = {}
    for source in load_sources(project) if any((project / FOLDER).glob("*.yaml")) else ():
        for entry in source.aggregates:
            newest = entry.contract or (find_contract(schemas, source.domain, entry.name, None).major, 0)
            for major in (newest[0], *(each.contract[0] for each in entry.former)):
                found.setdefault(domain_topic(source.domain, entry.name, major), []).append(source.source)
    return found
