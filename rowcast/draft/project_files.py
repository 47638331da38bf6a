"""The files of a drafted project, and writing them without loss: what is there and differs is kept, and named."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template
from typing import Literal

from rowcast.contracts.contract import FOLDER as SCHEMAS
from rowcast.draft.containers import container_files
from rowcast.draft.contract_text import contract_files
from rowcast.draft.outline import Outline
from rowcast.draft.source_text import source_text
from rowcast.errors import ConfigurationError
from rowcast.sources.source_file import FOLDER as CONNECTORS

Outcome = Literal["written", "unchanged", "kept", "replaced", "extended"]
SETTINGS = "rowcast.toml"
_FRAME = {"README.md": "README.md", ".github/workflows/contracts.yml": "contracts.yml", SETTINGS: "rowcast.toml"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """
    Files that belong together, by path below the project: all of them are written, or none.

    *drafted* is False for what stands around a draft, such as a README that a repository has already.
    """

    files: Mapping[PurePosixPath, str]
    drafted: bool = True


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a file."""

    path: PurePosixPath
    outcome: Outcome
    drafted: bool

    @property
    def is_finding(self) -> bool:
        """Whether a part of the draft is not there because another file is."""
        return self.drafted and self.outcome == "kept"


def frame_bundles(source: str, aggregate: str) -> Iterator[Bundle]:
    """What stands around a draft: settings, workflow, README, containers. *aggregate* is an example for the README."""
    for target, name in _FRAME.items():
        text = files(__package__).joinpath("frame", name).read_text(encoding="utf-8")
        if name == "README.md":
            text = Template(text).substitute(source=source, aggregate=aggregate)
        yield Bundle({PurePosixPath(target): text}, drafted=False)
    yield Bundle(container_files("project"), drafted=False)


def draft_bundles(source: str, database: str, outline: Outline) -> Iterator[Bundle]:
    """The source file and the first contracts of *outline*; the domain is called as the source."""
    yield Bundle({PurePosixPath(CONNECTORS, f"{source}.yaml"): source_text(source, database, outline)})
    for aggregate in outline.aggregates:
        yield Bundle({SCHEMAS / path: text for path, text in contract_files(source, aggregate)})


def write_bundles(folder: Path, bundles: Iterable[Bundle], *, overwrite: bool) -> list[Written]:
    """
    Write *bundles* below *folder*; one of which a file is there and differs is kept, unless *overwrite*.

    Raises:
        ConfigurationError: a file cannot be read or written.

    """
    written = []
    for bundle in bundles:
        present = {path: _present(folder / path) for path in bundle.files}
        differs = any(present[path] not in {None, text.encode()} for path, text in bundle.files.items())
        for path, text in bundle.files.items():
            outcome = _outcome(present[path], text.encode(), kept=differs and not overwrite)
            if outcome in {"written", "replaced"}:
                _write(folder / path, text)
            if outcome != "kept" or present[path] is not None:
                written.append(Written(path, outcome, bundle.drafted))
    return written


def _outcome(present: bytes | None, text: bytes, *, kept: bool) -> Outcome:
    if present == text:
        return "unchanged"
    if kept:
        return "kept"
    return "written" if present is None else "replaced"


def add_database(folder: Path, name: str, entry: Mapping[str, str]) -> Written:
    """
    Declare the database *name* at the end of ``rowcast.toml``, unless it is declared there.

    Raises:
        ConfigurationError: the file cannot be read or written, or nothing can be added to it.

    """
    path = folder / SETTINGS
    text = (_present(path) or b"").decode()
    try:
        databases = tomllib.loads(text).get("databases", {})
    except ValueError as error:
        raise ConfigurationError(str(error), where=str(path), fix="correct the file") from error
    if name in databases:
        same = databases[name] == entry
        return Written(PurePosixPath(SETTINGS), "unchanged" if same else "kept", drafted=True)
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
    longer = "\n".join([*([text.rstrip("\n"), ""] if text else []), f"[databases.{name}]", *lines]) + "\n"
    try:
        tomllib.loads(longer)
    except ValueError as error:  # `databases = {…}` on one line
        fix = f"add [databases.{name}] with {', '.join(entry)} by hand"
        raise ConfigurationError("its databases cannot be extended", where=str(path), fix=fix) from error
    _write(path, longer)
    return Written(PurePosixPath(SETTINGS), "extended", drafted=True)


def _present(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="move it, or use another folder"
        ) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"cannot be written: {error.strerror}", where=str(path), fix="give the right to, or use another folder"
        ) from error
