"""
Reading a YAML file field by field, with line numbers.

A reader never stops at the first fault: it notes each with line, field and the accepted values, and
``Document.refuse_faults`` reports them all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rowcast.errors import ConfigurationError

_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TAG = "tag:yaml.org,2002:"
_CONSTANT = "a text, a number, true, false or null"
_READ_AS = {"int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """
    One thing that is wrong: *line* (1 is the first), dotted *field*, what, and what would be *accepted*.

    *place* is where it has to be mended when that is another file.
    """

    line: int
    field: str
    message: str
    accepted: str
    place: str = ""


class DocumentError(ConfigurationError):
    """A file is wrong; *faults* holds everything that was found, in the order of the lines."""

    def __init__(self, path: Path, faults: Sequence[Fault]) -> None:
        self.path, self.faults = path, tuple(sorted(faults))
        lines = [
            (f"{fault.place}: " if fault.place else f"{path}:{fault.line}: {fault.field + ': ' if fault.field else ''}")
            + fault.message
            + (f" (accepted: {fault.accepted})" if fault.accepted else "")
            for fault in self.faults
        ]
        super().__init__("\n".join(lines))


@dataclass(slots=True)
class Document:
    """A file that is being read: its faults so far, and the line of every field that was met."""

    path: Path
    faults: list[Fault] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def fault(self, line: int, name: str, message: str, accepted: str = "") -> None:
        """Note a fault and go on."""
        self.faults.append(Fault(line, name, message, accepted))

    def refuse_faults(self) -> None:
        """
        End the reading.

        Raises:
            DocumentError: there were faults.

        """
        if self.faults:
            raise DocumentError(self.path, self.faults)

    def root(self, accepted: Sequence[str]) -> Section:
        """
        The top of the file.

        Raises:
            DocumentError: it is not readable YAML.

        """
        try:
            node = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise DocumentError(self.path, [Fault(line, "", f"not YAML: {error.problem}", "")]) from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DocumentError(self.path, [Fault(1, "", f"cannot be read: {error}", "")]) from error
        return Section(self, node, "", accepted, 1)


class Section:
    """
    One mapping of the file. Fields outside *accepted* are faults at once; an empty *accepted* allows any name.

    Each reader method returns the value, or its default after it noted a fault.
    """

    def __init__(
        self, document: Document, node: yaml.Node | None, name: str, accepted: Sequence[str], line: int
    ) -> None:
        self.document, self.name, self.line = document, name, line
        self.nodes: dict[str, yaml.Node] = {}
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            if not _is(node, "null"):
                document.fault(_line(node), name, "needs fields of its own", ", ".join(accepted) or "name: value")
            return
        for key, value in node.value:
            self._add(key, value, accepted)

    def _add(self, key: yaml.Node, value: yaml.Node, accepted: Sequence[str]) -> None:
        if not (isinstance(key, yaml.ScalarNode) and _is(key, "str")):
            self.document.fault(_line(key), self.name, _not_text(key) or f"{_shown(key)} is not a name", "a name")
        elif key.value in self.nodes:
            self.document.fault(_line(key), self.path(key.value), "declared twice")
        elif accepted and key.value not in accepted:
            self.document.fault(_line(key), self.path(key.value), "unknown field", ", ".join(accepted))
        else:
            self.nodes[key.value] = value
            self.document.lines[self.path(key.value)] = _line(key)

    def path(self, name: str) -> str:
        """The dotted name of a field of this section."""
        return f"{self.name}.{name}" if self.name else name

    def line_of(self, name: str) -> int:
        """The line of a field, or that of the section when it is absent."""
        return self.document.lines.get(self.path(name), self.line)

    def fault(self, name: str, message: str, accepted: str = "") -> None:
        """Note a fault of a field of this section."""
        self.document.fault(self.line_of(name), self.path(name), message, accepted)

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def section(self, name: str, accepted: Sequence[str] = ()) -> Section:
        """The section *name*; empty when absent."""
        return Section(self.document, self.nodes.get(name), self.path(name), accepted, self.line_of(name))

    def text(self, name: str, pattern: re.Pattern[str], accepted: str, default: str | None = None) -> str:
        """A text that matches *pattern*; required when there is no *default*."""
        node = self._node(name, accepted, required=default is None)
        if node is None:
            return default or ""
        if not (isinstance(node, yaml.ScalarNode) and pattern.fullmatch(node.value)):
            self.fault(name, f"{_shown(node)} is not accepted", accepted)
            return default or ""
        misread = _not_text(node)
        if misread:
            self.fault(name, misread, accepted)
            return default or ""
        return str(node.value)

    def number(self, name: str, default: float, limits: tuple[float, float], *, whole: bool = False) -> float:
        """A number within *limits*, both included."""
        accepted = f"a {'whole ' if whole else ''}number from {limits[0]:g} to {limits[1]:g}"
        node = self._node(name, accepted)
        if node is None:
            return default
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if (_is(node, "int") and re.fullmatch(r"[0-9]{1,9}", text)) or (
            not whole and re.fullmatch(r"[0-9]+\.[0-9]+", text)
        ):
            number = float(text)
            if limits[0] <= number <= limits[1]:
                return number
        self.fault(name, f"{_shown(node)} is not accepted", accepted)
        return default

    def truth(self, name: str) -> bool:
        """True or false; false when absent."""
        node = self._node(name, "true, false")
        if node is None:
            return False
        if not (isinstance(node, yaml.ScalarNode) and node.value in {"true", "false"} and _is(node, "bool")):
            self.fault(name, f"{_shown(node)} is not accepted", "true, false")
            return False
        return bool(node.value == "true")

    def duration_ms(self, name: str, default: str) -> int:
        """A duration such as ``90s 15m 48h 7d``, in milliseconds."""
        accepted = "a duration such as 90s, 15m, 48h, 7d; at most 3650d"
        node = self._node(name, accepted)
        text = default if node is None else node.value if isinstance(node, yaml.ScalarNode) else ""
        match = _DURATION.fullmatch(text)
        duration_ms = int(match[1]) * _UNIT_MS[match[2]] if match else 0
        if not 0 < duration_ms <= 3650 * _UNIT_MS["d"]:
            self.fault(name, f"{_shown(node)} is not accepted", accepted)
            return int(default[:-1]) * _UNIT_MS[default[-1]]
        return duration_ms

    def texts(self, name: str, accepted: str) -> tuple[str, ...]:
        """One text, or a list of different ones; required."""
        node = self._node(name, accepted, required=True)
        if node is None:
            return ()
        nodes: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            self.fault(name, "an empty list is not accepted", accepted)
        wrong = [each for each in nodes if not (isinstance(each, yaml.ScalarNode) and _is(each, "str") and each.value)]
        for each in wrong:
            message = _not_text(each) or f"{_shown(each)} is not accepted"
            self.document.fault(_line(each), self.path(name), message, accepted)
        if wrong or not nodes:
            return ()
        texts = tuple(str(each.value) for each in nodes)
        if len(set(texts)) < len(texts):
            self.fault(name, "names a column twice", accepted)
        return texts

    def is_section(self, name: str) -> bool:
        """Whether the field *name* has fields of its own."""
        return isinstance(self.nodes.get(name), yaml.MappingNode)

    def constant(self, name: str) -> str | int | float | bool | None:
        """A text, number, true, false or null; null when it is not accepted."""
        return self._constant(self.nodes.get(name), name)

    def constants(self, name: str) -> tuple[str | int | float | bool | None, ...]:
        """One constant, or a list of them."""
        node = self.nodes.get(name)
        nodes: list[yaml.Node | None] = list(node.value) if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            self.fault(name, "an empty list is not accepted", _CONSTANT)
        return tuple(self._constant(each, name) for each in nodes)

    def _constant(self, node: yaml.Node | None, name: str) -> str | int | float | bool | None:
        if isinstance(node, yaml.ScalarNode):
            text = str(node.value)
            if _is(node, "str"):
                return text
            if _is(node, "null") and text:
                return None
            if _is(node, "bool") and text in {"true", "false"}:
                return text == "true"
            if _is(node, "int") and re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
                return int(text)
            if _is(node, "float") and re.fullmatch(r"-?[0-9]{1,15}\.[0-9]{1,15}", text):
                return float(text)
        self.fault(name, (node and _not_text(node)) or f"{_shown(node)} is not accepted", _CONSTANT)
        return None

    def _node(self, name: str, accepted: str, *, required: bool = False) -> yaml.Node | None:
        node = self.nodes.get(name)
        if node is None and required:
            self.fault(name, "is missing", accepted)
        return node


def _is(node: yaml.Node | None, tag: str) -> bool:
    return node is not None and node.tag == _TAG + tag


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _not_text(node: yaml.Node) -> str:
    """What YAML makes of a word that was meant as text, and how it stays one; empty when it is one, or no word."""
    if not isinstance(node, yaml.ScalarNode) or _is(node, "str") or not node.value:
        return ""
    if _is(node, "bool"):
        read = "true" if node.value.lower() in {"yes", "on", "true"} else "false"
    else:
        read = _READ_AS.get(node.tag.removeprefix(_TAG), "something else than text")
    return f'{node.value!r} is read as {read} here; write "{node.value}"'


def _shown(node: yaml.Node | None) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a section"
