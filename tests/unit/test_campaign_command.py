"""The campaign's command line and ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from campaign import ledger
from campaign.__main__ import main
from campaign.faults import THEMES
from campaign.finding import Checker, Findings
from campaign.options import parse_options
from campaign.round import RoundResult
from campaign.round_plan import plan_round
from campaign.seeds import Seeds


def result(seed: int, *findings: Checker, void: str | None = None) -> RoundResult:
    found = Findings()
    for each in findings:
        found.add(each, ("thing", "1"), "planted")
    figures = {"events": 3_000, "transactions": 5, "freshness_max_s": 1.0 * seed, "parts_s": {"load": 10.0 + seed}}
    return RoundResult(seed, found, void, 20.0 + seed, figures)


def test_a_ledger_goes_on_and_is_summed_up(tmp_path: Path) -> None:
    """Void rounds and those without a verdict do not count."""
    path = tmp_path / "ledger.jsonl"
    for each in (result(1), result(2, Checker.LOST, Checker.LOST), result(3, void="200 events")):
        ledger.append(path, ledger.entry(each, "abc"))
    ledger.append(path, ledger.without_verdict(4, "abc", "Kafka did not start"))
    sums = ledger.sums(ledger.read(path))
    assert (sums["rounds"], sums["clean"], sums["void"], sums["without_verdict"]) == (2, 1, 1, 1)
    assert (sums["events"], sums["freshness_max_s"], sums["failed_seeds"]) == (6_000, 2.0, [2])
    assert (sums["checks"]["lost"], sums["checks"]["phantom"]) == (2, 0)
    assert (sums["median_s"], sums["parts_s"]) == (21.5, {"load": 11.5})


def test_the_sums_of_a_ledger_alone(tmp_path: Path) -> None:
    """`--seeds 0` starts nothing; findings of former rounds are no findings of this run."""
    path, target = tmp_path / "ledger.jsonl", tmp_path / "all.json"
    ledger.append(path, ledger.entry(result(7, Checker.HOLE), "abc"))
    assert main(["--seeds", "0", "--ledger", str(path), "--json", str(target)]) == 0
    content = json.loads(target.read_text())
    assert content["rounds"] == []
    assert content["sums"]["rounds"] == 0
    assert content["all"]["failed_seeds"] == [7]


@pytest.mark.parametrize("line", ["{", "[]", '{"verdict": "clean"}', '{"seed": "x", "verdict": "clean"}'])
def test_a_broken_ledger_is_named(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With file and line, before a stack is started."""
    path = tmp_path / "ledger.jsonl"
    path.write_text(line + "\n")
    assert main(["--seeds", "1", "--ledger", str(path)]) == 2
    assert "line 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--seed", "1", "--seeds", "2"],
        ["--seed", "-1"],
        ["--minutes", "0"],
        ["--seeds", "1", "--keep"],
        ["--seed", "1", "--repeats", "1"],
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    """Nothing is started."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_void_round_is_repeated_with_another_seed_of_its_theme() -> None:
    """As often as is allowed, behind all others."""
    seeds = Seeds(parse_options(["--seeds", "12", "--repeats", "1"]))
    taken = [seeds.take() for _ in range(12)]
    assert [None if seed is None else seed % 10 for seed in taken] == [*range(10), 0, 1]
    assert seeds.take() is None
    void = taken[3]
    assert void is not None
    assert seeds.repeat(void)
    assert not seeds.repeat(void)
    again = seeds.take()
    assert again is not None
    assert again != void
    assert again % 10 == 3
    assert seeds.take() is None


def test_one_seed_is_one_round() -> None:
    """No other is taken for it."""
    seeds = Seeds(parse_options(["--seed", "7"]))
    assert [seeds.take(), seeds.take()] == [7, None]
    assert not seeds.repeat(7)


def test_a_seed_makes_the_whole_plan() -> None:
    """The same seed, the same round; the same round without faults differs in nothing else."""
    plan = plan_round(11)
    assert plan_round(11) == plan
    calm = plan_round(11, faults=False)
    assert calm.faults == ()
    assert (calm.types, calm.constrained, calm.standbys) == (plan.types, plan.constrained, plan.standbys)
    assert all(len(plan_round(seed).faults) >= 2 for seed in range(200))


def test_ten_seeds_have_ten_themes() -> None:
    """Each with what it needs: small limits, rows that are read again, handlers that fail, standbys."""
    plans = [plan_round(seed) for seed in range(80)]
    assert [plan.theme for plan in plans[:10]] == [theme.name for theme in THEMES]
    for plan, theme in zip(plans, THEMES * 8, strict=True):
        assert plan.limits or not theme.small
        assert plan.rereads or not theme.reread
        assert plan.failing or not theme.failing
        assert all(plan.standbys[each.target] for each in plan.faults if each.kind == "leave")
        from_start = [each.target for each in plan.faults if each.kind in ("failpoint", "slow", "leave")]
        assert len(from_start) == len(set(from_start))


def test_no_fault_hits_the_snapshot_of_a_rebuild() -> None:
    """Two of ten rounds lose the control database in every way; all is whole then of which a rebuild knows nothing."""
    plans = [plan_round(seed) for seed in range(400)]
    lost = [plan for plan in plans if plan.loss is not None]
    assert len(lost) == 80
    assert len({plan.loss.kind for plan in lost if plan.loss}) == 4
    assert {plan.limits for plan in lost} == {""}
    assert {plan.rereads for plan in lost} == {()}
    hit = {str(fault.target) for plan in lost for fault in plan.faults}
    assert not any("connect to" in each or each in ("connect", "kafka", "source", "restart", "stop") for each in hit)
    assert all(plan_round(plan.seed, faults=False).loss is None for plan in lost)


def test_random_schemas_have_all_that_a_mapping_can_say() -> None:
    """Embedded tables, link tables, chains of parents, contracts that refuse."""
    types = [each for seed in range(30) for each in plan_round(seed).types]
    assert any(each.embedded and each.place for each in types)
    assert any(each.through and each.above for each in types)
    assert any(len(each.above) > 1 for each in types)
    assert any(each.short for each in types)
