"""
Contract files and where they stand: ``schemas/<domain>/<aggregate>/v<major>.<minor>.json``.

A contract describes the entity of one aggregate type: what an event's ``after`` holds. The schema of the
whole event value is derived from it by one rule and published beside it as ``v<major>.<minor>.event.json``.

At ``schemas/<domain>/<aggregate>.<event>/v1.<minor>.json`` stands that of an event that services state: what its
``data`` holds. The value is derived from both.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowcast.contracts.derivation import derive_data_schema, derive_stated_schema, derive_value_schema
from rowcast.contracts.json_text import is_deeper, parse_json
from rowcast.deprecation import Deprecation
from rowcast.errors import ConfigurationError

FOLDER = "schemas"
EVENT_SUFFIX = ".event.json"
_LEVELS_MAX = 100
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_STATED = re.compile(r"([a-z][a-z0-9_]{0,47})\.([a-z][a-z0-9_]{0,47})")
_VERSION = re.compile(r"v([1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """
    One version of the contract of one aggregate type; *entity* is the file's content, *content* its bytes.

    Or of a stated *event*: then *aggregate* is its `stated_name`, and *entity* describes its data. *deprecation* is
    what this file says; that of the newest version counts for the whole major.
    """

    path: Path
    domain: str
    aggregate: str
    major: int
    minor: int
    entity: Mapping[str, Any] = field(repr=False)
    content: bytes = field(default=b"", repr=False, compare=False)
    deprecation: Deprecation | None = None

    @property
    def version(self) -> str:
        """``v<major>.<minor>``."""
        return f"v{self.major}.{self.minor}"

    @property
    def dataschema(self) -> str:
        """``ce_dataschema``: the name of the derived schema."""
        return f"urn:rowcast:schema:{self.domain}.{self.aggregate}:{self.major}.{self.minor}"

    @property
    def entity_id(self) -> str:
        """The ``$id`` that the contract file itself has to carry."""
        return self.dataschema + (":data" if self.event else ":entity")

    @property
    def event(self) -> str:
        """The stated event whose data it describes; empty for an entity."""
        return self.aggregate.partition(".")[2]

    def stated(self) -> list[Contract]:
        """
        The newest contract of each event that services may state of the aggregate, by name.

        Raises:
            ConfigurationError: one cannot be read.

        """
        folder = self.path.parent.parent
        names = [name for name in _names(folder) if (match := _STATED.fullmatch(name)) and match[1] == self.aggregate]
        versions = [[contract_version(path) for path in (folder / name).glob("*.json")] for name in names]
        newest = [max((each for each in found if each), default=None) for found in versions]
        return [
            load_contract(folder / name / f"v{version[0]}.{version[1]}.json")
            for name, version in zip(names, newest, strict=True)
            if version is not None
        ]

    def stated_dataschema(self, stated: Contract) -> str:
        """``ce_dataschema`` of the events that *stated* describes, with this entity."""
        return f"{self.dataschema}+{stated.event}:{stated.major}.{stated.minor}"

    def stated_schema(self, stated: Contract) -> dict[str, Any]:
        """The derived schema of the whole value of the events that *stated* describes, with this entity."""
        return derive_stated_schema(self.value_schema(), stated.entity, self.stated_dataschema(stated))

    @property
    def properties(self) -> tuple[str, ...]:
        """The entity's fields, in declared order."""
        return tuple(self.entity["properties"])

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The aggregate types up the hierarchy, nearest first."""
        return tuple(self.entity.get("x-ancestors", ()))

    @property
    def event_path(self) -> Path:
        """Where the derived schema is published."""
        return self.path.with_name(self.version + EVENT_SUFFIX)

    def examples(self, verdict: str) -> tuple[Path, ...]:
        """The example event values under ``examples/<version>/<verdict>``: *verdict* is accepted or rejected."""
        folder = self.path.parent.joinpath("examples", self.version, verdict)
        try:
            return tuple(sorted(path for path in folder.iterdir() if path.suffix == ".json"))
        except OSError:
            return ()

    def value_schema(self) -> dict[str, Any]:
        """The derived schema of an event's whole value; of a stated one, of its data alone."""
        if self.event:
            return derive_data_schema(self.entity, self.dataschema)
        return derive_value_schema(self.entity, self.dataschema)

    def derived_text(self) -> str:
        """The derived schema as its file holds it, byte for byte."""
        return json.dumps(self.value_schema(), indent=2, ensure_ascii=False) + "\n"

    def write_derived(self) -> bool:
        """Publish the derived schema beside the contract; False when its file holds it already, or there is none."""
        if self.event:
            return False
        text = self.derived_text().encode()
        if self.event_path.exists() and self.event_path.read_bytes() == text:
            return False
        self.event_path.write_bytes(text)
        return True


def stated_name(aggregate: str, event: str) -> str:
    """What stands for *aggregate* where the contract of a stated *event* does."""
    return f"{aggregate}.{event}"


def contract_paths(schemas: Path, *, stated: bool = False) -> Iterator[tuple[Path, re.Match[str]]]:
    """Every contract file of an entity under *schemas*, with the match of its version; also of those *stated*."""
    for domain in _named(schemas):
        for aggregate in _named(domain, stated=stated):
            for name in _names(aggregate):
                match = _VERSION.fullmatch(name.removesuffix(".json"))
                if match and name.endswith(".json"):
                    yield aggregate / name, match


def _named(folder: Path, *, stated: bool = False) -> list[Path]:
    return [folder / name for name in _names(folder) if _NAME.fullmatch(name) or (stated and _STATED.fullmatch(name))]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - many folders, and nothing but names is needed
    except OSError:
        return []


def contract_files(folder: Path) -> list[Path]:
    """Every contract file anywhere under *folder*, which may be a part of a schemas folder."""
    files = (path for path in sorted(folder.rglob("v*.json")) if _VERSION.fullmatch(path.name.removesuffix(".json")))
    return [path for path in files if "examples" not in path.relative_to(folder).parts]


def load_contract(path: Path) -> Contract:
    """
    The contract that *path* holds.

    Raises:
        ConfigurationError: it cannot be read, or is not an object schema with properties.

    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except FileNotFoundError as error:
        raise ConfigurationError("there is no such contract", where=str(path), fix="write it") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path), fix="correct the file") from error
    try:
        entity = parse_json(text, "line")
    except ConfigurationError as error:
        message = f"cannot be read: {error.message}, {error.where}"
        raise ConfigurationError(message, where=str(path), fix="correct the file") from error
    return contract_of(path, entity, content)


def contract_of(path: Path, entity: Any, content: bytes = b"") -> Contract:
    """
    The contract that *path* would be with the content *entity*.

    Raises:
        ConfigurationError: the path names no version, or the content is not an object schema with properties.

    """
    version = contract_version(path)
    if version is None:
        raise ConfigurationError("not a contract", where=str(path), fix="call it v<major>.<minor>.json")
    described = described_entity(path, entity)
    return Contract(
        path=path,
        domain=path.parent.parent.name,
        aggregate=path.parent.name,
        major=version[0],
        minor=version[1],
        entity=described,
        content=content,
        deprecation=Deprecation.of_entity(described),
    )


def described_entity(path: Path, entity: Any) -> dict[str, Any]:
    """
    *entity*, which *path* holds.

    Raises:
        ConfigurationError: it is not an object schema with properties, or too deep to be worked with.

    """
    if not isinstance(entity, dict) or entity.get("type") != "object" or not _is_schemas(entity.get("properties")):
        raise ConfigurationError(
            "does not describe an entity", where=str(path), fix='give it "type": "object" and "properties"'
        )
    if is_deeper(entity, _LEVELS_MAX):
        raise ConfigurationError(
            f"nested too deeply, more than {_LEVELS_MAX} levels", where=str(path), fix="use $defs and $ref"
        )
    return entity


def contract_version(path: Path) -> tuple[int, int] | None:
    """Major and minor version that *path* names; None when it is no contract's."""
    match = _VERSION.fullmatch(path.name.removesuffix(".json"))
    return (int(match[1]), int(match[2])) if match else None


def find_contract(schemas: Path, domain: str, aggregate: str, version: tuple[int, int] | None) -> Contract:
    """
    The contract of an aggregate type: *version*, or the newest minor of the newest major.

    Raises:
        ConfigurationError: there is none, or it cannot be read.

    """
    folder = schemas / domain / aggregate
    if version is not None:
        return load_contract(folder / f"v{version[0]}.{version[1]}.json")
    versions = _versions(folder)
    if not versions:
        raise ConfigurationError("there is no contract", where=str(folder), fix="write v1.0.json there")
    return load_contract(max(versions)[1])


def newest_of_major(schemas: Path, domain: str, aggregate: str, major: int) -> Contract:
    """
    The newest version of a *major* that has one.

    Raises:
        ConfigurationError: it cannot be read.

    """
    versions = [each for each in _versions(schemas / domain / aggregate) if each[0][0] == major]
    return load_contract(max(versions)[1])


def _versions(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    return [
        ((int(match[1]), int(match[2])), path)
        for path in folder.glob("*.json")
        if (match := _VERSION.fullmatch(path.name.removesuffix(".json")))
    ]


def _is_schemas(properties: Any) -> bool:
    return isinstance(properties, dict) and all(isinstance(each, dict) for each in properties.values())
