"""
Findings that are tolerated for a while: ``ignore.toml`` in the schemas folder.

An entry names rule and aggregate, a reason and a last day. One that is incomplete, past its day or without effect is
itself a finding, so that none outlives its reason.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rowcast.contracts.checking import Finding
from rowcast.errors import ConfigurationError

FILE = "ignore.toml"
_NEEDED = {"rule", "aggregate", "reason", "until"}
_KNOWN = {*_NEEDED, "pointer"}


@dataclass(frozen=True, slots=True)
class Ignore:
    """One entry; *aggregate* is ``<domain>/<aggregate>``, an empty *pointer* stands for all."""

    rule: str
    aggregate: str
    pointer: str
    until: date

    def covers(self, finding: Finding, schemas: Path) -> bool:
        """Whether *finding* is meant."""
        place = Path(finding.file).parent
        return finding.rule == self.rule and place == schemas / self.aggregate and self.pointer in ("", finding.pointer)


def without_ignored(findings: Iterable[Finding], schemas: Path, today: date) -> list[Finding]:
    """
    *findings* without those that are tolerated *today*, and with those about the entries themselves.

    Raises:
        ConfigurationError: the file is no TOML.

    """
    path = schemas / FILE
    entries, faults = _read(path)
    kept = list(findings)
    for entry in entries:
        meant = [finding for finding in kept if entry.covers(finding, schemas)]
        about = f"{entry.rule} of {entry.aggregate}{' at ' + entry.pointer if entry.pointer else ''}"
        if entry.until < today:
            faults.append(Finding(str(path), "", "IGNORE_EXPIRED", f"{about} was tolerated until {entry.until}"))
        elif not meant:
            faults.append(Finding(str(path), "", "IGNORE_UNUSED", f"{about} is not found"))
        else:
            kept = [finding for finding in kept if finding not in meant]
    return [*kept, *faults]


def _read(path: Path) -> tuple[list[Ignore], list[Finding]]:
    if not path.exists():
        return [], []
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(path), fix="correct the file") from error
    entries, faults = [], []
    listed = content.get("ignore", [])
    if content.keys() - {"ignore"} or not isinstance(listed, list):
        faults.append(Finding(str(path), "", "IGNORE_INVALID", "only [[ignore]] entries belong here"))
        listed = []
    for number, entry in enumerate(listed, 1):
        wrong = _fault(entry)
        if wrong:
            faults.append(Finding(str(path), "", "IGNORE_INVALID", f"entry {number} {wrong}"))
        else:
            entries.append(Ignore(entry["rule"], entry["aggregate"], entry.get("pointer", ""), entry["until"]))
    return entries, faults


def _fault(entry: object) -> str:
    if not isinstance(entry, dict):
        return "is no table"
    missing, unknown = sorted(_NEEDED - entry.keys()), sorted(entry.keys() - _KNOWN)
    if missing or unknown:
        return f"lacks {', '.join(missing)}" if missing else f"has an unknown {', '.join(unknown)}"
    texts = [entry[name] for name in sorted(_KNOWN & entry.keys() - {"until"})]
    if not all(isinstance(text, str) for text in texts) or not entry["reason"].strip():
        return "needs texts, and a reason that says something"
    return "" if type(entry["until"]) is date else "needs a date for `until`, such as 2027-01-31"
