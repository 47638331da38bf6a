"""How the benchmark's figures follow from what was seen."""

from __future__ import annotations

import pytest

from benchmarks.course import Course
from benchmarks.errors import MeasureError
from benchmarks.figures import ratios, summary
from benchmarks.report import BEGIN, END, with_figures
from benchmarks.workload import SIZES, sized

PLACE = ("log", 0)


def course(*seen: tuple[float, int]) -> Course:
    """A course that began at 10 s and saw these (moment, next offset)."""
    made = Course(10.0)
    for at_s, offset in seen:
        made.note(at_s, {PLACE: offset})
    return made


def test_the_clock_starts_behind_the_first_batch_and_does_not_count_it() -> None:
    """What was done when progress was first seen is neither timed nor counted."""
    timing = course((10.1, 0), (12.0, 120), (13.0, 500), (14.0, 1001)).timing({PLACE: range(100, 1000)}, {PLACE: 1001})

    assert (timing.counted, timing.seconds) == (880, 2.0)


def test_a_course_with_one_large_step_is_timed_from_its_beginning() -> None:
    """Where the first batch holds more than half of the records, all of them count from the start."""
    timing = course((10.1, 0), (12.0, 800), (13.0, 1001)).timing({PLACE: range(100, 1000)}, {PLACE: 1001})

    assert (timing.counted, timing.seconds) == (900, 3.0)


def test_all_places_have_to_be_passed() -> None:
    """The clock stops with the last of the partitions."""
    other = ("log", 1)
    made = Course(0.0)
    made.note(1.0, {PLACE: 1, other: 0})
    made.note(2.0, {PLACE: 10, other: 0})
    made.note(3.0, {PLACE: 10, other: 10})

    timing = made.timing({PLACE: range(10), other: range(10)}, {PLACE: 10, other: 10})

    assert (timing.counted, timing.seconds) == (19, 2.0)


def test_what_was_not_reached_has_no_figure() -> None:
    """A course that ends too early is an error."""
    with pytest.raises(MeasureError, match="not reached"):
        course((11.0, 999)).timing({PLACE: range(1000)}, {PLACE: 1000})


def test_a_void_measurement_is_not_summed_up() -> None:
    """Medians are over the rounds that count."""
    rounds = [
        {"round": 1, "latency": {"50": {"void": True, "p50_ms": 900.0}}},
        {"round": 2, "latency": {"50": {"void": False, "p50_ms": 80.0}}},
        {"round": 3, "latency": {"50": {"void": False, "p50_ms": 90.0}}},
    ]

    assert summary(rounds) == {"latency": {"50": {"p50_ms": {"median": 85.0, "min": 80.0, "max": 90.0}}}}


def test_ratios_compare_within_a_round() -> None:
    """A fast round of one stage is never set against a slow round of the other."""
    rounds = [
        {"debezium": {"rows": {"rows_per_s": 100}}, "sequencer": {"rows": {"rows_per_s": 50}}},
        {"debezium": {"rows": {"rows_per_s": 400}}, "sequencer": {"rows": {"rows_per_s": 100}}},
        {"sequencer": {"rows": {"rows_per_s": 70}}},
    ]

    assert ratios(rounds) == {"sequencer_to_debezium": {"rows": {"median": 0.375, "min": 0.25, "max": 0.5}}}
    both = [{"sequencer": {"trees": {"rows_per_s": 100}, "nested": {"rows_per_s": 80}}}]
    assert ratios(both)["sequencer_to_trees"] == {"nested": {"median": 0.8, "min": 0.8, "max": 0.8}}
    apart = [{"sequencer": {"plain": {"rows_per_s": 50}, "large": {"rows_per_s": 45}, "snapshot": {"rows_per_s": 60}}}]
    found = {name: each["median"] for name, each in ratios(apart)["sequencer_to_plain"].items()}
    assert found == {"large": 0.9, "snapshot": 1.2}


@pytest.mark.parametrize(("name", "rows", "transactions"), [("bulk", 200_000, 1), ("rows", 20_000, 20_000)])
def test_workloads_have_the_documented_size(name: str, rows: int, transactions: int) -> None:
    """At scale 1."""
    workload = sized(name, 1.0)

    assert (workload.rows, workload.transactions) == (rows, transactions)


def test_trees_have_ten_rows_each() -> None:
    """5,000 transactions over three tables."""
    workload = sized("trees", 1.0)

    assert (workload.rows, workload.transactions) == (50_000, 5_000)
    assert set(SIZES) == {"bulk", "rows", "trees", "nested", "turnover", "plain", "large", "snapshot"}


def test_the_report_replaces_what_stands_between_the_markers() -> None:
    """Head and tail of the page stay, and a figure without spread is one number."""
    one = {"median": 1234, "min": 1234, "max": 1234}
    content = {
        "machine": {
            "cores": 2, "cpu": "CPU", "memory_mb": 2048, "kernel": "6", "python": "3.11",
            "versions": {"postgresql": "18", "kafka": "4.3", "debezium": "3.7"},
            "load_average_begin": [0.1, 0, 0], "load_average_end": [2.5, 0, 0],
        },
        "settings": {"commit": "abc", "quick": False},
        "ratios": {"sequencer_to_debezium": {"rows": {"median": 0.5, "min": 0.4, "max": 0.6}}},
        "stages": {"debezium": {"rows": {"rows_per_s": one}}},
        "rounds": [{}],
    }  # fmt: skip

    page = with_figures(f"head\n{BEGIN}\nold\n{END}\ntail\n", content)

    assert page.startswith(f"head\n{BEGIN}\n2 cores of CPU, 2 GiB,")
    assert page.endswith(f"{END}\ntail\n")
    assert "| Debezium alone | `rows` | 1,234 rows/s |" in page
    assert "| sequencer through Debezium | `rows` | 0.50 (0.40 to 0.60) |" in page
    assert "old" not in page
