"""The benchmark of validation measures what it says."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contract_validation import measure

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


def test_validation_of_the_repository_s_events_costs_at_most_one_and_a_half_reads() -> None:
    """The median over all accepted examples, each encoded as it is published."""
    measured = measure(SCHEMAS, rounds=40)

    assert len(measured["events"]) == len(list(SCHEMAS.glob("*/*/examples/*/accepted/*.json")))
    assert measured["check_to_loads"] <= 1.5
