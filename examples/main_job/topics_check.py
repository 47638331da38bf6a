"""
The domain topics on their own: every record decodable, valid, in its partition, in order, and said once. Pure.

The published schema is checked with `jsonschema`, the reference implementation, formats included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from examples.inventory.published import Key
from examples.main_job.defects import DefectKind, Docket
from examples.main_job.evidence import AppendedRecord, Evidence
from examples.main_job.murmur2 import partition_of
from rowcast.errors import MalformedEventError
from rowcast.event import DomainEvent, decode


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """An event with the record that carried it; *live* when it was appended after the load had begun."""

    event: DomainEvent
    record: AppendedRecord
    live: bool


Versions = dict[int, PublishedEvent]
"""The events of one aggregate by version."""


def check_topics(evidence: Evidence, docket: Docket) -> dict[Key, Versions]:
    """Check every record by itself and against its neighbours; return the events of each aggregate by version."""
    validators = {
        name: Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        for name, schema in evidence.schemas.items()
    }
    events: dict[Key, Versions] = {}
    highest: dict[tuple[int, Key], int] = {}
    for record in sorted(evidence.appended, key=lambda each: each[:3]):
        published = _decoded(record, evidence, docket)
        if published is None:
            continue
        key = Key(published.event.identity.aggregate, published.event.identity.id_text)
        _check_record(key, published, evidence, docket)
        _check_schema(key, published, validators.get(key.aggregate), evidence, docket)
        _check_order(key, published, highest, docket)
        _enter(key, published, events.setdefault(key, {}), docket)
    _check_holes(events, evidence.compacted_before_ms, docket)
    return events


def _decoded(record: AppendedRecord, evidence: Evidence, docket: Docket) -> PublishedEvent | None:
    try:
        event = decode(record.topic, record.key, record.value, record.headers)
    except MalformedEventError as error:
        place = f"{record.topic} partition {record.partition} offset {record.offset}"
        docket.add(DefectKind.INVALID, None, None, f"{place}: a Rowcast event, but {error}")
        return None
    live = record.offset >= evidence.live_from.get((record.topic, record.partition), 0)
    return PublishedEvent(event, record, live)


def _check_record(key: Key, published: PublishedEvent, evidence: Evidence, docket: Docket) -> None:
    event, record = published.event, published.record
    partition = partition_of(record.key or b"", evidence.partitions[record.topic])
    if record.partition != partition:
        expected = f"partition {partition} by murmur2 of the key, not {record.partition}"
        docket.add(DefectKind.INVALID, key, event.version, expected)
    if (event.after is None) != (event.kind == "deleted"):
        docket.add(DefectKind.INVALID, key, event.version, f"`after` is null if and only if deleted, not {event.kind}")
    if event.version < 1:
        docket.add(DefectKind.INVALID, key, event.version, "versions count from 1")


def _check_schema(
    key: Key, published: PublishedEvent, validator: Draft202012Validator | None, evidence: Evidence, docket: Docket
) -> None:
    event = published.event
    if validator is None:
        known = ", ".join(evidence.schemas)
        docket.add(DefectKind.INVALID, key, event.version, f"an aggregate with a contract: {known}")
        return
    value: Any = orjson.loads(published.record.value or b"null")
    for error in validator.iter_errors(value):
        docket.add(
            DefectKind.INVALID, key, event.version, f"valid against its schema: {error.json_path} {error.message}"
        )
    name = evidence.schemas[key.aggregate].get("$id")
    if event.dataschema != name:
        docket.add(DefectKind.INVALID, key, event.version, f"ce_dataschema names {name}, not {event.dataschema}")


def _check_order(key: Key, published: PublishedEvent, highest: dict[tuple[int, Key], int], docket: Docket) -> None:
    place, version = (published.record.partition, key), published.event.version
    if version < highest.get(place, 0):
        docket.add(DefectKind.OUT_OF_ORDER, key, version, f"appended before version {highest[place]}")
    highest[place] = max(version, highest.get(place, 0))


def _enter(key: Key, published: PublishedEvent, versions: Versions, docket: Docket) -> None:
    known = versions.setdefault(published.event.version, published)
    if known is not published and _said(known.record) != _said(published.record):
        docket.add(DefectKind.DUPLICATE_EFFECTS, key, published.event.version, "one content for one version, not two")


def _said(record: AppendedRecord) -> tuple[bytes | None, Sequence[tuple[str, bytes]]]:
    return record.value, sorted(record.headers)


def _check_holes(events: Mapping[Key, Versions], compacted_before_ms: int, docket: Docket) -> None:
    for key, versions in events.items():
        present = sorted(version for version in versions if version >= 1)
        for former, version in zip([0, *present], present, strict=False):
            if versions[version].record.timestamp_ms >= compacted_before_ms:
                for missing in range(former + 1, version):
                    docket.add(DefectKind.LOST, key, missing, f"an event before version {version}")
