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
    """
    Rows a second through rows a second of the same round, for each workload that has both.

    The sequencer through Debezium; the sequencer with nested aggregates through the same rows as one each; and with one
    large transaction, or a snapshot, through the same kind of rows in small transactions.
    """
    to_debezium: dict[str, list[float]] = {}
    to_trees: dict[str, list[float]] = {}
    to_plain: dict[str, list[float]] = {}
    for each in rounds:
        peers, own = each.get("debezium", {}), each.get("sequencer", {})
        for workload, figures in own.items():
            if workload in peers:
                to_debezium.setdefault(workload, []).append(_ratio(figures, peers[workload]))
        if "nested" in own and "trees" in own:
            to_trees.setdefault("nested", []).append(_ratio(own["nested"], own["trees"]))
        for name in ("large", "snapshot"):
            if name in own and "plain" in own:
                to_plain.setdefault(name, []).append(_ratio(own[name], own["plain"]))
    found = {"sequencer_to_debezium": to_debezium, "sequencer_to_trees": to_trees, "sequencer_to_plain": to_plain}
    return {
        name: {workload: spread(values) for workload, values in each.items()}
        for name, each in found.items()
        if each or name == "sequencer_to_debezium"
    }


def _ratio(one: Figures, other: Figures) -> float:
    ratio: float = one["rows_per_s"] / other["rows_per_s"]
    return round(ratio, 3)
