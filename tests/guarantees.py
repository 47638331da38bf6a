"""
Counts the tests behind each guarantee of the README, and prints one line for each at the end of a run.

A test counts by the marker ``guarantee("…")``, with the words of the README's first column.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

PROPERTY = "guarantee"
README = Path(__file__).resolve().parent.parent / "README.md"


def named_guarantees() -> list[str]:
    """The first column of the README's table of guarantees."""
    section = README.read_text().partition("## Guarantees")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if row not in ("Guarantee", "---")]


class GuaranteeCount:
    """Collects what passed."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """
        Note which test stands behind which guarantee; refuse one that the README does not name.

        The note travels with the test's report, from whichever process runs it.
        """
        known = named_guarantees()
        for item in items:
            for marker in item.iter_markers("guarantee"):
                (name,) = marker.args
                if name not in known:
                    raise pytest.UsageError(f"{item.nodeid}: the README names no guarantee {name!r}")
                item.user_properties.append((PROPERTY, name))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that passed."""
        if report.when == "call" and report.passed:
            self.passed.update(str(value) for name, value in report.user_properties if name == PROPERTY)

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Print the lines, after everything else, in the process that the others report to."""
        if self.passed and not hasattr(config, "workerinput"):
            print("\nGuarantees and the tests that passed for them:")
            for name in named_guarantees():
                print(f"  {name}: {self.passed[name]}")
