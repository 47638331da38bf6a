"""The consumer's append-only table against the topics: every event applied once, in order, and nothing else. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from examples.inventory.published import Key
from examples.main_job.defects import DefectKind, Docket
from examples.main_job.evidence import AppliedRow
from examples.main_job.topics_check import Versions


def check_consumer(applied: Sequence[AppliedRow], events: Mapping[Key, Versions], docket: Docket) -> None:
    """Note what was applied twice, in the wrong order, never, or without an event."""
    by_key: dict[Key, dict[int, AppliedRow]] = {}
    highest: dict[Key, int] = {}
    for row in sorted(applied, key=lambda each: each.seq):
        key = Key(row.aggregate, row.id_text)
        known = by_key.setdefault(key, {})
        if row.version in known:
            docket.add(DefectKind.DUPLICATE_EFFECTS, key, row.version, f"event {row.event_id} applied once")
            continue
        known[row.version] = row
        if row.version < highest.get(key, 0):
            docket.add(DefectKind.OUT_OF_ORDER, key, row.version, f"applied before version {highest[key]}")
        highest[key] = max(row.version, highest.get(key, 0))
    for key in {**dict.fromkeys(events), **dict.fromkeys(by_key)}:
        _compare(key, by_key.get(key, {}), events.get(key, {}), docket)


def _compare(key: Key, applied: Mapping[int, AppliedRow], versions: Versions, docket: Docket) -> None:
    for version, published in versions.items():
        row = applied.get(version)
        if row is None:
            docket.add(DefectKind.LOST, key, version, f"event {published.event.id} applied at the consumer")
        elif (row.event_id, row.kind) != (published.event.id, published.event.kind):
            expected = f"applied as {published.event.id} {published.event.kind}, not {row.event_id} {row.kind}"
            docket.add(DefectKind.INVALID, key, version, expected)
    newest = max(versions, default=0)
    for version in applied:
        # A version below the newest that is on no topic is a hole, and judged as such.
        if version > newest:
            docket.add(DefectKind.INVALID, key, version, "on a topic before it is applied")
