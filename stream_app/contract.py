"""Compiled validators of the value schemas."""

from __future__ import annotations

from rowcast.contracts.validation import ValueValidator
from rowcast.sources.definition import SourceDefinition
from stream_app.core.mapping import Validator


def compile_validators(definition: SourceDefinition) -> dict[str, Validator]:
    """A validator for each aggregate type of *definition*; formats are asserted, values masked in messages."""
    return {each.name: ValueValidator(each.value_schema).check for each in definition.aggregates}
