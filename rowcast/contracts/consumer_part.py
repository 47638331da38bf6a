"""
What consumers use of an event: ``consumers/<app>/<domain>.<aggregate>.v<major>.json``, committed with the contracts.

A part is written as a contract is, with fewer fields: the ones that the consumer reads, and no more about them than it
relies on. By the same rule it stands for a schema of whole event values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowcast.contracts.contract import described_entity
from rowcast.contracts.derivation import derive_value_schema
from rowcast.contracts.json_text import read_json
from rowcast.errors import ConfigurationError

FOLDER = "consumers"
_APP = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_EVENT = re.compile(r"([a-z][a-z0-9_]{0,47})\.([a-z][a-z0-9_]{0,47})\.v([1-9][0-9]{0,3})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerPart:
    """What one *app* uses of the events of one major of one aggregate type; *entity* is the file's content."""

    path: Path
    app: str
    domain: str
    aggregate: str
    major: int
    entity: Mapping[str, Any] = field(repr=False)

    @property
    def event(self) -> str:
        """``<domain>.<aggregate>.v<major>``, which is the topic too."""
        return f"{self.domain}.{self.aggregate}.v{self.major}"

    @property
    def fields(self) -> tuple[str, ...]:
        """The entity's fields that are used, in declared order."""
        return tuple(self.entity["properties"])

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The ancestor types whose ids are used."""
        return tuple(self.entity.get("x-ancestors", ()))

    def value_schema(self) -> dict[str, Any]:
        """The schema of the event values that the consumer can read."""
        return derive_value_schema(self.entity, f"urn:rowcast:consumer:{self.app}:{self.event}")


def part_files(folder: Path) -> Iterator[tuple[Path, re.Match[str] | None]]:
    """Every JSON file below *folder*, in order, with the match of its name; None where nothing is called so."""
    for path in sorted(folder.rglob("*.json")):
        named = path.parent.parent == folder and _APP.fullmatch(path.parent.name)
        yield path, _EVENT.fullmatch(path.name) if named else None


def load_part(path: Path, name: re.Match[str]) -> ConsumerPart:
    """
    The part that *path* holds, which is called *name*.

    Raises:
        ConfigurationError: it cannot be read, or is not an object schema with properties.

    """
    entity = described_entity(path, read_json(path))
    ancestors = entity.get("x-ancestors", [])
    if not isinstance(ancestors, list) or not all(isinstance(each, str) for each in ancestors):
        raise ConfigurationError("x-ancestors is no list of type names", where=str(path), fix="list the types it reads")
    return ConsumerPart(
        path=path, app=path.parent.name, domain=name[1], aggregate=name[2], major=int(name[3]), entity=entity
    )


def apps_by_event(folder: Path) -> dict[str, list[str]]:
    """The apps that have committed a part, by the event that its name says; what is in it is the check's matter."""
    apps: dict[str, list[str]] = {}
    for path, name in part_files(folder):
        if name is not None:
            apps.setdefault(path.name.removesuffix(".json"), []).append(path.parent.name)
    return apps
