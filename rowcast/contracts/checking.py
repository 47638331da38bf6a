"""
Checking a folder of contracts: what ``rowcast schemas check`` and CI run.

A finding names the file, the JSON pointer and the rule; ``rowcast sources plan`` refuses the same in the contracts
that it uses. No finding means: every contract is a valid JSON
Schema within our profile, its derived schema is published as derived, accepted examples are accepted and
rejected ones rejected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from rowcast.contracts.contract import EVENT_SUFFIX, Contract, contract_paths, load_contract
from rowcast.contracts.derivation import DIALECT
from rowcast.contracts.listing import Listing
from rowcast.contracts.profile import check_profile
from rowcast.errors import ConfigurationError

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

EXAMPLES = "examples"
_VERDICTS = ("accepted", "rejected")
_AS_WRITTEN = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class Evidence:
    """What two versions have shown: which way it breaks, *against* which version, and an instance."""

    direction: str
    against: str
    old: Any
    new: Any
    witness: Any
    fix: str


@dataclass(frozen=True, slots=True)
class Affected:
    """The consumers of an event that a finding about its contract breaks, and the others."""

    breaks: tuple[str, ...]
    untouched: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong with *file*, at the JSON *pointer* (empty: the whole file)."""

    file: str
    pointer: str
    rule: str
    message: str
    evidence: Evidence | None = field(default=None, compare=False)
    consumers: Affected | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.file}{'#' + self.pointer if self.pointer else ''}: {self.message} [{self.rule}]"


def check_folder(schemas: Path) -> list[Finding]:
    """
    Everything that is wrong with the contracts under *schemas*, each taken by itself.

    Raises:
        ConfigurationError: the folder holds no contract at all.

    """
    return valid_contracts(schemas)[1]


def valid_contracts(schemas: Path) -> tuple[list[Contract], list[Finding]]:
    """
    The contracts under *schemas* that are JSON Schemas, and everything that is wrong there.

    Raises:
        ConfigurationError: the folder holds no contract at all.

    """
    paths = [path for path, _match in contract_paths(schemas, stated=True)]
    if not paths:
        raise ConfigurationError("no contract", where=str(schemas), fix="write <domain>/<aggregate>/v1.0.json")
    listing = Listing(schemas)
    contracts, findings = [], list(_strays(listing, paths))
    for path in paths:
        try:
            contract = load_contract(path)
        except ConfigurationError as error:
            findings.append(unreadable(error, path))
            continue
        wrong = check_rules(contract)
        findings += wrong
        if not any(finding.rule == "SCHEMA_INVALID" for finding in wrong):
            contracts.append(contract)
        if not wrong:
            schema = contract.value_schema()
            findings += [*_check_derived(contract, schema), *_check_examples(contract, schema, listing)]
    return contracts, sorted(findings)


def unreadable(error: ConfigurationError, path: Path) -> Finding:
    """The finding that the contract *path* cannot be read at all."""
    return Finding(str(path), "", "CONTRACT_UNREADABLE", f"{error.message} ({error.fix})")


def check_rules(contract: Contract) -> list[Finding]:
    """Everything that is wrong with the contract itself: what is published of it, without examples."""
    findings = [
        Finding(str(contract.path), pointer, rule, message) for pointer, rule, message in check_profile(contract)
    ]
    return [*findings, *schema_faults(contract.path, contract.entity)]


def schema_faults(path: Path, schema: Mapping[str, Any]) -> Iterator[Finding]:
    """Why *schema*, which *path* holds, is no JSON Schema."""
    if not _dialect().is_valid(schema):
        error = next(_dialect().iter_errors(schema))
        message = f"not a valid JSON Schema: {error.message}"
        yield Finding(str(path), pointer_of(error.instance_path), "SCHEMA_INVALID", message)


@cache
def _dialect() -> Any:
    # The schema of schemas, with patterns looked at.
    return jsonschema_rs.Draft202012Validator({"$ref": DIALECT}, validate_formats=True)


def pointer_of(path: Any) -> str:
    """The JSON pointer (RFC 6901) of a path of names and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def value_validator(contract: Contract) -> Draft202012Validator:
    """The reference validator of whole event values; formats are checked. It takes long to import."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(contract.value_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)


def _strays(listing: Listing, paths: list[Path]) -> Iterator[Finding]:
    known, folders = set(), set()
    for path in paths:
        folder, version = str(path.parent), path.name.removesuffix(".json")
        known |= {f"{folder}/{version}.json", f"{folder}/{version}{EVENT_SUFFIX}"}
        folders |= {f"{folder}/{EXAMPLES}/{version}/{verdict}" for verdict in _VERDICTS}
    for folder, file in listing:
        if folder not in folders and file not in known:
            message = "stands where nothing reads it; expected <domain>/<aggregate>/v<major>.<minor>.json or examples"
            yield Finding(file, "", "FILE_UNKNOWN", message)


def _check_derived(contract: Contract, schema: dict[str, Any]) -> Iterator[Finding]:
    if contract.event:
        return
    path = contract.event_path
    try:
        published = path.read_bytes()
    except FileNotFoundError:
        yield Finding(str(path), "", "DERIVED_MISSING", "is missing; run `rowcast schemas derive`")
        return
    # The quick writer says the same of almost every schema; where it does not, the slow one decides.
    if published != orjson.dumps(schema, option=_AS_WRITTEN) and published != contract.derived_text().encode():
        yield Finding(str(path), "", "DERIVED_STALE", "differs from its contract; run `rowcast schemas derive`")


def _check_examples(contract: Contract, schema: dict[str, Any], listing: Listing) -> Iterator[Finding]:
    if contract.event:
        # An example of a stated event is its data.
        schema = {**schema["properties"]["data"], "$defs": schema.get("$defs", {})}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for verdict in _VERDICTS:
        folder = f"{contract.path.parent}/{EXAMPLES}/{contract.version}/{verdict}"
        files = listing.files(folder)
        if not files:
            yield Finding(folder, "", "EXAMPLE_MISSING", f"needs at least one {verdict} example")
        for file in files:
            yield from _check_example(file, validator, accepted=verdict == "accepted")


def _check_example(file: str, validator: Any, *, accepted: bool) -> Iterator[Finding]:
    try:
        value = json.loads(Path(file).read_bytes().decode())
    except (OSError, ValueError) as error:
        yield Finding(file, "", "EXAMPLE_UNREADABLE", str(error))
        return
    valid = validator.is_valid(value)
    if accepted and not valid:
        for refusal in validator.iter_errors(value):
            yield Finding(file, pointer_of(refusal.instance_path), "EXAMPLE_REFUSED", refusal.message)
    elif valid and not accepted:
        yield Finding(file, "", "EXAMPLE_ACCEPTED", "is a rejected example, but the schema accepts it")
