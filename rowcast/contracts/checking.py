"""
Checking a folder of contracts: what ``rowcast schemas check`` and CI run.

A finding names the file, the JSON pointer and the rule; ``rowcast sources plan`` refuses the same in the contracts
that it uses. No finding means: every contract is a valid JSON
Schema within our profile, its derived schema is published as derived, accepted examples are accepted and
rejected ones rejected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from rowcast.contracts.contract import EVENT_SUFFIX, Contract, contract_paths, load_contract
from rowcast.contracts.profile import check_profile
from rowcast.errors import ConfigurationError

EXAMPLES = "examples"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong with *file*, at the JSON *pointer* (empty: the whole file)."""

    file: str
    pointer: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}{'#' + self.pointer if self.pointer else ''}: {self.message} [{self.rule}]"


def check_folder(schemas: Path) -> list[Finding]:
    """
    Everything that is wrong with the contracts under *schemas*.

    Raises:
        ConfigurationError: the folder holds no contract at all.

    """
    paths = [path for path, _match in contract_paths(schemas)]
    if not paths:
        raise ConfigurationError("no contract", where=str(schemas), fix="write <domain>/<aggregate>/v1.0.json")
    findings = list(_strays(schemas, paths))
    for path in paths:
        try:
            contract = load_contract(path)
        except ConfigurationError as error:
            findings.append(unreadable(error, path))
        else:
            findings.extend(check_contract(contract))
    return sorted(findings)


def unreadable(error: ConfigurationError, path: Path) -> Finding:
    """The finding that the contract *path* cannot be read at all."""
    return Finding(str(path), "", "CONTRACT_UNREADABLE", f"{error.message} ({error.fix})")


def check_contract(contract: Contract) -> list[Finding]:
    """Everything that is wrong with one contract, its derived schema and its examples."""
    findings = check_rules(contract)
    if not findings:
        findings.extend(_check_derived(contract))
        findings.extend(_check_examples(contract))
    return findings


def check_rules(contract: Contract) -> list[Finding]:
    """Everything that is wrong with the contract itself: what is published of it, without examples."""
    findings = [
        Finding(str(contract.path), pointer, rule, message) for pointer, rule, message in check_profile(contract)
    ]
    try:
        Draft202012Validator.check_schema(contract.entity, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        message = f"not a valid JSON Schema: {error.message}"
        findings.append(Finding(str(contract.path), pointer_of(error.absolute_path), "SCHEMA_INVALID", message))
    return findings


def pointer_of(path: Any) -> str:
    """The JSON pointer (RFC 6901) of a path of names and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def value_validator(contract: Contract) -> Draft202012Validator:
    """The reference validator of whole event values; formats are checked."""
    return Draft202012Validator(contract.value_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def _strays(schemas: Path, paths: list[Path]) -> Iterator[Finding]:
    known = {*paths, *(path.with_name(path.stem + EVENT_SUFFIX) for path in paths)}
    folders = {(path.parent / EXAMPLES / path.stem / verdict) for path in paths for verdict in ("accepted", "rejected")}
    for path in sorted(schemas.rglob("*.json")):
        if path not in known and path.parent not in folders:
            message = "stands where nothing reads it; expected <domain>/<aggregate>/v<major>.<minor>.json and examples"
            yield Finding(str(path), "", "FILE_UNKNOWN", message)


def _check_derived(contract: Contract) -> Iterator[Finding]:
    path = contract.event_path
    if not path.exists():
        yield Finding(str(path), "", "DERIVED_MISSING", "is missing; run `rowcast schemas derive`")
    elif path.read_bytes() != contract.derived_text().encode():
        yield Finding(str(path), "", "DERIVED_STALE", "differs from its contract; run `rowcast schemas derive`")


def _check_examples(contract: Contract) -> Iterator[Finding]:
    validator = value_validator(contract)
    for verdict in ("accepted", "rejected"):
        paths = contract.examples(verdict)
        if not paths:
            folder = contract.path.parent / EXAMPLES / contract.version / verdict
            yield Finding(str(folder), "", "EXAMPLE_MISSING", f"needs at least one {verdict} example")
        for path in paths:
            yield from _check_example(path, validator, accepted=verdict == "accepted")


def _check_example(path: Path, validator: Draft202012Validator, *, accepted: bool) -> Iterator[Finding]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield Finding(str(path), "", "EXAMPLE_UNREADABLE", str(error))
        return
    errors = sorted(validator.iter_errors(value), key=lambda each: list(map(str, each.absolute_path)))
    if accepted:
        for refusal in errors:
            yield Finding(str(path), pointer_of(refusal.absolute_path), "EXAMPLE_REFUSED", refusal.message)
    elif not errors:
        yield Finding(str(path), "", "EXAMPLE_ACCEPTED", "is a rejected example, but the schema accepts it")
