"""The four kinds of defects, and the docket that collects them: each is counted once for an aggregate's version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from examples.inventory.published import Key


class DefectKind(StrEnum):
    """What can be wrong; `docs/reference/main-job.md` defines each."""

    LOST = "lost"
    DUPLICATE_EFFECTS = "duplicate_effects"
    OUT_OF_ORDER = "out_of_order"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Defect:
    """One finding: the aggregate and version that it is about (None where unknown), and what was expected."""

    kind: DefectKind
    key: Key | None
    version: int | None
    expected: str

    def __str__(self) -> str:
        subject = f"{self.key.aggregate} {self.key.id_text}" if self.key else "a record"
        version = "" if self.version is None else f" version {self.version}"
        return f"{self.kind}: {subject}{version}: {self.expected}"


@dataclass(slots=True)
class Docket:
    """Defects in the order in which they were found."""

    _found: dict[tuple[DefectKind, Key | None, int | str | None], Defect] = field(default_factory=dict)
    _subjects: set[tuple[DefectKind, Key | None]] = field(default_factory=set)

    def add(self, kind: DefectKind, key: Key | None, version: int | None, expected: str) -> None:
        """Note a defect, unless one of this kind is known for the same version."""
        subject = expected if key is None or version is None else version
        self._found.setdefault((kind, key, subject), Defect(kind, key, version, expected))
        self._subjects.add((kind, key))

    def has(self, kind: DefectKind, key: Key) -> bool:
        """Whether there is a defect of *kind* for any version of *key*."""
        return (kind, key) in self._subjects

    def of(self, kind: DefectKind) -> tuple[Defect, ...]:
        """All defects of *kind*."""
        return tuple(defect for defect in self if defect.kind is kind)

    def __iter__(self) -> Iterator[Defect]:
        return iter(self._found.values())
