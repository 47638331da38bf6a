"""
What ``rowcast schemas lint`` asks of a contract: the rules of the check, and what makes it good to read and to evolve.

Every leaf has examples that are valid, variants are told apart by a constant, patterns mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs

from rowcast.contracts.checking import Finding, check_rules, unreadable
from rowcast.contracts.compatibility.pattern import FLAVOURS, automaton
from rowcast.contracts.contract import Contract, contract_files, load_contract
from rowcast.contracts.personal_data import UNCLASSIFIED
from rowcast.contracts.profile import Note, is_leaf
from rowcast.errors import ConfigurationError


def lint_paths(paths: list[Path]) -> tuple[int, list[Finding]]:
    """
    How many contracts there are at *paths*, files or folders of them, and everything that is wrong with them.

    Raises:
        ConfigurationError: there is no contract at one of them.

    """
    files: list[Path] = []
    for path in paths:
        found = [path] if path.is_file() else contract_files(path)
        if not found:
            raise ConfigurationError("no contract", where=str(path), fix="write <domain>/<aggregate>/v1.0.json")
        files += found
    findings: list[Finding] = []
    for file in dict.fromkeys(files):
        try:
            findings += lint(load_contract(file))
        except ConfigurationError as error:
            findings.append(unreadable(error, file))
    return len(files), sorted(findings)


def lint(contract: Contract) -> list[Finding]:
    """Everything that is wrong with one contract; what hangs on its being a schema is looked at when it is one."""
    findings = check_rules(contract)
    if not any(finding.rule == "SCHEMA_INVALID" for finding in findings):
        findings += [Finding(str(contract.path), *note) for note in _notes(contract.entity)]
    return findings


def _notes(entity: Mapping[str, Any]) -> Iterator[Note]:
    for name, schema in entity["properties"].items():
        yield from _property(schema, f"/properties/{_escaped(name)}", entity)
    for name, schema in _mapping(entity.get("$defs")).items():
        yield from _schema(schema, f"/$defs/{_escaped(name)}", entity)


def _property(schema: Any, pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    schema = _mapping(schema)
    if is_leaf(schema, entity) and not schema.get("examples") and not _speaks_for_itself(schema):
        yield pointer, "EXAMPLES_MISSING", "needs examples: values as readers will see them"
    if schema.get("x-pii") == UNCLASSIFIED:
        yield f"{pointer}/x-pii", "PII_UNCLASSIFIED", "nobody has said yet whether it holds personal data"
    yield from _schema(schema, pointer, entity)


def _speaks_for_itself(schema: Mapping[str, Any]) -> bool:
    return "enum" in schema or "const" in schema or "$ref" in schema or schema.get("type") in ("boolean", "null")


def _schema(schema: Any, pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    schema = _mapping(schema)
    yield from _examples(schema, pointer, entity)
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not _plain(pattern):
        yield f"{pointer}/pattern", "PATTERN_UNCLEAR", "means different things to different readers, or is not anchored"
    variants = [_resolved(each, entity) for each in schema.get("oneOf", [])]
    if len([each for each in variants if each.get("type") != "null"]) > 1 and not _told_apart(variants):
        yield f"{pointer}/oneOf", "UNION_UNTAGGED", "its variants need a required property with a constant of their own"
    for name, part in _mapping(schema.get("properties")).items():
        yield from _property(part, f"{pointer}/properties/{_escaped(name)}", entity)
    for index, part in enumerate(schema.get("oneOf", [])):
        yield from _schema(part, f"{pointer}/oneOf/{index}", entity)
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from _schema(schema[keyword], f"{pointer}/{keyword}", entity)


def _examples(schema: Mapping[str, Any], pointer: str, entity: Mapping[str, Any]) -> Iterator[Note]:
    examples = schema.get("examples")
    if not examples:
        return
    try:
        whole = {**schema, "$defs": entity.get("$defs", {})}
        validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    except ValueError:
        return  # a reference that leads nowhere is another rule's matter
    for index, example in enumerate(examples):
        if not validator.is_valid(example):
            yield (
                f"{pointer}/examples/{index}",
                "EXAMPLES_INVALID",
                "is not valid against the schema that it illustrates",
            )


def _plain(pattern: str) -> bool:
    anchored = pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$")
    return anchored and pattern.isascii() and all(automaton(pattern, flavour) for flavour in FLAVOURS)


def _told_apart(variants: list[Mapping[str, Any]]) -> bool:
    objects = [each for each in variants if each.get("type") != "null"]
    if all("properties" not in each for each in objects):
        types = [str(each.get("type")) for each in objects]
        return len(set(types)) == len(types)
    names = set.intersection(*(set(each.get("required", [])) for each in objects))
    for name in names:
        values = [_mapping(_mapping(each.get("properties")).get(name)).get("const") for each in objects]
        if None not in values and len(set(map(str, values))) == len(values):
            return True
    return False


def _resolved(schema: Any, entity: Mapping[str, Any]) -> Mapping[str, Any]:
    plain = _mapping(schema)
    if "$ref" in plain:
        return _mapping(_mapping(entity.get("$defs")).get(str(plain["$ref"]).removeprefix("#/$defs/")))
    return plain


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
