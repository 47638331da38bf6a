"""Writing the next version of a contract: its number says whether it is compatible with those before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rowcast.contracts.checking import EXAMPLES
from rowcast.contracts.contract import Contract, contract_paths, load_contract
from rowcast.contracts.evolution import Lineage, Version, lineages, plain, suggestion
from rowcast.contracts.published import Published
from rowcast.deprecation import KEYWORD
from rowcast.errors import ConfigurationError


def write_new_version(schemas: Path, name: str, before: Published, *, major: bool) -> list[str]:
    """
    Write the next version of the contract *name*, ``<domain>/<aggregate>``, and say what was done.

    An edit of a published version moves into the new one, and the published file is restored.

    Raises:
        ConfigurationError: there is no such contract, or its newest version has not been published yet.

    """
    current = [
        load_contract(path) for path, _match in contract_paths(schemas, stated=True) if path.parent == schemas / name
    ]
    if not current:
        raise ConfigurationError("there is no contract", where=str(schemas / name), fix="write v1.0.json there")
    (lineage,) = (each for each in lineages(schemas, current, before) if each.folder == schemas / name)
    edited = [
        contract
        for version, contract in sorted(lineage.current.items())
        if version in lineage.published and plain(lineage.published[version].entity) != plain(contract.entity)
    ]
    if edited:
        return _move(lineage, edited[-1], schemas, before, major=major)
    newest = lineage.current[max(lineage.current)]
    if (newest.major, newest.minor) not in lineage.published:
        fix = "edit it; it may change until it is published"
        raise ConfigurationError(f"{newest.version} is not published yet", where=str(newest.path), fix=fix)
    return _write(lineage, newest, _next(lineage, newest.major, major=major))


def _next(lineage: Lineage, current: int, *, major: bool) -> Version:
    versions = {*lineage.current, *lineage.published}
    if major:
        return max(each for each, _minor in versions) + 1, 0
    return current, max(minor for each, minor in versions if each == current) + 1


def _move(lineage: Lineage, edited: Contract, schemas: Path, before: Published, *, major: bool) -> list[str]:
    old = lineage.published[edited.major, edited.minor]
    version = _next(lineage, edited.major, major=True) if major else suggestion(lineage, old, edited)
    lines = _write(lineage, edited, version)
    edited.path.write_bytes(before.files[edited.path.relative_to(schemas).as_posix()])
    load_contract(edited.path).write_derived()
    reason = "compatible with" if version[0] == edited.major else "not compatible with"
    return [*lines, f"restored  {edited.path}", f"The change is {reason} what was published."]


def _write(lineage: Lineage, source: Contract, version: Version) -> list[str]:
    path = lineage.path(version)
    name = f"v{version[0]}.{version[1]}"
    identifier = source.entity_id.replace(f":{source.major}.{source.minor}:", f":{version[0]}.{version[1]}:")
    entity = {**source.entity, "$id": identifier}
    if version[0] != source.major:
        # A major begins with all that there is: nothing of it is older, and its end is not in sight.
        entity["required"] = list(source.properties)
        entity.pop(KEYWORD, None)
    path.write_text(json.dumps(entity, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    load_contract(path).write_derived()
    examples = source.path.parent / EXAMPLES
    if (examples / source.version).is_dir() and not (examples / name).exists():
        shutil.copytree(examples / source.version, examples / name)
    return [f"written   {path}"]
