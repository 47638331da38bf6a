"""Compiled validators of the value schemas."""

from __future__ import annotations

from rowcast.contracts.validation import ValueValidator
from rowcast.sources.definition import SourceDefinition
from stream_app.core.form import Validator


def compile_validators(definition: SourceDefinition) -> dict[str, Validator]:
    """
    A validator for each aggregate type of *definition*, and as `<type>.<event>` for each stated event; for each of its
    older majors, and each stated event there, by dataschema.

    Formats are asserted, values masked in messages.
    """
    schemas = {each.name: each.value_schema for each in definition.aggregates}
    for aggregate in definition.aggregates:
        schemas |= {f"{aggregate.name}.{each.name}": each.value_schema for each in aggregate.events}
        for older in aggregate.former:
            schemas[older.dataschema] = older.value_schema
            schemas |= {each.dataschema: each.value_schema for each in older.events}
    return {name: ValueValidator(schema).check for name, schema in schemas.items()}
