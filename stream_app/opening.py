"""
Where a claim begins: the committed position, checked against the change log, and the tail of the domain topics.

Nothing is guessed here: a log or a topic that is not what the position says stops the source.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import psycopg

from rowcast.brokers import Brokers
from rowcast.errors import MalformedEventError, StopError
from rowcast.failpoint import failpoint
from rowcast.sources.definition import SourceDefinition
from stream_app.core.emission import Origin
from stream_app.core.mapping import SourceMapping
from stream_app.core.state import View
from stream_app.core.tail import Tail
from stream_app.live_majors import Opening, Waiting
from stream_app.position import EndOffsets, Position, read_position
from stream_app.step import Step
from stream_app.store import Ownership, Store
from stream_app.transport import read_ends, read_extent, read_tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """
    What a session is opened with: its *ownership* and the compiled *mapping*, which was applied as *revision*.

    *connection* writes to the control database, *reading* reads from it meanwhile; the session closes both.
    """

    ownership: Ownership
    mapping: SourceMapping
    revision: str
    connection: psycopg.Connection
    reading: psycopg.Connection
    brokers: Brokers


def open_position(claim: Claim, store: Store) -> Position:
    """
    The committed position of the claimed source; the very first one is written.

    Raises:
        StopError: the change log is not the one that was read, does not reach back to the position, or the
            control database does not know what was published.

    """
    definition = claim.mapping.definition
    position = read_position(claim.connection, definition.source)
    extent = read_extent(claim.brokers, definition.change_log)
    if position is None:
        return _first_position(claim, store, extent.topic_id, extent.start)
    if position.change_log_topic_id != extent.topic_id:
        raise StopError("CHANGE_LOG_RECREATED", f"topic {definition.change_log} is not the one that was read before")
    if not extent.start <= position.next_offset <= extent.end:
        raise StopError(
            "CHANGE_LOG_TRUNCATED",
            f"offset {position.next_offset} is not in {definition.change_log} ({extent.start} to {extent.end})",
        )
    return position


def _first_position(claim: Claim, store: Store, topic_id: str, start: int) -> Position:
    definition = claim.mapping.definition
    ends = read_ends(claim.brokers, _partitions(definition))
    written = sorted(topic for topic, offsets in ends.items() if any(offsets.values()))
    if written or start:
        raise StopError(
            "CONTROL_DATABASE_BEHIND",
            f"nothing is known of source {definition.source}, but {', '.join(written) or definition.change_log}"
            " was written before",
            remedy=f"connect the right control database, or rowcast sources rebuild {definition.source} --yes",
        )
    position = Position(change_log_topic_id=topic_id, next_offset=0, commit_lsn=0, end_offsets=ends)
    store.commit(View(), Step(), None, position)
    return position


def _partitions(definition: SourceDefinition) -> dict[str, int]:
    return dict.fromkeys(definition.topics, definition.partitions)


def open_majors(
    definition: SourceDefinition,
    known: tuple[Mapping[str, tuple[int, ...]], Waiting | None],
    reading: Container[str],
    origin: Origin,
) -> Opening | None:
    """
    What has to open when the definition has other live majors than the state *known*; None when it has the same.

    A major's topic opens with an event of every aggregate. Those of types that are being read follow when they are.
    What has been waiting since before goes on to.
    """
    majors, waiting = known
    live = {each.name: each.majors for each in definition.aggregates}
    if live.items() <= majors.items():
        return None
    former = {
        each.name: majors[each.name]
        for each in definition.aggregates
        if each.name in majors and not each.is_covered(majors[each.name])
    }
    before = waiting.types if waiting else ()
    types = [name for name in live if name not in reading and (name in former or name in before)]
    return Opening(
        live={**majors, **live},
        former=former,
        waiting=Waiting(types=types, origin=origin.to_dict()) if types else None,
    )


def known_ends(claim: Claim, position: Position, *, opens: bool) -> EndOffsets:
    """
    How far each domain partition is known to be written.

    When majors open, a topic without end offset is either new, or was live once: what it holds is no news.
    """
    partitions = _partitions(claim.mapping.definition)
    absent = {topic: count for topic, count in partitions.items() if topic not in position.end_offsets}
    starts = {topic: {str(number): 0 for number in range(count)} for topic, count in absent.items()}
    if opens and absent:
        starts = read_ends(claim.brokers, absent)
    return {topic: position.end_offsets.get(topic) or starts[topic] for topic in partitions}


def open_tail(claim: Claim, known: EndOffsets) -> tuple[Tail, EndOffsets]:
    """The events behind the *known* ends, and the end offsets behind them."""
    failpoint("sequencer.in_claim")
    try:
        tail = Tail(read_tail(claim.brokers, claim.ownership.source, known))
    except MalformedEventError as error:
        raise StopError("FOREIGN_WRITER", f"a domain topic holds what the owner did not write: {error}") from error
    # Nobody else can append any more: this claim has fenced every older producer.
    return tail, read_ends(claim.brokers, _partitions(claim.mapping.definition)) if tail else known
