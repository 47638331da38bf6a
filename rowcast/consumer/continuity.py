"""
What a mark says about an event: apply it, skip it, or stop. Pure.

Versions of an aggregate run 1, 2, 3 … without holes. A hole in what is read is compaction, if the broker may
have compacted there, or it is loss.
"""

from __future__ import annotations

from enum import Enum, auto

from rowcast.event import EventKind


class Verdict(Enum):
    """What to do with an event."""

    APPLY = auto()
    SKIP = auto()  # applied before: a duplicate
    GAP = auto()  # versions between the mark and the event are missing


def judge(mark: int, version: int, kind: EventKind, appended_ms: int | None, horizon_ms: float) -> Verdict:
    """
    What to do with *version* of an aggregate whose mark is *mark* (0: nothing applied yet).

    *appended_ms* is the broker's append time of the event, or None when the topic does not keep it.
    *horizon_ms* is the time before which the broker may have compacted: the cleaner removes a record only for
    a later one of the same key, and only while both are older than ``min.compaction.lag.ms``. So the event
    behind a compacted gap is older than the horizon; a gap before a younger one is loss. A ``snapshot`` event
    carries the whole state under a version of its own and closes any gap.
    """
    if version <= mark:
        return Verdict.SKIP
    if version == mark + 1 or kind is EventKind.SNAPSHOT:
        return Verdict.APPLY
    if appended_ms is not None and appended_ms < horizon_ms:
        return Verdict.APPLY
    return Verdict.GAP
