"""
A domain event and its wire form: CloudEvents 1.0, Kafka protocol binding, binary content mode.

Pure. The bytes are a function of the event alone: the same event gives the same record for ever.
Sources: CloudEvents spec 1.0.2, its Kafka protocol binding, and docs/reference/events.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from rowcast.bounded_json import read_bounded
from rowcast.deprecation import Deprecation
from rowcast.errors import MalformedEventError
from rowcast.identity import Identity, event_id_prefix
from rowcast.topics import domain_topic

CONTENT_TYPE = "application/json"
_DIGITS = 20  # wide enough for any unsigned 64-bit number, so that text order is number order
_CONTENT_TYPE = ("content-type", CONTENT_TYPE.encode())
_SPECVERSION = ("ce_specversion", b"1.0")
_REQUIRED = (
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_dataschema",
    "ce_sequence",
    "ce_rowcastsource",
    "ce_rowcastposition",
)


# The name of an event that a service states; those of `EventKind` are taken.
EVENT_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


class EventKind(StrEnum):
    """What happened to the aggregate. To one that is `UPDATED` by a stated event alone, nothing that is published."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    SNAPSHOT = "snapshot"


_KINDS = frozenset(EventKind)
Ancestors = Mapping[str, Sequence[str] | None]
Header = tuple[str, bytes]


class Record(NamedTuple):
    """A Kafka record, as any client sends or receives it."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[Header, ...]


def event_type(domain: str, aggregate: str, name: str, major: int) -> str:
    """``ce_type`` of such events; *name* is a kind, or that of a stated event."""
    return f"{domain}.{aggregate}.{name}.v{major}"


class Moment:
    """The transaction that events come from, as their headers tell it; the same for all events of it."""

    __slots__ = ("position", "time", "trace")

    def __init__(self, position: int, time: str, traceparent: str | None = None) -> None:
        self.position: Header = ("ce_rowcastposition", str(position).zfill(_DIGITS).encode())
        self.time: Header = ("ce_time", time.encode())
        self.trace: tuple[Header, ...] = () if traceparent is None else (("ce_traceparent", traceparent.encode()),)


def _numbering(version: int) -> tuple[bytes, Header]:
    """What `ce_id` ends with, and `ce_sequence`."""
    return b":%d" % version, ("ce_sequence", b"%0*d" % (_DIGITS, version))


# Most versions are small.
_NUMBERINGS = tuple(map(_numbering, range(64)))


class EventMajor(NamedTuple):
    """The major version of an aggregate type that events are of, and when it ends."""

    domain: str
    aggregate: str
    major: int
    dataschema: str
    deprecation: Deprecation | None = None


class EventForm:
    """
    What all events of one aggregate type of one source have in common, encoded once.

    The only place that knows which headers a record has and in what order.
    """

    def __init__(self, *, source: str, source_uri: str, of: EventMajor) -> None:
        domain, aggregate, major, dataschema, deprecation = of
        self._of = domain, aggregate, major
        self.topic = domain_topic(domain, aggregate, major)
        self._id = event_id_prefix(aggregate).encode()
        self._source: Header = ("ce_source", source_uri.encode())
        self._types: dict[EventKind, Header] = {
            kind: ("ce_type", event_type(domain, aggregate, kind, major).encode()) for kind in EventKind
        }
        self._dataschema: Header = ("ce_dataschema", dataschema.encode())
        self._rowcast_source: Header = ("ce_rowcastsource", source.encode())
        self._deprecation: tuple[Header, ...] = deprecation.headers() if deprecation else ()

    def stated(self, name: str, dataschema: str) -> EventForm:
        """The form of the type's events that services state under *name*."""
        domain, aggregate, major = self._of
        form = copy(self)
        form._types = {EventKind.UPDATED: ("ce_type", event_type(domain, aggregate, name, major).encode())}
        form._dataschema = ("ce_dataschema", dataschema.encode())
        return form

    def record(self, kind: EventKind, id_text: str, version: int, moment: Moment, value: bytes) -> Record:
        """The record of *version* of the aggregate *id_text*, whose encoded value is *value*."""
        key = id_text.encode()
        number, sequence = _NUMBERINGS[version] if version < len(_NUMBERINGS) else _numbering(version)
        headers: tuple[Header, ...] = (
            _CONTENT_TYPE,
            _SPECVERSION,
            ("ce_id", self._id + key + number),
            self._source,
            self._types[kind],
            ("ce_subject", key),
            moment.time,
            self._dataschema,
            sequence,
            self._rowcast_source,
            moment.position,
        )
        if moment.trace or self._deprecation:
            headers += moment.trace + self._deprecation
        # Half the time of the constructor: one is made of every event.
        return tuple.__new__(Record, (self.topic, key, value, headers))


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """
    One version of one aggregate.

    *position* is the commit LSN of the transaction; *time* its commit time (RFC 3339, UTC).
    *after* is the whole entity, or None when deleted; *before* the former values of the fields that
    changed relative to the version before (the whole last state on delete, None when there was none).
    *ancestors* maps each ancestor type to its id texts, or to None while unknown. *deprecation* says until when the
    major is published, where it ends.

    An event that a service stated has its name in *stated* and what it says in *data*. Its kind is `UPDATED`, its
    *after* the state at that place, and nothing has changed: *before* is empty.
    """

    identity: Identity
    domain: str
    kind: EventKind
    major: int
    version: int
    position: int
    time: str
    source_uri: str
    dataschema: str
    after: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    ancestors: Ancestors
    context: Mapping[str, Any]
    traceparent: str | None = None
    deprecation: Deprecation | None = None
    stated: str | None = None
    data: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """What happened: the name of a stated event, else the kind."""
        return self.stated or str(self.kind)

    @property
    def id(self) -> str:
        """``ce_id``."""
        return self.identity.event_id(self.version)

    @property
    def type(self) -> str:
        """``ce_type``: ``<domain>.<aggregate>.<name>.v<major>``."""
        return event_type(self.domain, self.identity.aggregate, self.name, self.major)

    @property
    def topic(self) -> str:
        """The domain topic that this event belongs on."""
        return domain_topic(self.domain, self.identity.aggregate, self.major)

    def value(self) -> dict[str, Any]:
        """The record's value before encoding: what the published value schema describes."""
        return {
            "after": self.after,
            "ancestors": self.ancestors,
            "before": self.before,
            "context": self.context,
            **({} if self.stated is None else {"data": self.data}),
        }

    def encode(self) -> Record:
        """The record of this event, byte for byte the same whenever it is encoded."""
        identity = self.identity
        major = EventMajor(self.domain, identity.aggregate, self.major, self.dataschema, self.deprecation)
        form = EventForm(source=identity.source, source_uri=self.source_uri, of=major)
        form = form if self.stated is None else form.stated(self.stated, self.dataschema)
        moment = Moment(self.position, self.time, self.traceparent)
        value = orjson.dumps(self.value(), option=orjson.OPT_SORT_KEYS)
        return form.record(self.kind, identity.id_text, self.version, moment, value)


def decode(topic: str, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> DomainEvent:
    """
    The event that a record of a domain topic carries.

    Unknown headers and unknown fields are ignored, so that newer minor versions can be read.

    Raises:
        MalformedEventError: the record is not a Rowcast event; the message names the field.
    """
    attributes = _attributes(headers)
    source = attributes["ce_rowcastsource"]
    domain, aggregate, name, major, home = _split_type(attributes["ce_type"])
    if key is None or key.decode("utf-8", "replace") != attributes["ce_subject"]:
        raise MalformedEventError(f"{topic}: record key {key!r} is not ce_subject {attributes['ce_subject']!r}")
    if home != topic:
        what = f"{attributes['ce_id']}: ce_type {attributes['ce_type']!r}"
        raise MalformedEventError(f"{topic}: {what} belongs on another topic, {home}")
    try:
        identity = Identity.from_id_text(source, aggregate, attributes["ce_subject"])
        version = int(attributes["ce_sequence"])
        position = int(attributes["ce_rowcastposition"])
        data = read_bounded(value or b"")
    except ValueError as error:
        raise MalformedEventError(f"{topic}: {attributes['ce_id']}: {error}") from error
    if not _is_value(data):
        raise MalformedEventError(f"{topic}: {attributes['ce_id']}: the value is not an event")
    stated = None if name in _KINDS else name
    if stated is not None and "data" not in data:
        raise MalformedEventError(f"{topic}: {attributes['ce_id']}: the value of the event {name!r} has no data")
    return DomainEvent(
        identity=identity,
        domain=domain,
        kind=EventKind(name) if stated is None else EventKind.UPDATED,
        major=major,
        version=version,
        position=position,
        time=attributes["ce_time"],
        source_uri=attributes["ce_source"],
        dataschema=attributes["ce_dataschema"],
        after=data["after"],
        before=data["before"],
        ancestors=data["ancestors"],
        context=data["context"],
        traceparent=attributes.get("ce_traceparent"),
        deprecation=Deprecation.of_headers(attributes) if "ce_deprecated" in attributes else None,
        stated=stated,
        data=None if stated is None else data["data"],
    )


def _is_value(data: Any) -> bool:
    """Whether *data* has the four parts of an event's value, each of its kind."""
    if not isinstance(data, dict) or not {"after", "before", "ancestors", "context"} <= data.keys():
        return False
    changed = all(data[name] is None or isinstance(data[name], dict) for name in ("after", "before"))
    return changed and isinstance(data["ancestors"], dict) and isinstance(data["context"], dict)


def _attributes(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    try:
        attributes = {name: (raw or b"").decode() for name, raw in headers}
    except UnicodeDecodeError as error:
        raise MalformedEventError(f"a header is not UTF-8: {error}") from error
    if not all(map(attributes.get, _REQUIRED)):
        missing = next(name for name in _REQUIRED if not attributes.get(name))
        raise MalformedEventError(f"header {missing} is missing")
    if attributes["ce_specversion"] != "1.0":
        raise MalformedEventError(f"ce_specversion {attributes['ce_specversion']!r} is not 1.0")
    return attributes


@lru_cache(maxsize=1024)
def _split_type(text: str) -> tuple[str, str, str, int, str]:
    """Domain, aggregate, name, major and topic; a consumer sees the same few types again and again."""
    try:
        domain, aggregate, name, major = text.split(".")
        if not major.startswith("v") or not EVENT_NAME.fullmatch(name):
            raise ValueError(text)
        number = int(major[1:])
        return domain, aggregate, name, number, domain_topic(domain, aggregate, number)
    except ValueError as error:
        raise MalformedEventError(f"ce_type {text!r} is not <domain>.<aggregate>.<name>.v<major>") from error
