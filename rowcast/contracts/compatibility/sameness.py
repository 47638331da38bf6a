"""Equal schemas of which the one surely reads what the other's writer emits."""

from __future__ import annotations

import json
from typing import Any

from rowcast.contracts.compatibility.document import OPAQUE, subschemas

# A writer that is closed below these may emit what the same open schema rejects; a reference may lead elsewhere.
TURNING = {"$ref", "oneOf", "not", "if", "dependentSchemas", "contains", *OPAQUE}


def same(writer: Any, reader: Any) -> bool:
    """Whether both are the same schema, and one that reads what it writes."""
    if not isinstance(writer, dict) or not isinstance(reader, dict):
        return writer is reader
    if writer is not reader and (writer.keys() != reader.keys() or writer != reader or _text(writer) != _text(reader)):
        return False
    return not any(TURNING & schema.keys() for schema in subschemas(writer))


def _text(schema: Any) -> str:
    # Python holds 1 and true for equal; their texts differ.
    return json.dumps(schema, sort_keys=True)
