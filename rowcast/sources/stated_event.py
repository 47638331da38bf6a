"""
Events that services state: how a source file declares them, and what they are compiled to.

The contract of an event's data stands at ``schemas/<domain>/<aggregate>.<event>/v1.<minor>.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rowcast.contracts.contract import Contract, stated_name
from rowcast.event import EVENT_NAME, EventKind
from rowcast.sources.definition import StatedEventDefinition
from rowcast.sources.document import Section

_NAME_FORM = "lower-case letters, digits and _, a letter first, at most 48; not " + ", ".join(EventKind)
_CONTRACT = re.compile(r"v1\.(0|[1-9][0-9]{0,3})")

# The version of each declared event's contract, by event; None: the newest.
Entries = Mapping[str, tuple[int, int] | None]


def read_events(aggregate: Section) -> Entries:
    """What *aggregate* declares under ``events``."""
    section = aggregate.section("events")
    entries: dict[str, tuple[int, int] | None] = {}
    for name in section:
        if not EVENT_NAME.fullmatch(name) or name in tuple(EventKind):
            section.fault(name, f"{name!r} is not accepted as a name", _NAME_FORM)
        entry = section.section(name, ("contract",))
        version = _CONTRACT.fullmatch(entry.text("contract", _CONTRACT, "v1.<minor>, such as v1.0", default=""))
        entries[name] = (1, int(version[1])) if version else None
    return entries


def compile_events(
    aggregate: str, events: Entries, contracts: Mapping[str, Contract]
) -> tuple[StatedEventDefinition, ...]:
    """The definitions of *events*; *contracts* has that of the entity by *aggregate*, and theirs by `stated_name`."""
    entity = contracts[aggregate]
    return tuple(
        StatedEventDefinition(
            name=name, value_schema=entity.stated_schema(stated), dataschema=entity.stated_dataschema(stated)
        )
        for name, stated in ((each, contracts[stated_name(aggregate, each)]) for each in sorted(events))
    )
