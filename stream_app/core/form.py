"""How the events of an aggregate type look in one major, and what their values have to satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from rowcast.event import EventForm, EventMajor
from rowcast.sources.definition import AggregateDefinition, FormerMajor, SourceDefinition, StatedEventDefinition

# Raises ContractViolationError when the event's value does not satisfy the published value schema.
Validator = Callable[[Mapping[str, Any]], None]


class StatedForm(NamedTuple):
    """How the events of one name that services state look, and what their values have to satisfy."""

    form: EventForm
    validate: Validator
    deep: bool = True  # what services say may be nested


def event_form(definition: SourceDefinition, aggregate: str, major: AggregateDefinition | FormerMajor) -> EventForm:
    """The form of the events of an aggregate type in one major."""
    of = EventMajor(definition.domain, aggregate, major.major, major.dataschema, major.deprecation)
    return EventForm(source=definition.source, source_uri=definition.uri, of=of)


def stated_forms(
    form: EventForm, events: Iterable[StatedEventDefinition], validator: Callable[[StatedEventDefinition], Validator]
) -> dict[str, StatedForm]:
    """The forms of *events* that services state, by name; *form* is that of the major's other events."""
    return {each.name: StatedForm(form.stated(each.name, each.dataschema), validator(each)) for each in events}
