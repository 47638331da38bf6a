"""
The end of a major version: what its contract says of it, and how events tell.

A contract says it in ``x-deprecation``; events carry the attributes of CloudEvents' deprecation extension.
Source: CloudEvents 1.0, extensions/deprecation.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

KEYWORD = "x-deprecation"
_FIELDS = {"since", "sunset", "migration"}
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&'()*+,\-./0-9:;=?@A-Za-z\[\]_~]{1,1000}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MIDNIGHT = "T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """A major that ends: *sunset* is the last day on which it is published, *since* the day from which it is old."""

    sunset: str
    since: str = ""
    migration: str = ""

    @property
    def last_day(self) -> date:
        """The sunset as a date."""
        return date.fromisoformat(self.sunset)

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """The Kafka headers of the major's events."""
        named = {
            "ce_deprecated": "true",
            "ce_deprecationfrom": self.since and self.since + _MIDNIGHT,
            "ce_deprecationsunset": self.sunset + _MIDNIGHT,
            "ce_deprecationmigration": self.migration,
        }
        return tuple((name, text.encode()) for name, text in named.items() if text)

    @classmethod
    def of_headers(cls, attributes: Mapping[str, str]) -> Deprecation | None:
        """What the headers of an event say; None where they name no day, or it is not deprecated."""
        sunset = attributes.get("ce_deprecationsunset", "").partition("T")[0]
        if attributes.get("ce_deprecated") != "true" or not _is_day(sunset):
            return None
        return cls(
            sunset=sunset,
            since=attributes.get("ce_deprecationfrom", "").partition("T")[0],
            migration=attributes.get("ce_deprecationmigration", ""),
        )

    @classmethod
    def of_entity(cls, entity: Mapping[str, Any]) -> Deprecation | None:
        """What a contract says; None where it says nothing, or what `faults` refuses."""
        declared = entity.get(KEYWORD)
        return None if declared is None or faults(declared) else cls(**declared)


def faults(declared: Any) -> list[str]:
    """What is wrong with the value of ``x-deprecation``."""
    if not isinstance(declared, dict):
        return ['must be an object such as {"sunset": "2027-06-30"}']
    found = [
        f"has an unknown {name!r}; known: {', '.join(sorted(_FIELDS))}" for name in sorted(declared.keys() - _FIELDS)
    ]
    if "sunset" not in declared:
        found.append("needs the day of its sunset")
    days = [name for name in ("since", "sunset") if name in declared and not _is_day(declared[name])]
    found += [f"{name} must be a day such as 2027-06-30" for name in days]
    if "migration" in declared and not (
        isinstance(declared["migration"], str) and _URI.fullmatch(declared["migration"])
    ):
        found.append("migration must be the absolute URI of a page that says what to do")
    if not found and declared.get("since", "") > declared["sunset"]:
        found.append("since is behind the sunset")
    return found


def _is_day(value: Any) -> bool:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True
