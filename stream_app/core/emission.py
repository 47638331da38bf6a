"""
One event of one aggregate: the difference between what was published last and what is true now.

`created`, `updated`, `deleted`, `snapshot` or nothing follows from these two states alone, so insert + delete
in one transaction makes no event and delete + insert of the same id makes one `updated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from rowcast.errors import PoisonError
from rowcast.event import DomainEvent, EventKind, Record
from rowcast.identity import Identity
from stream_app.core.mapping import AggregateMapping, SourceMapping
from stream_app.core.state import AggregateState, Key, Published, Refusal, View
from stream_app.core.tail import Tail

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - its text ends in Z by itself
# Key, value and headers together; topics and producer take twice that, so nothing fails on the way.
EVENT_BYTES_MAX = 1_000_000
_REASON_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event comes from: commit LSN, commit time, and what the writer attached to its transaction."""

    lsn: int
    time: str
    context: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str | None = None
    snapshot: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As sub-positions hold it."""
        return asdict(self)


@dataclass(slots=True)
class Emitted:
    """What a batch has to publish, in order, and what it counted."""

    records: list[Record] = field(default_factory=list)
    events: int = 0
    refused: int = 0
    repeated: int = 0


def rfc3339(time_us: int) -> str:
    """Microseconds since 1970 as RFC 3339 in UTC, always with six fractional digits."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds") + "Z"


def ancestors_of(view: View, mapping: AggregateMapping, key: Key) -> dict[str, list[str] | None]:
    """
    The ids of *key*'s ancestors, by type: [] where the row names no parent, None while one is unknown.

    The parents have to be loaded.
    """
    ancestors: dict[str, list[str] | None] = {}
    above: list[str] | None = [key.id_text]
    below = key.aggregate
    for ancestor_type in mapping.ancestor_types:
        if above:
            parent = view.state(Key(below, above[0])).parent_id_text
            known = parent is not None and view.state(Key(ancestor_type, parent)).present
            above = [] if parent is None else [parent] if known else None
        ancestors[ancestor_type] = above
        below = ancestor_type
    return ancestors


def emit(source: SourceMapping, view: View, key: Key, origin: Origin, out: tuple[Emitted, Tail]) -> None:
    """
    Bring what is published of *key* up to its current state: an event, a refusal, or nothing.

    A version that the tail of the topic already carries is used, never issued again with other bytes.
    """
    emitted, tail = out
    mapping = source.by_type[key.aggregate]
    while True:
        state = view.state(key)
        try:
            event = _next_event(source, view, key, origin)
            record = None if event is None else _encode(mapping, event)
        except (PoisonError, TypeError, ValueError, RecursionError) as error:
            # The last three are what the JSON libraries raise for documents that they cannot carry.
            view.put(key, state._replace(refusal=_refusal(view, key, origin, error)))
            emitted.refused += 1
            return
        if event is None or record is None:
            if state.refusal is not None:
                view.put(key, state._replace(refusal=None))
            return
        outcome = tail.match(record, key, event.version)
        if outcome is None:
            emitted.records.append(record)
        elif outcome.same:
            emitted.repeated += 1
        else:
            # Another revision of the mapping published these versions: they stand, and we number on above.
            view.put(key, state._replace(version=outcome.version, published=outcome.published))
            continue
        emitted.events += 1
        view.put(key, AggregateState(event.version, state.parent_id_text, state.present, _published(event)))
        return


def _next_event(source: SourceMapping, view: View, key: Key, origin: Origin) -> DomainEvent | None:
    mapping, state = source.by_type[key.aggregate], view.state(key)
    published = state.published
    if not state.present:
        if published is None:
            return None
        return _event(source, key, state, origin, (EventKind.DELETED, None, published.after, published.ancestors))
    columns = view.rows[key]
    assert columns is not None, "a present aggregate has its root row"
    current = Published(mapping.entity(columns), ancestors_of(view, mapping, key))
    if published is None:
        kind = EventKind.SNAPSHOT if origin.snapshot else EventKind.CREATED
        return _event(source, key, state, origin, (kind, current.after, None, current.ancestors))
    if published.to_json() == current.to_json():
        return None
    kind = EventKind.SNAPSHOT if origin.snapshot else EventKind.UPDATED
    return _event(source, key, state, origin, (kind, current.after, _former(published, current), current.ancestors))


def _former(published: Published, current: Published) -> dict[str, Any]:
    former = {
        name: value
        for name, value in published.after.items()
        if name not in current.after or not _equal(value, current.after[name])
    }
    if not _equal(published.ancestors, current.ancestors):
        former["ancestors"] = published.ancestors
    return former


def _equal(one: Any, other: Any) -> bool:
    # Python takes 1, 1.0 and True for equal; as JSON they differ.
    return one is other or orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        other, option=orjson.OPT_SORT_KEYS
    )


def _event(
    source: SourceMapping,
    key: Key,
    state: AggregateState,
    origin: Origin,
    body: tuple[EventKind, Mapping[str, Any] | None, Mapping[str, Any] | None, Mapping[str, Any]],
) -> DomainEvent:
    kind, after, before, ancestors = body
    definition = source.by_type[key.aggregate].definition
    return DomainEvent(
        identity=Identity.from_id_text(source.definition.source, key.aggregate, key.id_text),
        domain=source.definition.domain,
        kind=kind,
        major=definition.major,
        version=state.version + 1,
        position=origin.lsn,
        time=origin.time,
        source_uri=source.definition.uri,
        dataschema=definition.dataschema,
        after=after,
        before=before,
        ancestors=ancestors,
        context=origin.context,
        traceparent=origin.traceparent,
    )


def _encode(mapping: AggregateMapping, event: DomainEvent) -> Record:
    mapping.validate(event.value())
    record = event.encode()
    size = record_bytes(record)
    if size > EVENT_BYTES_MAX:
        raise PoisonError(f"the event has {size} bytes; at most {EVENT_BYTES_MAX} can be published")
    return record


def record_bytes(record: Record) -> int:
    """How large *record* is: key, value and headers."""
    size = len(record.key) + len(record.value)
    for name, text in record.headers:
        size += len(name) + len(text)
    return size


def _published(event: DomainEvent) -> Published | None:
    if event.after is None:
        return None
    return Published(event.after, {name: None if ids is None else list(ids) for name, ids in event.ancestors.items()})


def _refusal(view: View, key: Key, origin: Origin, error: Exception) -> Refusal:
    former = view.state(key).refusal
    since, lsn = (former.since, former.lsn) if former else (origin.time, origin.lsn)
    record = orjson.dumps(view.rows.get(key), option=orjson.OPT_SORT_KEYS).decode()
    # PostgreSQL's text holds no NUL, and messages may quote the whole value.
    return Refusal(str(error).replace("\0", "\\u0000")[:_REASON_MAX], record, since, lsn)
