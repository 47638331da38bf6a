"""Schema files that are to be compared: read, and found to be schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs

from rowcast.contracts.compatibility.document import SchemaDocument, escape
from rowcast.contracts.json_text import place_of, places, read_json
from rowcast.errors import ConfigurationError


def read_schema(path: Path) -> Any:
    """
    The JSON Schema that *path* holds.

    A schema in another dialect than 2020-12 is returned as it is: comparing it leaves the question undecided.

    Raises:
        ConfigurationError: it is no JSON or no JSON Schema; names file, line and column.

    """
    schema = read_json(path)
    if not isinstance(schema, (dict, bool)):
        raise ConfigurationError(
            "not a JSON Schema: neither an object nor true or false", where=f"{path}:1:1", fix="name a schema file"
        )
    try:
        if SchemaDocument(str(path), schema).foreign_dialect is None:
            jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        pointer = "".join(f"/{escape(part)}" for part in error.instance_path)
        line, column = place_of(places(path.read_text(encoding="utf-8")), pointer)
        raise ConfigurationError(
            f"not a JSON Schema at {pointer or '/'}: {error.message}",
            where=f"{path}:{line}:{column}",
            fix="correct the keyword",
        ) from error
    return schema
