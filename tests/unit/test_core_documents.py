"""Values that a column may hold and an event may not carry."""

from __future__ import annotations

from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, build_mapping, run_batch

from stream_app.core.state import Key, read_published


def refusal_of(tags: str) -> Any:
    """The refusal of an instance whose document is *tags*; another one has to come through."""
    log, store, mapping = ChangeLog(), MemoryStore(), build_mapping()
    row = {"id": "i1", "title": "t", "tags": tags, "secret": "s"}
    log.transaction([("c", "instance", None, row), ("c", "instance", None, {**row, "id": "i2", "tags": "[]"})])
    records, view = run_batch(mapping, store, log.records())
    state = view.aggregates[Key("instance", "i1")]
    assert len(records) == (1 if state.refusal else 2)
    return state.refusal, state.published and read_published(state.published)[0]["tags"]


@pytest.mark.parametrize(
    "document",
    ["[" * 260 + "]" * 260, "[" * 5000 + "]" * 5000, "12345678901234567890123", "0.12345678901234567890123", "{"],
)
def test_a_document_that_cannot_be_carried_unchanged_is_refused(document: str) -> None:
    """Too deep, too many digits, or no JSON: the aggregate is refused and the others go on."""
    refusal, published = refusal_of(document)

    assert refusal is not None
    assert published is None
    assert len(refusal.reason) <= 2000


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ("18446744073709551615", 18446744073709551615),
        ("-9223372036854775808", -9223372036854775808),
        ("0.1000000000000000", 0.1),
        ('"1234567890123456789012345"', "1234567890123456789012345"),
        ("1.5", 1.5),
    ],
)
def test_a_document_that_can_be_carried_is_carried_exactly(document: str, value: Any) -> None:
    """Numbers up to 64 bits and doubles keep their value."""
    assert refusal_of(document) == (None, value)
