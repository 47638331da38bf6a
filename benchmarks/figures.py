"""From the rounds' raw figures to medians and ratios. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Figures = Mapping[str, Any]


def summary(rounds: Sequence[Figures]) -> dict[str, Any]:
    """
    The rounds' figures in one tree of the same shape, each number as its median with min and max.

    A figure that some rounds do not have is summed up over the others; a void measurement is left out.
    """
    counted = [each for each in rounds if not each.get("void")]
    names = dict.fromkeys(name for each in counted for name in each if name not in {"round", "void"})
    tree = {}
    for name in names:
        values = [each[name] for each in counted if name in each]
        if isinstance(values[0], Mapping):
            tree[name] = summary(values)
        else:
            tree[name] = spread(values)
    return tree


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of *values*."""
    return {"median": round(median(values), 3), "min": min(values), "max": max(values)}


def ratios(rounds: Sequence[Figures]) -> dict[str, Any]:
    """For each workload the sequencer's rows a second through Debezium's of the same round."""
    found: dict[str, list[float]] = {}
    for each in rounds:
        peers = each.get("debezium", {})
        for workload, figures in each.get("sequencer", {}).items():
            if workload in peers:
                ratio = figures["rows_per_s"] / peers[workload]["rows_per_s"]
                found.setdefault(workload, []).append(round(ratio, 3))
    return {"sequencer_to_debezium": {workload: spread(values) for workload, values in found.items()}}
