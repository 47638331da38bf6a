"""
The verdict: from independent records alone, never from marks, counters, control tables or progress. Pure.

What each figure means is defined in `docs/reference/main-job.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from examples.inventory.ledger import CommittedTransaction
from examples.main_job.consumer_check import check_consumer
from examples.main_job.defects import Defect, DefectKind, Docket
from examples.main_job.evidence import Evidence
from examples.main_job.expectation import final_states, token
from examples.main_job.topics_check import check_topics
from examples.main_job.truth_check import check_truth


class NoComparisonError(Exception):
    """The records do not allow a verdict: the client's own log and the source tables disagree."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """*defects* of all kinds; *behind* names the committed transaction of each live event by event id."""

    defects: tuple[Defect, ...]
    behind: Mapping[str, CommittedTransaction]

    @property
    def clean(self) -> bool:
        """Whether there is no defect at all."""
        return not self.defects

    def of(self, kind: DefectKind) -> tuple[Defect, ...]:
        """The defects of one *kind*."""
        return tuple(defect for defect in self.defects if defect.kind is kind)


def judge(evidence: Evidence) -> Verdict:
    """
    The verdict on one run.

    Raises:
        NoComparisonError: the log does not lead from the initial to the final rows, so that neither is the truth.

    """
    _check_log(evidence)
    docket = Docket()
    events = check_topics(evidence, docket)
    behind = check_truth(evidence, events, docket)
    check_consumer(evidence.applied, events, docket)
    return Verdict(tuple(docket), behind)


def _check_log(evidence: Evidence) -> None:
    expected = final_states(evidence.initial, evidence.transactions)
    for key in {**dict.fromkeys(expected), **dict.fromkeys(evidence.final)}:
        logged, found = expected.get(key), evidence.final.get(key)
        if logged is None or found is None or token(logged) != token(found):
            raise NoComparisonError(
                f"{key.aggregate} {key.id_text} differs between the load's log and the source table;"
                " something else wrote to the inventory during the run"
            )
