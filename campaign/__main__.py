"""``python -m campaign``, started by `scripts/campaign`. Exit codes: 0 clean, 1 findings, 2 no verdict, 130 Ctrl-C."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.interruption import finish_undisturbed, interruptible
from benchmarks.machine import commit
from campaign import ledger
from campaign.options import Options, parse_options
from campaign.relay import NO_VERDICT, Outcome, Relay
from campaign.round_plan import RoundPlan, plan_round
from campaign.seeds import Seeds
from campaign.stand import Stand
from examples.main_job.progress import tell


def main(argv: list[str] | None = None) -> int:
    """Run the campaign and return the exit code."""
    interruptible()
    try:
        options = parse_options(argv)
        former = ledger.read(options.ledger) if options.ledger is not None else []
        rounds, owed = _run(options)
        content: dict[str, Any] = {
            "sums": ledger.sums(rounds),
            "all": ledger.sums([*former, *rounds]),
            "rounds": rounds,
        }
    except NO_VERDICT as error:
        tell(f"campaign: {error}")
        return 2
    except KeyboardInterrupt:
        tell("what this campaign started is stopped")
        return 130
    text = json.dumps(content, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n")
    _tell_sums(content["all" if options.ledger else "sums"])
    if any(each["verdict"] == "findings" for each in rounds):
        return 1
    return 2 if owed else 0


def _run(options: Options) -> tuple[list[dict[str, Any]], bool]:
    """The rounds, and whether one had no verdict and no other was taken for it."""
    rounds: list[dict[str, Any]] = []
    owed = False
    if options.seeds == 0:
        return rounds, owed
    now = commit()
    with _stand(options) as stand:
        folder = Path(tempfile.mkdtemp(prefix="rowcast-campaign-")).resolve()
        seeds = Seeds(options)
        relay = Relay(stand, folder)
        try:
            for outcome in relay.outcomes(lambda: _begin(options, seeds)):
                rounds.append(_line(outcome, folder, now))
                if options.ledger is not None:
                    ledger.append(options.ledger, rounds[-1])
                if options.until is not None and rounds[-1].get("checks", {}).get(options.until):
                    break
                verdict = rounds[-1]["verdict"]
                if verdict in ("void", "none"):
                    if seeds.repeat(outcome.seed):
                        tell(f"seed {outcome.seed}: its theme is taken again")
                    else:
                        owed = owed or verdict == "none"
        except KeyboardInterrupt:
            tell(f"interrupted: {relay}")
            raise
        finally:
            finish_undisturbed()
            relay.close()
            if not any(folder.iterdir()):
                folder.rmdir()  # kept: the files of rounds that were not clean
    return rounds, owed


def _begin(options: Options, seeds: Seeds) -> RoundPlan | None:
    seed = seeds.take()
    if seed is None:
        return None
    plan = plan_round(seed, faults=not options.no_faults)
    switch = "on" if plan.exactly_once else "off"
    tell(f"seed {seed} ({plan.theme}): {len(plan.types)} tables, exactly-once source {switch}")
    return plan


def _line(outcome: Outcome, folder: Path, now: str | None) -> dict[str, Any]:
    seed, result = outcome.seed, outcome.result
    if result is None:
        tell(f"seed {seed}: no verdict: {outcome.error}")
        return ledger.without_verdict(seed, now, f"{type(outcome.error).__name__}: {outcome.error}")
    line = ledger.entry(result, now)
    tell(
        f"seed {seed}: {result.verdict}{f' ({result.void})' if result.void else ''} in {result.seconds:.0f} s:"
        f" {line['events']} events of {line['transactions']} transactions, oldest {line['freshness_max_s']} s,"
        f" {line['sent_again']} changes sent again"
    )
    for finding in result.findings.found[:10]:
        tell(f"  {finding}"[:400])
    if result.findings.found:
        for words in result.last_words:
            tell(f"  {words}"[:400])
        tell(f"  {len(result.findings.found)} findings; logs and journal: {folder}")
    return line


@contextmanager
def _stand(options: Options) -> Iterator[Stand]:
    """A running stack; one that was started here is stopped, a temporary one deleted."""
    folder = options.stack or Path(tempfile.mkdtemp(prefix="rowcast-campaign-stack-")).resolve()
    stand = Stand(folder)
    try:
        stand.up()
        yield stand
    finally:
        finish_undisturbed()
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


if __name__ == "__main__":
    sys.exit(main())
