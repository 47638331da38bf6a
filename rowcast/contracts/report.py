"""Findings as people and machines want them: with places and remedies, as text, JSON, for GitHub and as JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from rowcast.contracts.checking import Finding
from rowcast.contracts.compatibility.rules import UNDECIDED
from rowcast.contracts.json_text import Place, place_of, places
from rowcast.contracts.remedies import REMEDIES


class Located:
    """Finds line and column of findings; reads a file once, and only when something is wrong in it."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, Place]] = {}

    def place(self, finding: Finding) -> Place:
        """Line and column of *finding*; the first of the file where it is about the whole file, or not JSON."""
        if finding.file not in self._files:
            try:
                self._files[finding.file] = places(Path(finding.file).read_text(encoding="utf-8"))
            except (OSError, ValueError, IndexError, RecursionError):
                self._files[finding.file] = {}
        return place_of(self._files[finding.file], finding.pointer)


def fix_of(finding: Finding) -> str:
    """What to do about *finding*."""
    return finding.evidence.fix if finding.evidence else REMEDIES[finding.rule]


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Each finding as an object, with line and column."""
    located = Located()
    result = []
    for finding in findings:
        line, column = located.place(finding)
        entry = {"file": finding.file, "line": line, "column": column, "pointer": finding.pointer}
        entry |= {"rule": finding.rule, "message": finding.message, "fix": fix_of(finding)}
        if finding.evidence:
            entry |= asdict(finding.evidence)
        if finding.consumers:
            entry["consumers"] = asdict(finding.consumers)
        result.append(entry)
    return result


def consumer_lines(finding: Finding) -> Iterator[str]:
    """Which consumers *finding* breaks, and which not; nothing where none is known."""
    if finding.consumers:
        yield f"breaks consumers: {', '.join(finding.consumers.breaks) or 'none that is known'}"
        if finding.consumers.untouched:
            yield f"does not touch: {', '.join(finding.consumers.untouched)}"


def placed_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """``file:line:column: pointer: message [RULE]``, and the remedy."""
    located = Located()
    for finding in findings:
        line, column = located.place(finding)
        pointer = f" {finding.pointer}:" if finding.pointer else ""
        yield f"{finding.file}:{line}:{column}:{pointer} {finding.message} [{finding.rule}]"
        yield f"  fix: {fix_of(finding)}"


def text_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """``file#pointer: message [RULE]``; where versions were compared, an instance that shows it and the remedy."""
    for finding in findings:
        yield str(finding)
        if finding.evidence:
            if finding.rule != UNDECIDED:
                yield f"  for example {json.dumps(finding.evidence.witness, ensure_ascii=False)}"
            yield f"  fix: {finding.evidence.fix}"
        yield from (f"  {line}" for line in consumer_lines(finding))


def github_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Commands that GitHub shows as annotations of the changed lines."""
    located = Located()
    for finding in findings:
        line, column = located.place(finding)
        told = [f"{finding.message}. Fix: {fix_of(finding)}", *consumer_lines(finding)]
        text = _command("\n".join(told))
        file = _command(finding.file, ",:")
        yield f"::error file={file},line={line},col={column},title={finding.rule}::{text}"


def note_line(file: str, text: str, *, github: bool) -> str:
    """Something worth knowing about *file* that is no finding."""
    return f"::notice file={_command(file, ',:')}::{_command(text)}" if github else f"note: {text}"


def _command(text: str, also: str = "") -> str:
    for character in "%\r\n" + also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def junit_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """One test case per finding, failed; one that passed when there is none."""
    listed, located = list(findings), Located()
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<testsuite name="rowcast schemas check" tests="{max(1, len(listed))}" failures="{len(listed)}">'
    if not listed:
        yield '  <testcase classname="schemas" name="no finding"/>'
    for finding in listed:
        line, _column = located.place(finding)
        told = "\n".join([fix_of(finding), *consumer_lines(finding)])
        name = escape(f"{finding.rule} {finding.pointer}".strip())
        yield f'  <testcase classname="{escape(finding.file)}" name="{name}" line="{line}">'
        yield f'    <failure message="{escape(finding.message)}">{escape(told)}</failure>'
        yield "  </testcase>"
    yield "</testsuite>"


FORMATS: dict[str, Callable[[Iterable[Finding]], Iterator[str]]] = {
    "github": github_lines,
    "junit": junit_lines,
    "text": text_lines,
}
