"""From the client's return from COMMIT to the end of the consumer's COMMIT. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from examples.inventory.ledger import CommittedTransaction


def commit_to_applied_ms(
    behind: Mapping[str, CommittedTransaction], seen_at: Mapping[str, float]
) -> dict[str, float] | None:
    """
    Percentiles over all live events that were applied; None when there was none.

    An event that was seen before its own client's COMMIT had returned counts as 0.
    """
    waits = sorted(
        max(0.0, (seen_at[event_id] - transaction.committed_at) * 1_000)
        for event_id, transaction in behind.items()
        if event_id in seen_at
    )
    if not waits:
        return None
    return {
        "p50": percentile(waits, 0.50),
        "p95": percentile(waits, 0.95),
        "p99": percentile(waits, 0.99),
        "max": percentile(waits, 1.0),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the *ordered* values that at least *share* of them do not exceed (nearest rank)."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)
