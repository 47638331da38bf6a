"""
One event of one aggregate: the difference between what was published last and what is true now.

`created`, `updated`, `deleted`, `snapshot` or nothing follows from these two states alone, so insert + delete
in one transaction makes no event and delete + insert of the same id makes one `updated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import compress, repeat
from operator import ne
from typing import Any

import orjson

from rowcast.bounded_json import refuse_depth
from rowcast.errors import ContractViolationError, MappingError, PoisonError
from rowcast.event import EventKind, Moment, Record
from rowcast.identity import tenant_of
from stream_app.core.embedded import embedded_values, raw_embedded
from stream_app.core.form import StatedForm
from stream_app.core.holding import held_row, raw_rows
from stream_app.core.link import parent_ids
from stream_app.core.mapping import AggregateMapping, SourceMapping
from stream_app.core.older import OlderMajor
from stream_app.core.state import AggregateState, Key, Published, Refusal, View, publish, read_published
from stream_app.core.statement import RefusedStatement, Statement, refuse_statement
from stream_app.core.tail import Match, Tail

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - its text ends in Z by itself
# Key, value and headers together; topics and producer take twice that, so nothing fails on the way.
EVENT_BYTES_MAX = 1_000_000
_REASON_MAX = 2_000
# Below this, URIs and type names do not reach the limit either; the id text stands in three places.
_CHECKED_BYTES = EVENT_BYTES_MAX // 4
_CREATED, _UPDATED = EventKind.CREATED, EventKind.UPDATED
# Named tuples by this are made in half the time that they take to make themselves.
_new = tuple.__new__
_MISSING = object()
_NO_CONTEXT: Mapping[str, Any] = {}


class Origin:
    """
    Where events come from: commit LSN, commit time, and what the writer attached to its transaction.

    With *resend* somebody asked for them: they go out although nothing has changed.
    """

    __slots__ = ("context", "context_end", "context_json", "lsn", "moment", "resend", "snapshot", "time", "traceparent")

    def __init__(
        self,
        lsn: int,
        time: str,
        context: Mapping[str, Any] = _NO_CONTEXT,
        traceparent: str | None = None,
        snapshot: bool = False,
        resend: bool = False,
    ) -> None:
        self.lsn = lsn
        self.context = context
        self.snapshot = snapshot
        self.resend = resend
        self.time = time
        self.traceparent = traceparent
        # Encoded once for all events of the transaction.
        self.moment = Moment(lsn, time, traceparent)
        self.context_json = orjson.dumps(context, option=orjson.OPT_SORT_KEYS) if context else b"{}"
        self.context_end = b',"context":' + self.context_json + b"}"

    def to_dict(self) -> dict[str, Any]:
        """As sub-positions hold it."""
        return {
            "lsn": self.lsn,
            "time": self.time,
            "context": self.context,
            "traceparent": self.traceparent,
            "snapshot": self.snapshot,
            **({"resend": True} if self.resend else {}),
        }


@dataclass(slots=True)
class Emitted:
    """
    What a batch has to publish, in order, and what it counted.

    *statements* wait for the chunks in which events of their transaction go out; *refused_statements* never become
    events. Of *unready* types nothing goes out: their first generation is not complete, or they are halted.
    Nor does of *muted* tenants.
    """

    records: list[Record] = field(default_factory=list)
    events: int = 0
    refused: int = 0
    repeated: int = 0
    unready: frozenset[str] = frozenset()
    muted: frozenset[str] = frozenset()
    statements: list[Statement] = field(default_factory=list)
    refused_statements: list[RefusedStatement] = field(default_factory=list)


def rfc3339(time_us: int) -> str:
    """Microseconds since 1970 as RFC 3339 in UTC, always with six fractional digits."""
    second, fraction = divmod(time_us, 1_000_000)
    return f"{_second(second)}.{str(fraction).zfill(6)}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def ancestors_of(view: View, mapping: AggregateMapping, key: Key) -> dict[str, list[str] | None]:
    """
    The ids of *key*'s ancestors, by type: [] where the row names no parent, None while one is unknown.

    The parents have to be loaded.
    """
    if not mapping.ancestor_types:
        return {}
    if mapping.linked:
        return _all_ancestors(view, mapping, key)
    aggregates, state = view.aggregates, view.aggregates[key]
    ancestors: dict[str, list[str] | None] = {}
    above: list[str] | None = [key.id_text]
    for ancestor_type in mapping.ancestor_types:
        if above:
            parent = state.parent_id_text
            if parent is None:
                above = []
            else:
                state = aggregates[_new(Key, (ancestor_type, parent))]
                above = [parent] if state.present else None
        ancestors[ancestor_type] = above
    return ancestors


def _all_ancestors(view: View, mapping: AggregateMapping, key: Key) -> dict[str, list[str] | None]:
    """The same where some types have a link table: in the order of the ids, and None while any of them is unknown."""
    ancestors: dict[str, list[str] | None] = {}
    above: list[str] | None = [key.id_text]
    below = key.aggregate
    for ancestor_type, linked in zip(mapping.ancestor_types, mapping.linked, strict=True):
        if above:
            texts = [view.state(Key(below, each)).parent_id_text for each in above]
            found = sorted({each for text in texts for each in parent_ids(text, linked)})
            above = found if all(view.state(Key(ancestor_type, each)).present for each in found) else None
        ancestors[ancestor_type] = above
        below = ancestor_type
    return ancestors


def emit(source: SourceMapping, view: View, key: Key, origin: Origin, out: tuple[Emitted, Tail]) -> None:
    """
    Bring what is published of *key* up to its current state: an event, a refusal, or nothing.

    A version that the tail of the topic already carries is used, never issued again with other bytes.
    """
    emitted = out[0]
    if emitted.muted and tenant_of(key.id_text) in emitted.muted:
        return
    mapping = source.by_type[key.aggregate]
    while True:
        state = view.aggregates[key]
        try:
            draft = _draft(view, mapping, key, origin)
        except (PoisonError, TypeError, ValueError, RecursionError) as error:
            # The last three are what the JSON libraries raise for documents that they cannot carry.
            view.put(key, state._replace(refusal=_refusal(view, mapping, key, (origin, error))))
            emitted.refused += 1
            return
        if draft is None:
            if state.refusal is not None:
                view.put(key, state._replace(refusal=None))
            return
        records, published = draft
        if _issue(mapping, view, key, records, out):
            after = (state.version + 1, state.parent_id_text, state.present, published, None, None)
            view.put(key, _new(AggregateState, after))
            return


def _issue(
    mapping: AggregateMapping, view: View, key: Key, records: Sequence[Record], out: tuple[Emitted, Tail]
) -> bool:
    """Publish *records* as the next version of *key*; False when other versions stand there, which are taken over."""
    emitted, tail = out
    state = view.aggregates[key]
    outcome = tail.match(records, key, state.version + 1) if tail.waiting else None
    if outcome is None:
        emitted.records += records
    elif outcome.same:
        emitted.repeated += 1
    else:
        # Another revision of the mapping published these versions: they stand, and we number on above.
        view.put(key, taken_over(mapping, state, outcome))
        return False
    emitted.events += 1
    return True


def emit_stated(
    source: SourceMapping, view: View, statement: Statement, origin: Origin, out: tuple[Emitted, Tail]
) -> None:
    """
    Make an event of *statement* in all live majors, with the aggregate as it was published last; or refuse it.

    A refusal takes no version, and changes nothing of the aggregate.
    """
    emitted, tail = out
    key, mapping = statement.key, source.by_type[statement.key.aggregate]
    while not tail.was_stated(key, origin.lsn, statement.event, statement.data):
        state = view.aggregates[key]
        try:
            _check_told(mapping, statement, state, unready=key.aggregate in emitted.unready)
            if _owes(mapping, state):
                # Readers of a newly live major do not know it yet, and what was published has perhaps no such form.
                emit(source, view, key, origin, out)
                continue
            records = _stated_draft(mapping, statement, state, origin)
        except (PoisonError, TypeError, ValueError, RecursionError) as error:
            emitted.refused_statements.append(refuse_statement(statement, str(error), (origin.lsn, origin.time)))
            emitted.refused += 1
            return
        if _issue(mapping, view, key, records, out):
            view.put(key, state._replace(version=state.version + 1))
            return
    emitted.repeated += 1


def _check_told(mapping: AggregateMapping, statement: Statement, state: AggregateState, *, unready: bool) -> None:
    name = f"{mapping.name} {statement.key.id_text}"
    if unready:
        raise PoisonError(f"no events of {mapping.name} go out: its first snapshot is not complete, or it is halted")
    if state.refusal is not None:
        raise PoisonError(f"{name} itself was refused, so its state cannot be told: {state.refusal.reason}")
    if state.published is None:
        raise PoisonError(f"there is no {name}")
    if statement.event not in mapping.stated:
        raise PoisonError(f"{mapping.name} declares the event {statement.event!r} no more")  # it has waited meanwhile


def _stated_draft(
    mapping: AggregateMapping, statement: Statement, state: AggregateState, origin: Origin
) -> list[Record]:
    """The records of *statement*, one for each live major; only the entity has another form in each."""
    assert state.published is not None, "of what is not there nothing is told"
    entity, ancestors = read_published(state.published)
    value = {
        "after": entity,
        "ancestors": ancestors,
        "before": {},
        "context": origin.context,
        "data": orjson.loads(statement.data),
    }
    encoded = b'%b,"before":{},"context":%b,"data":%b}' % (state.published[:-1], origin.context_json, statement.data)
    version, cause = (statement.key, state.version + 1), (EventKind.UPDATED, origin)
    records = [_record(mapping.stated[statement.event], version, cause, value, encoded)]
    for older in mapping.older:
        try:
            said = {**value, "after": older.downcast(entity)}
            records.append(_record(older.stated[statement.event], version, cause, said, _dumps(said)))
        except PoisonError as error:
            raise MappingError(f"in major {older.major}: {error}") from error
    return records


def taken_over(mapping: AggregateMapping, state: AggregateState, match: Match) -> AggregateState:
    """*state* with the version of the tail that stands."""
    majors = None if mapping.definition.is_covered(match.majors) else match.majors
    return state._replace(version=match.version, published=match.published, majors=majors)


def _owes(mapping: AggregateMapping, state: AggregateState) -> bool:
    """Whether some live major does not know the latest version, or what was published has an older major's form."""
    return state.majors is not None and not mapping.definition.is_covered(state.majors)


def _draft(
    view: View, mapping: AggregateMapping, key: Key, origin: Origin
) -> tuple[list[Record], Published | None] | None:
    """The records of the next version, one for each live major, and the state that it publishes; None: no change."""
    state = view.aggregates[key]
    former = state.published
    owes = state.majors is not None and _owes(mapping, state)
    form = state.majors[0] if state.majors is not None and owes else mapping.definition.major
    if not state.present:
        return None if former is None else (_deletion(mapping, key, state.version + 1, origin, (former, form)), None)
    columns = view.rows[key] if mapping.holding is None else held_row(view, mapping, key)
    assert columns is not None, "a present aggregate has its root row"
    entity = mapping.entity(columns)
    if mapping.embedded:
        entity.update(embedded_values(view, mapping.embedded, mapping.row_key(columns)))
    ancestors = ancestors_of(view, mapping, key)
    published = publish(entity, ancestors)
    if published == former and not (owes or origin.resend):
        return None
    if mapping.placeholders and key not in view.whole and mapping.lacks(published):
        mapping.check_available(columns)
    kind, before = _CREATED, None
    if former is not None:
        kind = _UPDATED
        if form == mapping.definition.major:
            before = _former(_told(mapping, former), entity, ancestors)
    if origin.snapshot or owes:
        kind = EventKind.SNAPSHOT
    value = {"after": entity, "ancestors": ancestors, "before": before, "context": origin.context}
    # What is published is what the value begins with: it is not encoded twice.
    behind = b"null" if before is None else _dumps(before)
    encoded = published[:-1] + b',"before":' + behind + origin.context_end
    version, cause = (key, state.version + 1), (kind, origin)
    records = [_record(mapping, version, cause, value, encoded)]
    if mapping.older:
        records += _older_records(mapping, version, cause, (former, form), published)
    return records, published


def _deletion(
    mapping: AggregateMapping, key: Key, number: int, origin: Origin, former: tuple[Published, int]
) -> list[Record]:
    """The records of the version that says that *key* is gone; *former*: its last state, and the major of that."""
    published, form = former
    known = form == mapping.definition.major
    entity, ancestors = _told(mapping, published) if known else (None, read_published(published)[1])
    value = {"after": None, "ancestors": ancestors, "before": entity, "context": origin.context}
    version, cause = (key, number), (EventKind.DELETED, origin)
    records = [_record(mapping, version, cause, value, _dumps(value))]
    if mapping.older:
        records += _older_records(mapping, version, cause, former, None)
    return records


def _older_records(
    mapping: AggregateMapping,
    version: tuple[Key, int],
    cause: tuple[EventKind, Origin],
    former: tuple[Published | None, int],
    published: Published | None,
) -> Iterator[Record]:
    """The same version in the older majors; *former* is what was published last, and the major that it is of."""
    for older in mapping.older:
        try:
            value = _older_value(mapping, older, cause[1], former, published)
            try:
                yield _record(older, version, cause, value, _dumps(value))
            except ContractViolationError:
                # What was published before may be of another contract or function: then it has no form here.
                if value["before"] is None:
                    raise
                value["before"] = None
                yield _record(older, version, cause, value, _dumps(value))
        except PoisonError as error:
            raise MappingError(f"in major {older.major}: {error}") from error


def _older_value(
    mapping: AggregateMapping,
    older: OlderMajor,
    origin: Origin,
    former: tuple[Published | None, int],
    published: Published | None,
) -> dict[str, Any]:
    known, above = _known_in(mapping, older, former)
    if published is None:
        return {"after": None, "ancestors": above, "before": known, "context": origin.context}
    newest, ancestors = read_published(published)
    entity = older.downcast(newest)
    before = None if known is None else _former((known, above), entity, ancestors)
    return {"after": entity, "ancestors": ancestors, "before": before, "context": origin.context}


def _known_in(
    mapping: AggregateMapping, older: OlderMajor, former: tuple[Published | None, int]
) -> tuple[dict[str, Any] | None, Mapping[str, Any]]:
    """What was published last as the *older* major has it, None where that cannot be told; and its ancestors."""
    published, form = former
    if published is None:
        return None, {}
    if form == mapping.definition.major:
        newest, above = _told(mapping, published)
        return older.downcast_former(newest), above
    entity, above = read_published(published)
    # It may be of a time when nothing was hidden, and which of its fields the newest major would hide, nobody can tell.
    hides = mapping.former is not None or older.hides
    return (entity if form == older.major and not hides else None), above


def _record(
    of: AggregateMapping | OlderMajor | StatedForm,
    version: tuple[Key, int],
    cause: tuple[EventKind, Origin],
    value: Mapping[str, Any],
    encoded: bytes,
) -> Record:
    of.validate(value)
    if of.deep:
        try:
            refuse_depth(encoded, value)  # consumers would
        except ValueError as error:
            raise PoisonError(f"the event is {error}") from None
    (key, number), (kind, origin) = version, cause
    record = of.form.record(kind, key.id_text, number, origin.moment, encoded)
    if len(encoded) + 3 * len(record.key) > _CHECKED_BYTES:
        _check_size(record)
    return record


def _check_size(record: Record) -> None:
    if (size := record_bytes(record)) > EVENT_BYTES_MAX:
        raise PoisonError(f"the event has {size} bytes; at most {EVENT_BYTES_MAX} can be published")


def record_bytes(record: Record) -> int:
    """How large *record* is: key, value and headers."""
    size = len(record.key) + len(record.value)
    for name, text in record.headers:
        size += len(name) + len(text)
    return size


def _told(mapping: AggregateMapping, published: Published) -> tuple[dict[str, Any], dict[str, list[str] | None]]:
    """What was published, but for what may not be told any more."""
    entity, ancestors = read_published(published)
    return (entity if mapping.former is None else mapping.former(entity)), ancestors


def _former(
    told: tuple[Mapping[str, Any], Mapping[str, Any]], entity: Mapping[str, Any], ancestors: Mapping[str, Any]
) -> dict[str, Any]:
    after, above = told
    now = [*map(entity.get, after, repeat(_MISSING))]
    changed = [*compress(after, map(ne, after.values(), now))]
    # Python takes 1, 1.0 and True for equal, and 0.0 and -0.0; as JSON they differ. All of it is mostly equal there
    # too, so it is encoded together.
    unsure = [name for name, value in after.items() if type(value) is not str and name not in changed]
    if unsure and _dumps([after[name] for name in unsure]) != _dumps([entity[name] for name in unsure]):
        changed += [name for name in unsure if not _equal(after[name], entity[name])]
    former = {name: after[name] for name in changed}
    if (above or ancestors) and not _equal(above, ancestors):
        former["ancestors"] = above
    return former


def _equal(one: Any, other: Any) -> bool:
    return one is other or _dumps(one) == _dumps(other)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _refusal(view: View, mapping: AggregateMapping, key: Key, why: tuple[Origin, Exception]) -> Refusal:
    origin, error = why
    former = view.state(key).refusal
    since, lsn = (former.since, former.lsn) if former else (origin.time, origin.lsn)
    record = orjson.dumps(_raw(view, mapping, key), option=orjson.OPT_SORT_KEYS).decode()
    # PostgreSQL's text holds no NUL, and messages may quote the whole value.
    return Refusal(str(error).replace("\0", "\\u0000")[:_REASON_MAX], record, since, lsn)


def _raw(view: View, mapping: AggregateMapping, key: Key) -> Any:
    """The root row as it is; with embedded rows, all rows by table."""
    root = raw_rows(view, mapping, key)
    if not mapping.embedded:
        return root
    rows = root if isinstance(root, list) else [root]
    holders = view.holders(key) if mapping.holding is not None else [key.id_text]
    below = [raw_embedded(view, mapping.embedded, each) for each in holders]
    return {mapping.table: rows, **{table: found for each in below for table, found in each.items()}}
