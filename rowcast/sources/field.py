"""
Where the value of one property comes from, as the source file declares it and as workers read it.

One of three: a *place* of the row, a *constant*, or a *function* of places. What a place holds may be looked up in a
reference table, cast, and replaced by a default where it is null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rowcast.contracts.personal_data import Handling
from rowcast.sources.document import Section
from rowcast.sources.place import PLACE_FORM, parse_place

CASTS = ("text", "integer", "number", "boolean", "json", "utc")
_CAST = re.compile("|".join(CASTS))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_PLACE = re.compile(r"(?!/)[^\x00]{1,63}|/(?!/)[^\x00]{1,500}")
_SHAPES = {
    "column": ("column", "reference", "cast", "default", "pii"),
    "constant": ("constant", "pii"),
    "function": ("function", "inputs", "pii"),
}
HANDLING_FORM = ", ".join(sorted(Handling))
_HANDLING = re.compile("|".join(Handling))
_ACCEPTED = "a place, or {column: …}, {constant: …} or {function: …, inputs: {…}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDefinition:
    """
    Where a property's value comes from. *default* stands for a null; None: there is none.

    *inputs* has the place of each parameter of *function*. *pii* says what is done with the value as a whole; None:
    what its class and those of its parts say.
    """

    place: str | None = None
    reference: str | None = None
    cast: str | None = None
    default: Any = None
    constant: Any = None
    function: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    pii: Handling | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """The places of the row that the value is made of."""
        return (self.place,) if self.place is not None else tuple(self.inputs.values())

    @property
    def is_plain(self) -> bool:
        """Whether the value is that of a column, as it is."""
        return (
            self.place is not None
            and parse_place(self.place).path is None
            and (self.reference, self.cast, self.default) == (None, None, None)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionDefinition:
    """The value at *place* has to be one of *values*, or with *negated* none of them."""

    place: str
    values: tuple[Any, ...]
    negated: bool = False


def read_place(section: Section, name: str, default: str | None = None) -> str:
    """The place that a field of a section names; required when there is no *default*."""
    text = section.text(name, _PLACE, PLACE_FORM, default)
    _check(section, name, text)
    return text


def read_places(section: Section, name: str, accepted: str) -> tuple[str, ...]:
    """The place or places that a field of a section names; required."""
    texts = section.texts(name, f"{accepted}; {PLACE_FORM}")
    for text in texts:
        _check(section, name, text)
    return texts


def _check(section: Section, name: str, text: str) -> None:
    try:
        parse_place(text or "unread")  # what could not be read was noted
    except ValueError as error:
        section.fault(name, f"{text!r} {error}", PLACE_FORM)


def read_field(section: Section, name: str) -> FieldDefinition:
    """The declared field *name* of a section."""
    if not section.is_section(name):
        return FieldDefinition(place=read_place(section, name))
    entry = section.section(name, tuple(dict.fromkeys(each for shape in _SHAPES.values() for each in shape)))
    kinds = [kind for kind in _SHAPES if kind in entry]
    if len(kinds) != 1:
        section.fault(name, "says " + (" and ".join(kinds) or "not") + " where its value comes from", _ACCEPTED)
        return FieldDefinition(place="unread")
    for each in entry:
        if each not in _SHAPES[kinds[0]]:
            entry.fault(each, f"does not go with {kinds[0]!r}", ", ".join(_SHAPES[kinds[0]]))
    handling = read_handling(entry, "pii") if "pii" in entry else None
    if kinds == ["constant"]:
        return FieldDefinition(constant=entry.constant("constant"), pii=handling)
    if kinds == ["function"]:
        inputs = entry.section("inputs")
        return FieldDefinition(
            pii=handling,
            function=entry.text("function", _NAME, "the name of a function of connectors/<source>.py"),
            inputs={each: read_place(inputs, each) for each in inputs},
        )
    return FieldDefinition(
        pii=handling,
        place=read_place(entry, "column"),
        reference=entry.text("reference", _NAME, "the name of an entry of `references`", default="") or None,
        cast=entry.text("cast", _CAST, ", ".join(CASTS), default="") or None,
        default=entry.constant("default") if "default" in entry else None,
    )


def read_handling(section: Section, name: str) -> Handling:
    """What a field of a section says that is done with personal data."""
    return Handling(section.text(name, _HANDLING, HANDLING_FORM, default="") or Handling.PUBLISH)


def read_conditions(section: Section, name: str) -> tuple[ConditionDefinition, ...]:
    """The declared conditions *name* of a section: each place with the values that it may or may not have."""
    if name in section and not section.is_section(name):
        section.fault(name, "names no values", "{<place>: <value, list of values, or {not: …}>}")
        return ()
    conditions = []
    entry = section.section(name)
    for place in entry:
        _check(entry, place, place)
        negated = entry.is_section(place)
        values = entry.section(place, ("not",)) if negated else entry
        if not negated or "not" in values:
            conditions.append(
                ConditionDefinition(place=place, values=values.constants("not" if negated else place), negated=negated)
            )
        else:
            entry.fault(place, "says nothing", "{not: <value or list of values>}")
    return tuple(conditions)


def field_of(entry: Mapping[str, Any] | str) -> FieldDefinition:
    """The definition that the parsed JSON *entry* of an applied definition holds."""
    # Format 1 had nothing but columns.
    if isinstance(entry, str):
        return FieldDefinition(place=entry)
    pii = entry.get("pii")
    return FieldDefinition(**{**entry, "pii": None if pii is None else Handling(pii)})


def conditions_of(entries: Iterable[Mapping[str, Any]]) -> tuple[ConditionDefinition, ...]:
    """Likewise for conditions."""
    return tuple(ConditionDefinition(**{**each, "values": tuple(each["values"])}) for each in entries)
