"""
Older majors of an aggregate that are still live: their entity is made from that of the newest by a pure function.

Every version goes out in all live majors or in none; each has a topic and a schema of its own. What the source hides of
personal data is hidden here too: the function is given values as they are published, and what it makes is treated as
the classes of the older contract say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import orjson

from rowcast.contracts.personal_data import Digest, is_needed
from rowcast.errors import MappingError
from rowcast.event import EventForm
from rowcast.sources.definition import AggregateDefinition, FormerMajor, SourceDefinition, StatedEventDefinition
from rowcast.sources.function_module import Function
from rowcast.sources.shielded_column import older_dropped, older_treatments
from stream_app.core.field import result_of
from stream_app.core.form import StatedForm, Validator, event_form, stated_forms
from stream_app.core.former_value import Former, older_reader


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderMajor:
    """
    One older major: the *function* makes an entity with exactly the *properties* that are published of its contract.

    *told* takes off what it makes what this major may not tell, None where all may be told; *hides*: personal data.
    *stated* has the events that services state, by name.
    """

    deep: ClassVar[bool] = True  # functions may nest what they make

    major: int
    name: str
    function: Function
    properties: frozenset[str] | None
    validate: Validator
    form: EventForm
    told: Former | None
    hides: bool
    stated: Mapping[str, StatedForm]

    def downcast(self, newest: Mapping[str, Any]) -> dict[str, Any]:
        """
        The entity of this major, from that of the *newest*, as it is published.

        Raises:
            MappingError: the function does not give one.

        """
        # A copy of its own: a function may change what it is given.
        entity = result_of(self.name, partial(self.function, orjson.loads(orjson.dumps(newest))))
        if not isinstance(entity, dict):
            raise MappingError(f"function {self.name!r} returned no object")
        entity = self._told(entity)
        if self.properties is not None and entity.keys() != self.properties:
            wrong = sorted(entity.keys() ^ self.properties)
            what = "returned fields that the contract does not have" if entity.keys() - self.properties else "left out"
            raise MappingError(f"function {self.name!r} {what}: {', '.join(wrong)}")
        return entity

    def downcast_former(self, newest: Mapping[str, Any]) -> dict[str, Any] | None:
        """Like `downcast`; None where a former state has no form in this major: it was made by another contract."""
        try:
            return self.downcast(newest)
        except MappingError:
            return None

    def _told(self, entity: dict[str, Any]) -> dict[str, Any]:
        if self.told is None:
            return entity
        try:
            return self.told(entity)
        except (TypeError, ValueError, RecursionError) as error:
            raise MappingError(f"function {self.name!r} returned what cannot be hidden") from error


def older_majors(
    definition: SourceDefinition,
    aggregate: AggregateDefinition,
    functions: Mapping[str, Function],
    validators: Mapping[str, Validator],
    digest: Digest,
) -> tuple[OlderMajor, ...]:
    """The older majors of *aggregate* that go out, ready to use; *validators* has theirs by dataschema."""

    def validator(event: StatedEventDefinition) -> Validator:
        return validators[event.dataschema]

    majors = []
    for each in aggregate.former:
        form = event_form(definition, aggregate.name, each)
        majors.append(
            OlderMajor(
                major=each.major,
                name=each.function,
                function=functions[each.function],
                properties=_properties(aggregate, each),
                validate=validators[each.dataschema],
                form=form,
                told=older_reader(aggregate, each, digest),
                hides=any(map(is_needed, older_treatments(aggregate, each).values())),
                stated=stated_forms(form, each.events, validator),
            )
        )
    return tuple(majors)


def _properties(aggregate: AggregateDefinition, former: FormerMajor) -> frozenset[str] | None:
    declared = former.entity_schema.get("properties")
    if declared is None:
        return None
    dropped, demanded = older_dropped(aggregate, former)
    return frozenset(declared) - (dropped - demanded)
