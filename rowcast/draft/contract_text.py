"""The contract of a drafted aggregate, and an example of an event that it accepts and of one that it rejects. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from rowcast.contracts.derivation import DIALECT, derive_value_schema
from rowcast.draft.outline import AggregateDraft

_VERSION = "1.0"


def contract_files(domain: str, aggregate: AggregateDraft) -> Iterator[tuple[PurePosixPath, str]]:
    """The files of the first contract of *aggregate*: path below ``schemas/`` and text, the contract first."""
    name = f"{domain}.{aggregate.name}"
    dataschema = f"urn:rowcast:schema:{name}:{_VERSION}"
    entity: dict[str, Any] = {
        "$schema": DIALECT,
        "$id": f"{dataschema}:entity",
        "title": aggregate.name.replace("_", " ").capitalize(),
        "description": aggregate.comment or f"A row of {aggregate.table.name}.",
        "x-ancestors": list(aggregate.ancestors),
        "type": "object",
        "required": list(aggregate.properties),
        "properties": {name: each.schema for name, each in aggregate.properties.items()},
    }
    folder = PurePosixPath(domain, aggregate.name)
    yield folder / f"v{_VERSION}.json", _text(entity)
    yield folder / f"v{_VERSION}.event.json", _text(derive_value_schema(entity, dataschema))
    accepted = {
        "after": {name: each.example for name, each in aggregate.properties.items()},
        "before": None,
        "ancestors": {name: ["1"] for name in aggregate.ancestors},
        "context": {},
    }
    examples = folder / "examples" / f"v{_VERSION}"
    yield examples / "accepted/created.json", _text(accepted)
    rejected = {**accepted, "after": {}} if aggregate.properties else {"after": {}}
    yield examples / "rejected/without_fields.json", _text(rejected)


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
