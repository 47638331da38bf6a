"""What the main job can be asked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rowcast.errors import ConfigurationError

ROLES = ("worker", "consumer")
_STACK = {
    "brokers": "ROWCAST_BROKERS",
    "connect": "ROWCAST_CONNECT_URL",
    **{
        name: f"ROWCAST_DATABASE_{name.upper()}" for name in ("inventory", "inventory_application", "rowcast", "orders")
    },
}
_REPOSITORY = Path(__file__).resolve().parents[2]
_EPILOG = """examples:
  ./scripts/run                                  the whole pipeline, 100 transactions a second for 20 seconds
  ./scripts/run --rate 300 --seconds 60          on the stack that the first run left up
  ./scripts/run --seconds 20 --json out.json --down
  ./scripts/run --stop                           stop what a run left up
  ./scripts/run --project FOLDER --stack         on the parts that FOLDER/rowcast.toml and the environment name
  ./scripts/run --stack brokers=kafka:9092 connect=http://connect:8083 inventory=postgresql://… \\
                rowcast=postgresql://… orders=postgresql://…

exit codes: 0 clean; 1 not clean, or void (fewer than half of the asked rate); 2 no comparison could be made
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    Checked options; *json* is where the figures go, None for nowhere.

    *stack*: None, or the run takes parts that it did not start, with these settings by their variables over those of
    the project. *roles* are the project folders of worker and consumer, where they are others.
    """

    rate: float
    seconds: float
    instances: int
    seed: int
    json: Path | None
    down: bool
    stop: bool
    project: Path
    stack: Mapping[str, str] | None = None
    roles: Mapping[str, Path] = field(default_factory=dict)


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
    parser.add_argument(
        "--stack",
        nargs="*",
        metavar="NAME=URL",
        help="start no stack, use the one that rowcast.toml and the environment name, or these: brokers, connect, and"
        " the databases inventory, rowcast, orders (and inventory_application, the login of the inventory service)",
    )
    parser.add_argument(
        "--role",
        dest="roles",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="with --stack: run worker or consumer with the rowcast.toml of FOLDER, as another login",
    )
    values = vars(parser.parse_args(argv))
    values["project"] = values["project"].resolve()
    values["stack"] = None if values["stack"] is None else _variables(values["stack"])
    values["roles"] = _roles(values["roles"])
    if values["roles"] and values["stack"] is None:
        raise ConfigurationError("is for a stack that runs already", where="--role", fix="--stack")
    if values["json"] is not None:
        values["json"] = values["json"].resolve()
        if not values["json"].parent.is_dir():
            raise ConfigurationError("no such folder", where=str(values["json"].parent), fix="create it")
    return Options(**values)


def _variables(pairs: Iterable[str]) -> dict[str, str]:
    """The settings of ``name=url`` pairs, by the environment variables that stand for them."""
    found = {}
    for pair in pairs:
        name, equals, url = pair.partition("=")
        if not equals or name not in _STACK:
            raise ConfigurationError(
                f"unknown part {name!r}", where="--stack", fix=f"{', '.join(_STACK)}, each with =URL"
            )
        found[_STACK[name]] = url
    return found


def _roles(pairs: Iterable[str]) -> dict[str, Path]:
    found = {}
    for pair in pairs:
        name, _equals, folder = pair.partition("=")
        if name not in ROLES or not Path(folder).is_dir():
            raise ConfigurationError(f"{pair!r} is no role", where="--role", fix=f"{' or '.join(ROLES)}=FOLDER")
        found[name] = Path(folder).resolve()
    return found


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
