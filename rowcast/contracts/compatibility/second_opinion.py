"""
What jsonschema-rs says of two schemas, as a second opinion.

Its containment test is experimental, so it can only cast doubt on a proof of ours: it never makes one.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from rowcast.contracts.compatibility.document import SchemaDocument
from rowcast.contracts.compatibility.validator import closed


def denies(writer: SchemaDocument, reader: SchemaDocument) -> bool:
    """Whether the library is sure that *reader* rejects something that a writer of *writer* emits."""
    try:
        emitted = _canonical(closed(writer.root, strictly=False))
        answer = _canonical(reader.root).covers(emitted)
    except (ValueError, AttributeError, TypeError):
        # What it cannot read, or no longer offers under this name, it has no opinion on.
        return False
    return bool(answer == jsonschema_rs.canonical.Containment.NO)


def _canonical(schema: Any) -> Any:
    return jsonschema_rs.canonicalize(schema, draft=20, validate_formats=True, offline=True)
