"""The judgement on a round. Pure; what each checker means is defined in `docs/reference/campaign.md`."""

from __future__ import annotations

from dataclasses import replace

from campaign.consumer_checks import check_effects, check_freshness, check_mirror, check_progress
from campaign.evidence import Evidence
from campaign.finding import Findings
from campaign.topic_checks import check_topics


def judge(evidence: Evidence) -> Findings:
    """Everything that is wrong in *evidence*."""
    findings = Findings()
    topics, expected = check_topics(evidence, findings)
    evidence = replace(evidence, expected=expected)
    check_effects(evidence, topics, findings)
    check_mirror(evidence, findings)
    check_progress(evidence, topics, findings)
    check_freshness(evidence, findings)
    return findings
