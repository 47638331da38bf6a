"""Compiled validators of the value schemas, with `jsonschema-rs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from rowcast.errors import ContractViolationError
from rowcast.sources.definition import SourceDefinition
from stream_app.core.mapping import Validator


def compile_validators(definition: SourceDefinition) -> dict[str, Validator]:
    """A validator for each aggregate type of *definition*; formats are asserted, values masked in messages."""
    return {each.name: _validator(each.value_schema) for each in definition.aggregates}


def _validator(schema: Mapping[str, Any]) -> Validator:
    compiled = jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True, mask="<value>")

    def validate(value: Mapping[str, Any]) -> None:
        try:
            compiled.validate(value)
        except jsonschema_rs.ValidationError as error:
            pointer = "/" + "/".join(map(str, error.instance_path))
            raise ContractViolationError(f"{pointer}: {error.message}") from error

    return validate
