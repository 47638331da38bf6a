"""``python -m campaign``, started by `scripts/campaign`. Exit codes: 0 clean, 1 findings, 2 no verdict, 130 Ctrl-C."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import requests
from confluent_kafka import KafkaException

from benchmarks.machine import commit
from campaign import ledger
from campaign.errors import NoVerdictError
from campaign.faults import THEMES
from campaign.options import Options, parse_options
from campaign.round import Round
from campaign.round_plan import RoundPlan, plan_round
from campaign.stand import Stand
from examples.main_job.progress import tell
from rowcast.errors import RowcastError

_SEEDS = 2**31
_NO_VERDICT = (NoVerdictError, RowcastError, psycopg.Error, KafkaException, requests.RequestException, OSError)


def main(argv: list[str] | None = None) -> int:
    """Run the campaign and return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        options = parse_options(argv)
        former = ledger.read(options.ledger) if options.ledger is not None else []
        rounds = _run(options)
        content: dict[str, Any] = {
            "sums": ledger.sums(rounds),
            "all": ledger.sums([*former, *rounds]),
            "rounds": rounds,
        }
    except _NO_VERDICT as error:
        tell(f"campaign: {error}")
        return 2
    except KeyboardInterrupt:
        tell("interrupted: what this campaign started is stopped")
        return 130
    text = json.dumps(content, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    _tell_sums(content["all" if options.ledger else "sums"])
    return _exit_code(rounds)


def _exit_code(rounds: list[dict[str, Any]]) -> int:
    verdicts = {each["verdict"] for each in rounds}
    if "findings" in verdicts:
        return 1
    return 2 if "none" in verdicts else 0


def _run(options: Options) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = []
    if options.seeds == 0:
        return rounds
    began_s, now = time.monotonic(), commit()
    with _stand(options) as stand:
        folder = Path(tempfile.mkdtemp(prefix="rowcast-campaign-")).resolve()
        try:
            for seed in _seeds(options):
                if options.minutes is not None and time.monotonic() - began_s > 60 * options.minutes:
                    break
                rounds.append(_round(options, seed, stand, folder, now))
                if options.ledger is not None:
                    ledger.append(options.ledger, rounds[-1])
                if options.until is not None and rounds[-1].get("checks", {}).get(options.until):
                    break
        finally:
            _finish_undisturbed()
            if not any(folder.iterdir()):
                folder.rmdir()  # kept: the files of rounds that were not clean
    return rounds


def _round(options: Options, seed: int, stand: Stand, folder: Path, now: str | None) -> dict[str, Any]:
    plan = plan_round(seed, faults=not options.no_faults)
    tell(f"seed {seed} ({plan.theme}): {len(plan.types)} tables, exactly-once source {_switch(plan)}")
    try:
        result = Round(plan, stand, folder).run()
    except _NO_VERDICT as error:
        tell(f"seed {seed}: no verdict: {error}")
        return ledger.without_verdict(seed, now, f"{type(error).__name__}: {error}")
    line = ledger.entry(result, now)
    tell(
        f"seed {seed}: {result.verdict}{f' ({result.void})' if result.void else ''} in {result.seconds:.0f} s:"
        f" {line['events']} events of {line['transactions']} transactions, oldest {line['freshness_max_s']} s,"
        f" {line['sent_again']} changes sent again"
    )
    for finding in result.findings.found[:10]:
        tell(f"  {finding}"[:400])
    if result.findings.found:
        tell(f"  {len(result.findings.found)} findings; logs and journal: {folder}")
    return line


def _switch(plan: RoundPlan) -> str:
    return "on" if plan.exactly_once else "off"


def _seeds(options: Options) -> Iterator[int]:
    if options.seed is not None:
        yield options.seed
        return
    count = 0
    while options.seeds is None or count < options.seeds:
        theme = count % len(THEMES)
        yield secrets.randbelow(_SEEDS // len(THEMES)) * len(THEMES) + theme
        count += 1


@contextmanager
def _stand(options: Options) -> Iterator[Stand]:
    """A running stack; one that was started here is stopped, a temporary one deleted."""
    folder = options.stack or Path(tempfile.mkdtemp(prefix="rowcast-campaign-stack-")).resolve()
    stand = Stand(folder)
    try:
        stand.up()
        yield stand
    finally:
        _finish_undisturbed()
        if options.stack is None:
            stand.wipe()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            stand.leave(keep=options.keep)


def _tell_sums(found: dict[str, Any]) -> None:
    defects = {name: count for name, count in found["checks"].items() if count}
    tell(
        f"{found['rounds']} rounds, {found['events']} events, {found['void']} void, {found['without_verdict']} without"
        f" verdict, median {found['median_s']} s, oldest {found['freshness_max_s']} s; findings: {defects or 'none'}"
    )


def _finish_undisturbed() -> None:
    """Nothing stays running because somebody pressed Ctrl-C twice."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main())
