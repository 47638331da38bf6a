"""The demo source with one aggregate of three tables: a title with its holdings, each with its items."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

# Each below the one before it, by the property that holds its rows.
_LEVELS = (("holdings", "holdings", "instance_id"), ("items", "item", "holdings_id"))


def nest(source_path: Path, schemas: Path) -> None:
    """Rewrite a copy of the demo's source file, and of its contracts, which stand in *schemas* by aggregate."""
    declared = yaml.safe_load(source_path.read_text())
    root = contract = json.loads((schemas / "instance/v1.0.json").read_text())
    above: dict[str, Any] = declared["aggregates"]["instance"]
    for prop, name, column in _LEVELS:
        entry = declared["aggregates"].pop(name)
        above["embedded"] = {prop: {"table": entry["table"], "column": column}}
        above = above["embedded"][prop]
        row = json.loads((schemas / name / "v1.0.json").read_text())
        items = {each: row[each] for each in ("type", "properties", "required")}
        contract["properties"][prop] = {"type": "array", "description": "What it has.", "items": items}
        contract["required"] = [*contract.get("required", ()), prop]
        contract = items
        shutil.rmtree(schemas / name)
    (schemas / "instance/v1.0.json").write_text(json.dumps(root))
    source_path.write_text(yaml.safe_dump(declared, sort_keys=False))
