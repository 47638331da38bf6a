"""What the main job can be asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rowcast.errors import ConfigurationError

_REPOSITORY = Path(__file__).resolve().parents[2]
_EPILOG = """examples:
  ./scripts/run                                  the whole pipeline, 100 transactions a second for 20 seconds
  ./scripts/run --rate 300 --seconds 60          on the stack that the first run left up
  ./scripts/run --seconds 20 --json out.json --down
  ./scripts/run --stop                           stop what a run left up

exit codes: 0 clean; 1 not clean, or void (fewer than half of the asked rate); 2 no comparison could be made
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked options; *json* is where the figures go, None for nowhere."""

    rate: float
    seconds: float
    instances: int
    seed: int
    json: Path | None
    down: bool
    stop: bool
    project: Path


def parse_options(argv: list[str] | None = None) -> Options:
    """
    The options of a command line; ends the process with code 2 on a wrong one.

    Raises:
        ConfigurationError: the folder for the figures does not exist.

    """
    parser = argparse.ArgumentParser(
        prog="scripts/run",
        description="Start the whole pipeline on this machine, drive live transactions through it, and judge it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=_positive, default=100.0, metavar="N", help="transactions a second (100)")
    parser.add_argument("--seconds", type=_positive, default=20.0, metavar="N", help="length of the live load (20)")
    parser.add_argument("--instances", type=_count, default=5_000, metavar="N", help="titles in the catalogue (5000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the catalogue and the load (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here (docs/reference/main-job.md)")
    parser.add_argument("--down", action="store_true", help="stop everything at the end; data stay")
    parser.add_argument("--stop", action="store_true", help="only stop what an earlier run left up")
    parser.add_argument(
        "--project", type=Path, default=_REPOSITORY, metavar="FOLDER", help="keep the state in FOLDER/.rowcast"
    )
    values = vars(parser.parse_args(argv))
    values["project"] = values["project"].resolve()
    if values["json"] is not None:
        values["json"] = values["json"].resolve()
        if not values["json"].parent.is_dir():
            raise ConfigurationError("no such folder", where=str(values["json"].parent), fix="create it")
    return Options(**values)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 50 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError("50 to 1000000")
    return value
