"""
How long ``rowcast schemas check --against`` takes: 200 event types with 5 versions each, in a repository of their own.

``python -m benchmarks.contract_check`` prints one JSON object. Each run is a new process, so imports count.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

_FIELDS: list[dict[str, Any]] = [
    {"type": "string", "format": "uuid", "examples": ["0b8d1a5e-6f7a-4d53-9a53-6a7a41c0f5b1"]},
    {"type": ["string", "null"], "maxLength": 200, "examples": ["text"]},
    {"type": "integer", "minimum": 0, "examples": [3]},
    {"type": "string", "format": "date-time", "examples": ["2026-03-01T09:30:00Z"]},
    {"type": "string", "pattern": "^-?[0-9]{1,8}[.][0-9]{2}$", "examples": ["24.90"]},
    {"type": "array", "items": {"$ref": "#/$defs/line"}, "examples": [[]]},
]
_LINE = {
    "type": "object",
    "required": ["sku"],
    "properties": {"sku": {"type": "string", "description": "Article.", "examples": ["a-1"], "x-pii": "none"}},
}


def write_project(folder: Path, types: int, versions: int, fields: int) -> None:
    """Contracts with one optional field more in each version, committed in *folder*."""
    for number in range(types):
        for minor in range(versions):
            _write_version(folder / "schemas/shop" / f"type{number}", minor, fields)
    _run(folder, sys.executable, "-m", "rowcast.cli.main", "--project", str(folder), "schemas", "derive")
    _run(folder, "git", "init", "--quiet")
    _run(folder, "git", "add", ".")
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")
    _run(folder, "git", *identity, "commit", "--quiet", "-m", "contracts")


def _write_version(folder: Path, minor: int, fields: int) -> None:
    names = [f"field{index}" for index in range(fields + minor)]
    properties = {
        name: {**_FIELDS[index % len(_FIELDS)], "description": f"Field {index}.", "x-pii": "none"}
        for index, name in enumerate(names)
    }
    entity = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:rowcast:schema:shop.{folder.name}:1.{minor}:entity",
        "title": folder.name,
        "description": "Made for a measurement.",
        "x-ancestors": [],
        "type": "object",
        "required": names[:fields],
        "properties": properties,
        "$defs": {"line": _LINE},
    }
    after = {name: _FIELDS[index % len(_FIELDS)]["examples"][0] for index, name in enumerate(names)}
    value = {"after": after, "before": None, "ancestors": {}, "context": {}}
    _dump(folder / f"v1.{minor}.json", entity)
    _dump(folder / f"examples/v1.{minor}/accepted/created.json", value)
    _dump(folder / f"examples/v1.{minor}/rejected/no_context.json", {**value, "context": None})


def _dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def measure(types: int, versions: int, fields: int, runs: int) -> dict[str, Any]:
    """Seconds of each run, the median, and what was checked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, types, versions, fields)
        seconds, used = [], _cpu_s()
        for _run_number in range(runs):
            start = time.perf_counter()
            command = ["-m", "rowcast.cli.main", "--project", str(folder), "schemas", "check", "--against", "HEAD"]
            _run(folder, sys.executable, *command)
            seconds.append(round(time.perf_counter() - start, 3))
        cpu = round((_cpu_s() - used) / runs, 3)
    pairs = types * versions * (versions - 1) // 2
    shares = {"median_s": median(seconds), "cpu_s": cpu}
    return {"contracts": types * versions, "pairs": pairs, "seconds": seconds, **shares}


def _cpu_s() -> float:
    # Of the children that have ended: on a busy machine this says more than the clock.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time `rowcast schemas check --against` on made-up contracts.")
    parser.add_argument("--types", type=int, default=200, help="event types")
    parser.add_argument("--versions", type=int, default=5, help="versions of each")
    parser.add_argument("--fields", type=int, default=12, help="fields of the first version")
    parser.add_argument("--runs", type=int, default=3, help="runs, each a process of its own")
    print(json.dumps(measure(**vars(parser.parse_args()))))
