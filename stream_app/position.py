"""The position of a source: where its owner has got to, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EndOffsets = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """
    *next_offset* stands behind the last finished unit of the change log, *commit_lsn* is its commit LSN.

    *end_offsets* are the ends of the domain partitions behind everything published so far, *sub_position*
    names the unit that is being emitted in chunks (None: none), *heartbeat* the last heartbeat's content.
    """

    change_log_topic_id: str
    next_offset: int
    commit_lsn: int
    end_offsets: EndOffsets
    sub_position: Mapping[str, Any] | None = None
    heartbeat: Mapping[str, Any] | None = None
