"""
What the verdict is reached from: records of four parties that do not share a line of code with the pipeline.

The client's log of committed transactions, the source tables, the consumer's append-only table, and the domain
topics read anew from the beginning. Pure values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from examples.inventory.ledger import CommittedTransaction
from examples.inventory.published import Key, State


class AppendedRecord(NamedTuple):
    """A record of a domain topic as a reader got it; *timestamp_ms* is the broker's append time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class AppliedRow(NamedTuple):
    """A row of the consumer's append-only table: what its handler noted in its own transaction."""

    seq: int
    event_id: str
    aggregate: str
    id_text: str
    version: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    All records of one run.

    *initial* and *final* are the source's published states before and after the load, *transactions* what was
    committed in between, by ticket. *live_from* holds the next offset of each (topic, partition) before the load.
    *fresh*: nothing was published before this run, so each initial row has exactly one event. A missing version is
    excused when the record behind it was appended before *compacted_before_ms*. *schemas* are the published schemas
    of each aggregate's event value.
    """

    initial: Mapping[Key, State]
    transactions: Sequence[CommittedTransaction]
    final: Mapping[Key, State]
    appended: Sequence[AppendedRecord]
    applied: Sequence[AppliedRow]
    partitions: Mapping[str, int]
    live_from: Mapping[tuple[str, int], int]
    fresh: bool
    compacted_before_ms: int
    schemas: Mapping[str, Mapping[str, Any]]
