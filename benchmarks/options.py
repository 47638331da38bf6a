"""What the benchmark can be asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import DEFAULT_WORKLOADS, SIZES
from rowcast.errors import ConfigurationError

STAGES = ("debezium", "sequencer", "consumer", "together", "latency", "takeover")
# Measured unless others are named. The last one waits for a lease to run out, whatever the scale.
DEFAULT_STAGES = STAGES[:-1]
ROUNDS = 5
_EPILOG = """examples:
  ./scripts/bench --quick --json bench.json             one round of the main figures, some minutes
  ./scripts/bench --json bench.json                     everything, five rounds
  ./scripts/bench --only sequencer --workload rows --rounds 3
  ./scripts/bench --only sequencer --stack /tmp/bench --keep     again at once: stack and change logs stay

exit codes: 0 measured; 2 not measured: a count was wrong, or a part did not come up
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    Checked options. *stages* and *workloads* are those to measure, each in the order of the pipeline.

    *stack* is the project folder of a stack to use, None for a temporary one. *scale* multiplies the workloads' size.
    """

    quick: bool
    stages: tuple[str, ...]
    workloads: tuple[str, ...]
    rounds: int
    scale: float
    stack: Path | None
    keep: bool
    json: Path | None


def parse_options(argv: list[str] | None = None) -> Options:
    """
    The options of a command line; ends the process with code 2 on a wrong one.

    Raises:
        ConfigurationError: a folder that is named does not exist.

    """
    values = vars(_parser().parse_args(argv))
    values["stages"] = values.pop("only") or DEFAULT_STAGES
    values["workloads"] = values.pop("workload") or DEFAULT_WORKLOADS
    values["rounds"] = values["rounds"] or (1 if values["quick"] else ROUNDS)
    for name in ("json", "stack"):
        if values[name] is not None:
            values[name] = values[name].resolve()
    folders = [values["json"].parent if values["json"] else None, values["stack"]]
    for folder in folders:
        if folder is not None and not folder.is_dir():
            raise ConfigurationError("no such folder", where=str(folder), fix="create it")
    if values["keep"] and values["stack"] is None:
        raise ConfigurationError("nothing of a temporary stack is kept", where="--keep", fix="name one with --stack")
    return Options(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure each stage of the pipeline by itself and all of them together (docs/reference/bench.md).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one round, and only the main figures of the slow stages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument(
        "--only", type=_choice(STAGES), metavar="STAGE,…", help=f"measure only these of {', '.join(STAGES)}"
    )
    parser.add_argument(
        "--workload",
        type=_choice(tuple(SIZES)),
        metavar="NAME,…",
        help=f"only these of {', '.join(SIZES)}; without it {', '.join(DEFAULT_WORKLOADS)}",
    )
    parser.add_argument("--rounds", type=_count, metavar="N", help=f"how often ({ROUNDS}; with --quick 1)")
    parser.add_argument("--scale", type=_share, default=1.0, metavar="X", help="size of the workloads, 1 is full (1)")
    parser.add_argument("--stack", type=Path, metavar="FOLDER", help="use the stack of this project folder")
    parser.add_argument(
        "--keep", action="store_true", help="leave the stack of --stack up, with its filled change logs"
    )
    return parser


def _choice(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        wanted = text.split(",")
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return tuple(name for name in known if name in wanted)

    return parse


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError("1 to 100")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError("above 0, at most 10")
    return value
