"""The outcome as figures (one JSON object) and as a short table for people."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import orjson

from examples.main_job.defects import DefectKind
from examples.main_job.job import Outcome
from examples.main_job.latency import commit_to_applied_ms
from examples.main_job.options import Options
from examples.main_job.pipeline import Pipeline
from rowcast.local.stack import PARTS

_SHOWN_DEFECTS = 5
_SHOWN_CHARACTERS = 400


def figures(options: Options, pipeline: Pipeline, outcome: Outcome) -> dict[str, Any]:
    """Every figure; `docs/reference/main-job.md` defines each."""
    evidence, verdict = outcome.evidence, outcome.verdict
    first_s = outcome.seconds_to_first_event
    return {
        "transactions": len(evidence.transactions),
        "changes": sum(transaction.changes for transaction in evidence.transactions),
        "events": len(evidence.appended),
        "applied": len(evidence.applied),
        "refused": outcome.refused,
        **{kind.value: len(verdict.of(kind)) for kind in DefectKind},
        "setup_s": {"download": round(float(pipeline.public["download_s"]), 1), "install": _install_s()},
        "seconds_to_first_event": None if first_s is None else round(first_s, 1),
        "commit_to_applied_ms": commit_to_applied_ms(verdict.behind, outcome.seen_at),
        "pss_mb": {**dict.fromkeys(PARTS), **outcome.memory_mb},
        "live_events": len(verdict.behind),
        "rolled_back": outcome.rolled_back,
        "rate_asked": options.rate,
        "rate_reached": round(outcome.rate_reached, 1),
        "seconds": options.seconds,
        "instances": options.instances,
        "seed": options.seed,
        "void_reason": outcome.void_reason,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the figures, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    draft.replace(path)


def exit_code(outcome: Outcome) -> int:
    """0 clean; 1 not clean or void."""
    return 0 if outcome.verdict.clean and not outcome.refused and outcome.void_reason is None else 1


def table(content: dict[str, Any], outcome: Outcome) -> str:
    """The verdict for people: what went through, what was wrong, how fast, how large."""
    waits = content["commit_to_applied_ms"] or {}
    sizes = {name: size for name, size in content["pss_mb"].items() if size is not None}
    lines = [
        "",
        (
            f"  {content['transactions']} transactions committed ({content['rolled_back']} rolled back),"
            f" {content['changes']} rows changed"
        ),
        (
            f"  {content['events']} events published ({content['live_events']} of them live),"
            f" {content['applied']} applied, {content['refused']} refused"
        ),
        "  " + ", ".join(f"{kind.value} {content[kind.value]}" for kind in DefectKind),
        "  commit to applied: " + (", ".join(f"{name} {value:g} ms" for name, value in waits.items()) or "-"),
        (
            f"  first event after {content['seconds_to_first_event']} s;"
            f" {content['rate_reached']:g} of {content['rate_asked']:g} transactions a second"
        ),
        f"  memory {sum(sizes.values()):.0f} MB: " + ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()),
        "",
    ]
    defects = outcome.verdict.defects
    lines += [f"  {defect}"[:_SHOWN_CHARACTERS] for defect in defects[:_SHOWN_DEFECTS]]
    if len(defects) > _SHOWN_DEFECTS:
        lines.append(f"  … and {len(defects) - _SHOWN_DEFECTS} more")
    if outcome.void_reason is not None:
        lines.append(f"  VOID: {outcome.void_reason}")
    lines.append("  VERDICT: " + ("clean" if exit_code(outcome) == 0 else "NOT CLEAN"))
    return "\n".join(lines)


def what_next(options: Options) -> str:
    """Commands that show what is there now."""
    project = "" if Path.cwd() == options.project else f" --project {options.project}"
    rowcast, run = f".venv/bin/rowcast{project}", f"./scripts/run{project}"
    if options.stack is not None:
        run += " --stack"
    return "\n".join(
        [
            "",
            "What to try next:",
            *([] if options.stack is not None else [f"  {rowcast} status                       which processes run"]),
            f"  {rowcast} sources status inventory     connector, slot, position, lag",
            f"  {rowcast} refused list inventory       what could not be published, and why",
            f"  {run} --rate 300               more load on the same stack",
            f"  {run} --stop                   stop worker, consumer and an own stack; data stay",
        ]
    )


def _install_s() -> float:
    try:
        return round(float((Path(sys.prefix) / "install_s").read_text()), 1)
    except (OSError, ValueError):
        return 0.0  # the environment was made by hand
