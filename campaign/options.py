"""What the campaign can be asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from campaign.finding import Checker
from rowcast.errors import ConfigurationError

_SEED_MAX = 2**31
_EPILOG = """examples:
  ./scripts/campaign --seeds 10                              ten fresh rounds on a stack of their own
  ./scripts/campaign --seed 1234567                          that round again
  ./scripts/campaign --minutes 60 --ledger campaign.jsonl    as many rounds as end within an hour, noted
  ./scripts/campaign --ledger campaign.jsonl --json all.json --seeds 0     only the sums of a ledger

exit codes: 0 no finding in any round; 1 findings; 2 a round without a verdict and no other for it, a wrong option,
  or no stack
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    Checked options. *seeds* fresh seeds, or *seed* alone, or, with only *minutes*, seeds without end.

    At most *repeats* times another seed of the same theme is drawn for a round that was void or had no verdict.

    *until* ends the campaign at the first finding of that checker. *stack* is the project folder of a stack to use,
    None for a temporary one.
    """

    seeds: int | None
    seed: int | None
    minutes: float | None
    repeats: int
    ledger: Path | None
    json: Path | None
    stack: Path | None
    keep: bool
    no_faults: bool
    until: Checker | None


def parse_options(argv: list[str] | None = None) -> Options:
    """
    The options of a command line; ends the process with code 2 on a wrong one.

    Raises:
        ConfigurationError: a folder that is named does not exist.

    """
    parser = _parser()
    values = vars(parser.parse_args(argv))
    if values["seed"] is not None and values["seeds"] is not None:
        parser.error("--seed repeats one round, --seeds draws others: give one of them")
    if values["seed"] is None and values["seeds"] is None and values["minutes"] is None:
        parser.error("give --seeds N, --seed S or --minutes M")
    if values["repeats"] and values["seeds"] is None:
        parser.error("--repeats: only of fresh seeds another one can be taken, give --seeds too")
    if values["keep"] and values["stack"] is None:
        parser.error("--keep: nothing of a temporary stack is kept, name one with --stack")
    for name in ("json", "stack", "ledger"):
        if values[name] is not None:
            values[name] = values[name].resolve()
    for folder in (*(values[name].parent for name in ("json", "ledger") if values[name]), values["stack"]):
        if folder is not None and not folder.is_dir():
            raise ConfigurationError("no such folder", where=str(folder), fix="create it")
    return Options(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/campaign",
        description="Random pipelines under random faults, judged from outside (docs/reference/campaign.md).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=_count, metavar="N", help="so many rounds, each with a fresh seed")
    parser.add_argument("--seed", type=_seed, metavar="S", help="the round of this seed again")
    parser.add_argument("--minutes", type=_minutes, metavar="M", help="begin no round after so many minutes")
    parser.add_argument(
        "--repeats",
        type=_count,
        default=0,
        metavar="N",
        help="take another seed for a round that was void or had no verdict, at most N times",
    )
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="append a line of JSON for each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rounds and sums here, those of the ledger too")
    parser.add_argument("--stack", type=Path, metavar="FOLDER", help="use the stack of this folder")
    parser.add_argument("--keep", action="store_true", help="leave the stack of --stack up")
    parser.add_argument("--no-faults", action="store_true", help="the same rounds without faults")
    parser.add_argument(
        "--until", type=Checker, choices=list(Checker), metavar="CHECKER", help="end at its first finding"
    )
    return parser


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 100_000:
        raise argparse.ArgumentTypeError("0 to 100000")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < _SEED_MAX:
        raise argparse.ArgumentTypeError(f"0 to {_SEED_MAX - 1}")
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError("above 0")
    return value
