"""What a round is judged by: records of parties that do not read the pipeline's own account of itself. Pure values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from campaign.oracle import Commit, ExpectedEvent, Key
from examples.main_job.evidence import AppendedRecord

Place = tuple[str, int]  # topic and partition
_NOTHING: Mapping[str, Any] = {}


class Effect(NamedTuple):
    """A row of the consumer's append-only table; *committed_at* is when its transaction was (Unix time)."""

    seq: int
    key: Key
    version: int
    event_id: str
    committed_at: float


class Held(NamedTuple):
    """What the consumer's table holds of an aggregate: the state after *version*."""

    version: int
    after: Any
    ancestors: Any


@dataclass(frozen=True, slots=True)
class Sample:
    """The consumer's tables at one instant: each aggregate's state."""

    at: float
    held: Mapping[Key, Held]


class Claim(NamedTuple):
    """
    A record of the progress topic: all changes up to *lsn* are in the topics below *ends*.

    Except of so many aggregates that are *refused*, and of types that are *halted*, each since then (Unix time).
    """

    epoch: int
    lsn: int
    heartbeat_at: float
    ends: Mapping[Place, int]
    appended_at: float
    refused: int = 0
    halted: Mapping[str, float] = _NOTHING


class HaltReason(NamedTuple):
    """Somebody made a table unfit at *since*, and was told that all is well again at *until* (Unix time)."""

    since: float
    until: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    All records of one round.

    *expected* follows from the generator's log in the order of the second slot, after both agreed with each other and
    with the source's tables; *commits* are the transactions behind it. *records* are the domain topics, read anew;
    *effects*, *final* and *samples* come from the consumer's database; *claims* are the progress topic.

    *refused*: from each LSN on so many aggregates of each type could not be published. *halts*: why a type, or one
    above it, had to be halted. *sent_again*: of each aggregate type, how often somebody asked for what was published of
    it. *partitions* is their number in each domain topic (None: any). *restored_at*: then the control database went
    back to an older copy, and epochs with it.
    """

    expected: Mapping[Key, Sequence[ExpectedEvent]]
    commits: Sequence[Commit]
    records: Sequence[AppendedRecord]
    effects: Sequence[Effect]
    final: Mapping[Key, Held]
    samples: Sequence[Sample]
    claims: Sequence[Claim]
    refused: Sequence[tuple[int, Mapping[str, int]]] = ((0, _NOTHING),)
    halts: Mapping[str, Sequence[HaltReason]] = field(default_factory=dict)
    sent_again: Mapping[str, int] = field(default_factory=dict)
    partitions: int | None = None
    restored_at: float | None = None
