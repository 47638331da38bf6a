"""
The contracts that a source file declares, admitted only when ``rowcast schemas check`` finds nothing in them.

What is published is stored with every event for ever, so a contract is refused before it is applied. Examples and
the derived files beside it are the check's alone: nothing here reads them.
"""

from __future__ import annotations

from pathlib import Path

from rowcast.contracts.checking import check_rules, unreadable
from rowcast.contracts.contract import FOLDER, Contract, find_contract, stated_name
from rowcast.errors import ConfigurationError
from rowcast.settings import Settings
from rowcast.sources.source_file import SourceFile

_FIX = "What each rule asks for: docs/reference/contracts.md. `rowcast schemas check` looks at all contracts."


def contracts_of(source: SourceFile, settings: Settings) -> dict[str, Contract]:
    """
    The contract of each aggregate of a source, and of each stated event by `stated_name`, from the schemas folder.

    Raises:
        ConfigurationError: one is missing, or has findings; the message holds all findings of all of them.

    """
    folder = settings.project / FOLDER
    contracts: dict[str, Contract] = {}
    findings: list[str] = []
    wanted = {entry.name: entry.contract for entry in source.aggregates}
    for entry in source.aggregates:
        wanted |= {stated_name(entry.name, event): version for event, version in entry.events.items()}
    for name, version in wanted.items():
        try:
            contract = find_contract(folder, source.domain, name, version)
        except ConfigurationError as error:
            file = Path(error.where)
            findings.append(str(unreadable(error, file) if file.is_file() else error))
        else:
            findings.extend(map(str, sorted(check_rules(contract))))
            contracts[name] = contract
    if findings:
        raise ConfigurationError("\n".join([*findings, _FIX]))
    return contracts
