"""
``python -m benchmarks.report FILE``: write a result file's figures into docs/performance.md, between its markers.

No figure of that page is typed by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import REPOSITORY

PAGE = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
Spread = Mapping[str, float]
_THROUGHPUT = (
    ("debezium", "rows_per_s", "Debezium alone", "rows/s"),
    ("sequencer", "rows_per_s", "sequencer alone", "rows/s"),
    ("sequencer", "events_per_s", "sequencer alone", "events/s"),
    ("sequencer", "worker_pss_mb", "sequencer's memory, peak", "MiB"),
    ("consumer", "events_per_s", "consumer alone", "events/s"),
    ("together", "rows_per_s", "all together", "rows/s"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Replace what stands between the markers."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=f"Write the figures of a result file into a page, between {BEGIN} and {END}.",
        epilog="example: python -m benchmarks.report bench.json",
    )
    parser.add_argument("file", type=Path, help="what scripts/bench --json wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (docs/performance.md)")
    options = parser.parse_args(argv)
    content = json.loads(options.file.read_text())
    options.page.write_text(with_figures(options.page.read_text(), content))


def with_figures(page: str, content: Mapping[str, Any]) -> str:
    """*page* with the tables of *content* between its markers."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n{tables(content)}\n{END}{tail}"


def tables(content: Mapping[str, Any]) -> str:
    """The machine in one paragraph, then throughput, ratios and latency."""
    parts = ["\n".join(_machine(content)), "\n".join(_throughput(content))]
    if content["stages"].get("latency"):
        parts.append("\n".join(_latency(content["stages"]["latency"])))
    return "\n\n".join(parts)


def _machine(content: Mapping[str, Any]) -> Iterator[str]:
    machine, settings, rounds = content["machine"], content["settings"], len(content["rounds"])
    versions = machine["versions"]
    yield f"{machine['cores']} cores of {machine['cpu']}, {_gib(machine)} GiB, Linux {machine['kernel']},"
    yield f"Python {machine['python']}, PostgreSQL {versions['postgresql']}, Kafka {versions['kafka']},"
    yield f"Debezium {versions['debezium']}. Commit {settings['commit'] or 'unknown'}. Load average"
    yield f"{machine['load_average_begin'][0]} before and {machine['load_average_end'][0]} after."
    yield f"{rounds} {'round' if rounds == 1 else 'rounds'}: median (min to max)."
    if settings["quick"]:
        yield "A `--quick` run: `bulk` with an eighth of its rows."


def _throughput(content: Mapping[str, Any]) -> Iterator[str]:
    yield "| Stage | Workload | Figure |"
    yield "|---|---|---|"
    for stage, figure, title, unit in _THROUGHPUT:
        for workload, figures in content["stages"].get(stage, {}).items():
            yield f"| {title} | `{workload}` | {_text(figures[figure])} {unit} |"
    for workload, ratio in content["ratios"]["sequencer_to_debezium"].items():
        yield f"| sequencer through Debezium | `{workload}` | {_text(ratio, 2)} |"
    for workload, ratio in content["ratios"].get("sequencer_to_plain", {}).items():
        yield f"| sequencer through itself with `plain` | `{workload}` | {_text(ratio, 2)} |"
    for workload, ratio in content["ratios"].get("sequencer_to_trees", {}).items():
        yield f"| sequencer through itself with `trees` | `{workload}` | {_text(ratio, 2)} |"
    if takeover := content["stages"].get("takeover"):
        yield f"| owner killed, to the next applied event | | {_text(takeover['kill']['takeover_s'], 1)} s |"


def _latency(rates: Mapping[str, Mapping[str, Spread]]) -> Iterator[str]:
    yield "| Transactions a second | reached | p50 | p95 | p99 | max |"
    yield "|---|---|---|---|---|---|"
    for rate, figures in rates.items():
        waits = " | ".join(f"{figures[f'{name}_ms']['median']:.0f} ms" for name in ("p50", "p95", "p99", "max"))
        yield f"| {rate} | {figures['reached_per_s']['median']:.0f} | {waits} |"


def _gib(machine: Mapping[str, Any]) -> int:
    return round(float(machine["memory_mb"]) / 1024)


def _text(spread: Spread, digits: int = 0) -> str:
    median, low, high = (f"{spread[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


if __name__ == "__main__":
    main()
