"""Halts: why single aggregate types of a source have no events, while the others go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Halt(NamedTuple):
    """
    Why an *aggregate* type is halted, and since when (RFC 3339): because of *tables* of the type *cause*.

    That is the type itself, or one above it; then there are no tables. *mended*: what somebody has to do first, if
    anything. A halted tenant stands in the place of both as `tenant_place`: nothing of it goes out, of any type.
    """

    aggregate: str
    cause: str
    code: str
    message: str
    mended: str
    tables: tuple[str, ...]
    since: str

    @property
    def tenant(self) -> str | None:
        """The tenant that is halted, where no type is."""
        return self.aggregate.removesuffix("/") if self.aggregate.endswith("/") else None

    def told(self) -> str:
        """What is the case, in words."""
        if self.tenant is not None:
            return f"tenant {self.tenant} is halted since {self.since}: {self.message}"
        if self.aggregate == self.cause:
            return f"aggregate type {self.aggregate} is halted since {self.since}: {self.message}"
        return f"aggregate type {self.aggregate} is halted since {self.since}, because {self.cause} above it is"

    def remedy(self, source: str) -> str:
        """What brings the type back, as status and log tell it."""
        command = f"rowcast sources recover {source} --code {self.code} --yes"
        return f"{self.mended}; then {command}" if self.mended else command


def tenant_place(tenant: str) -> str:
    """What stands in the place of a type where a tenant is halted; no type is called so."""
    return f"{tenant}/"


def first_of(halts: Iterable[Halt]) -> dict[str, str]:
    """Since when each halted type is, the earliest first."""
    first: dict[str, str] = {}
    for each in sorted((each for each in halts if each.tenant is None), key=lambda halt: halt.since):
        first.setdefault(each.aggregate, each.since)
    return first
