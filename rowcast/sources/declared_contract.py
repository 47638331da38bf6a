"""
The contracts that a source file declares, admitted only when ``rowcast schemas check`` finds nothing in them.

What is published is stored with every event for ever, so a contract is refused before it is applied. Examples and
the derived files beside it are the check's alone: nothing here reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rowcast.contracts.checking import check_rules, unreadable
from rowcast.contracts.contract import FOLDER, Contract, find_contract, newest_of_major, stated_name
from rowcast.errors import ConfigurationError
from rowcast.settings import Settings
from rowcast.sources.source_file import SourceFile

_FIX = "What each rule asks for: docs/reference/contracts.md. `rowcast schemas check` looks at all contracts."


def contracts_of(source: SourceFile, settings: Settings) -> dict[str, Contract]:
    """
    The contract of each aggregate of a source by its name, from the schemas folder; of each stated event by
    `stated_name`, and of each older major that the source publishes by `former_name`.

    Each is the declared version, and deprecated as the newest version of its major says.

    Raises:
        ConfigurationError: one is missing, or has findings; the message holds all findings of all of them.

    """
    folder = settings.project / FOLDER
    contracts: dict[str, Contract] = {}
    findings: list[str] = []
    for name, aggregate, version in _wanted(source):
        try:
            contract = find_contract(folder, source.domain, aggregate, version)
            newest = newest_of_major(folder, source.domain, aggregate, contract.major)
        except ConfigurationError as error:
            file = Path(error.where)
            findings.append(str(unreadable(error, file) if file.is_file() else error))
        else:
            findings.extend(map(str, sorted(check_rules(contract))))
            contracts[name] = replace(contract, deprecation=newest.deprecation)
    if findings:
        raise ConfigurationError("\n".join([*findings, _FIX]))
    return contracts


def _wanted(source: SourceFile) -> Iterator[tuple[str, str, tuple[int, int] | None]]:
    for entry in source.aggregates:
        yield entry.name, entry.name, entry.contract
        for event, version in entry.events.items():
            yield stated_name(entry.name, event), stated_name(entry.name, event), version
        for each in entry.former:
            yield former_name(entry.name, each.contract[0]), entry.name, each.contract


def former_name(aggregate: str, major: int) -> str:
    """What the contract of an older major is called among those of a source; no stated event is called so."""
    return f"{aggregate}/v{major}"
