"""The ledger: a line of JSON for each round, so that a campaign goes on later, and the sums over them."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campaign.finding import Checker
from campaign.round import RoundResult
from rowcast.errors import ConfigurationError

_SHOWN = 20


def entry(result: RoundResult, commit: str | None) -> dict[str, Any]:
    """What is noted of a round."""
    return {
        "seed": result.seed,
        "commit": commit,
        "verdict": result.verdict,
        "void": result.void,
        "at": round(time.time()),
        "seconds": round(result.seconds, 1),
        **result.figures,
        "faults": result.faults,
        "checks": result.findings.counts(),
        "findings": [str(each)[:500] for each in result.findings.found[:_SHOWN]],
    }


def without_verdict(seed: int, commit: str | None, reason: str) -> dict[str, Any]:
    """What is noted of a round that broke."""
    return {
        "seed": seed,
        "commit": commit,
        "verdict": "none",
        "void": None,
        "at": round(time.time()),
        "reason": reason[:2000],
    }


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a round to the ledger in *path*; it is on disk afterwards."""
    with path.open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """
    The rounds in *path*, none if there is no such file.

    Raises:
        ConfigurationError: a line is not that of a round.

    """
    if not path.exists():
        return []
    rounds = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            rounds.append({**line, "seed": int(line["seed"]), "verdict": str(line["verdict"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"line {number} is not that of a round", where=str(path), fix="remove the line, or name another file"
            ) from error
    return rounds


def _medians(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each part, in the order of a round."""
    names = dict.fromkeys(name for each in parts for name in each)
    return {name: round(statistics.median(each[name] for each in parts if name in each), 1) for name in names}


def sums(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures over all *rounds*: those that count, and how many do not."""
    counted = [each for each in rounds if each["verdict"] in ("clean", "findings")]
    checks = Counter[str]()
    for each in counted:
        checks.update(each.get("checks", {}))
    commits = Counter(str(each.get("commit")) for each in counted)
    return {
        "rounds": len(counted),
        "clean": sum(each["verdict"] == "clean" for each in rounds),
        "void": sum(each["verdict"] == "void" for each in rounds),
        "without_verdict": sum(each["verdict"] == "none" for each in rounds),
        "events": sum(each.get("events", 0) for each in counted),
        "freshness_max_s": max((each.get("freshness_max_s", 0.0) for each in counted), default=0.0),
        "median_s": round(statistics.median(each.get("seconds", 0.0) for each in counted), 1) if counted else None,
        "parts_s": _medians([each.get("parts_s", {}) for each in counted]),
        "checks": {str(checker): checks[str(checker)] for checker in Checker},
        "commits": dict(commits),
        "failed_seeds": sorted({each["seed"] for each in counted if each["verdict"] == "findings"}),
    }
