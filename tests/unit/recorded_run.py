"""A faultless run on paper: an inventory in memory, its log, and the records that a faultless pipeline leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import orjson

from examples.inventory import vocabulary
from examples.inventory.ledger import CommittedTransaction
from examples.inventory.published import GONE, Key, State
from examples.main_job.defects import DefectKind
from examples.main_job.evidence import AppendedRecord, AppliedRow, Evidence
from examples.main_job.expectation import final_states
from examples.main_job.murmur2 import partition_of
from examples.main_job.verdict import Verdict
from rowcast.event import DomainEvent, EventKind
from rowcast.identity import Identity

SCHEMAS = Path(__file__).parents[2] / "schemas" / "inventory"
PARTITIONS = 3


@dataclass
class Inventory:
    """A small inventory in memory that commits transactions and keeps the log of them."""

    rng: Random
    states: dict[Key, State] = field(default_factory=dict)
    log: list[CommittedTransaction] = field(default_factory=list)

    def identity(self) -> str:
        """A new id, seeded."""
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def commit(self, states: dict[Key, State], context: dict[str, str] | None = None) -> None:
        """Commit these states as one transaction."""
        self.states |= states
        number = len(self.log) + 1
        self.log.append(
            CommittedTransaction(
                ticket=number, kind="test", xid=str(700 + number), committed_at=1e9 + number, changes=len(states),
                context=context, states=states,
            )
        )  # fmt: skip

    def instance(self) -> tuple[Key, State]:
        """A new title."""
        identity = self.identity()
        fields = {
            "id": identity,
            "hrid": f"in{identity[:6]}",
            **vocabulary.instance_fields(self.rng),
            "updated_at": now(self),
        }
        return Key("instance", identity), State(fields, {})

    def holdings(self, instance: Key) -> tuple[Key, State]:
        """New holdings of *instance*."""
        identity = self.identity()
        fields = {"id": identity, "hrid": f"ho{identity[:6]}", "instance_id": instance.id_text}
        fields |= {**vocabulary.holdings_fields(self.rng), "updated_at": now(self)}
        return Key("holdings", identity), State(fields, {"instance": [instance.id_text]})

    def item(self, holdings: Key, instance: Key) -> tuple[Key, State]:
        """A new item."""
        identity = self.identity()
        fields = {"id": identity, "hrid": f"it{identity[:6]}", "holdings_id": holdings.id_text, "barcode": identity[:8]}
        fields |= {name: vocabulary.item_fields(self.rng)[name] for name in ("material_type", "status", "price")}
        ancestors = {"holdings": [holdings.id_text], "instance": [instance.id_text]}
        return Key("item", identity), State({**fields, "updated_at": now(self)}, ancestors)

    def changed(self, key: Key, **fields: Any) -> dict[Key, State]:
        """*key* with other *fields*."""
        state = self.states[key]
        assert state.after is not None
        return {key: State({**state.after, **fields, "updated_at": now(self)}, state.ancestors)}


def now(inventory: Inventory) -> str:
    return f"2026-11-21T08:15:{len(inventory.log) % 60:02d}.{inventory.rng.randrange(10**6):06d}Z"


@dataclass
class Pipeline:
    """What a faultless pipeline writes: events on topics, rows at the consumer."""

    said: dict[Key, tuple[int, State]] = field(default_factory=dict)
    appended: list[AppendedRecord] = field(default_factory=list)
    applied: list[AppliedRow] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def say(self, key: Key, state: State, *, snapshot: bool = False, position: int = 1, context: Any = None) -> None:
        """Publish and apply *state* unless it is the last one."""
        version, former = self.said.get(key, (0, GONE))
        if state == former:
            return
        kind = EventKind.UPDATED if former.after else EventKind.CREATED
        kind = EventKind.DELETED if state.after is None else EventKind.SNAPSHOT if snapshot else kind
        event = DomainEvent(
            identity=Identity("inventory", key.aggregate, (key.id_text,)), domain="inventory", kind=kind, major=1,
            version=version + 1, position=position, time="2026-11-21T08:15:22.067356Z", source_uri="urn:test",
            dataschema=schemas()[key.aggregate]["$id"], after=state.after, before=before(former, state),
            ancestors=state.ancestors if state.after else former.ancestors, context=context or {},
        )  # fmt: skip
        self.said[key] = (version + 1, state)
        self.append(event)
        self.applied.append(
            AppliedRow(len(self.applied) + 1, event.id, key.aggregate, key.id_text, event.version, event.kind)
        )

    def append(self, event: DomainEvent) -> None:
        """Put an event on its topic."""
        record = event.encode()
        partition = partition_of(record.key, PARTITIONS)
        offset = self.ends.get((record.topic, partition), 0)
        self.ends[record.topic, partition] = offset + 1
        self.appended.append(
            AppendedRecord(record.topic, partition, offset, 10_000, record.key, record.value, record.headers)
        )


def before(former: State, state: State) -> dict[str, Any] | None:
    if former.after is None:
        return None
    if state.after is None:
        return dict(former.after)
    fields: dict[str, Any] = {name: value for name, value in former.after.items() if state.after[name] != value}
    return fields | ({} if former.ancestors == state.ancestors else {"ancestors": former.ancestors})


def schemas() -> dict[str, Any]:
    return {
        name: orjson.loads((SCHEMAS / name / "v1.0.event.json").read_bytes())
        for name in ("instance", "holdings", "item")
    }


def a_run(seed: int = 1) -> Evidence:
    """A catalogue, a load with moves, deletes, rewrites and context, and what a faultless pipeline makes of it."""
    inventory, pipeline = Inventory(Random(seed)), Pipeline()
    rng = inventory.rng
    instances = [inventory.instance() for _ in range(8)]
    holdings = [inventory.holdings(rng.choice(instances)[0]) for _ in range(12)]
    parents = {key: Key("instance", state.ancestors["instance"][0]) for key, state in holdings}
    items = [inventory.item(place, parents[place]) for place in rng.choices(list(parents), k=30)]
    inventory.states = dict(instances + holdings + items)
    initial = dict(inventory.states)
    for key, state in initial.items():
        pipeline.say(key, state, snapshot=True)
    live_from = dict(pipeline.ends)
    _load(inventory, rng, [key for key, _ in items], list(parents))
    for transaction in inventory.log:
        for key, state in transaction.states.items():
            pipeline.say(key, state, position=transaction.ticket * 8, context=transaction.context)
    return Evidence(
        initial=initial, transactions=inventory.log, final=final_states(initial, inventory.log),
        appended=pipeline.appended, applied=pipeline.applied,
        partitions={f"inventory.{name}.v1": PARTITIONS for name in schemas()}, live_from=live_from, fresh=True,
        compacted_before_ms=0, schemas=schemas(),
    )  # fmt: skip


def _load(inventory: Inventory, rng: Random, items: list[Key], holdings: list[Key]) -> None:
    for number in range(120):
        present = [key for key in items if inventory.states[key].after]
        item, place = rng.choice(present), rng.choice(holdings)
        instance = Key("instance", inventory.states[place].ancestors["instance"][0])
        context = vocabulary.context(rng) if number % 3 == 0 else None
        match number % 6:
            case 0 | 1:
                inventory.commit(inventory.changed(item, status=rng.choice(vocabulary.STATUSES)), context)
            case 2:
                moved = inventory.changed(item, holdings_id=place.id_text)[item]
                ancestors = {"holdings": [place.id_text], "instance": [instance.id_text]}
                inventory.commit({item: replace(moved, ancestors=ancestors)}, context)
            case 3:
                inventory.commit(
                    {**inventory.changed(instance, title=vocabulary.title(rng)), **inventory.changed(item)}
                )
            case 4:
                key, state = inventory.item(place, instance)
                items.append(key)
                inventory.commit({key: state, item: inventory.states[item]})
            case _:
                inventory.commit({item: GONE} if number % 12 == 5 else {Key("item", inventory.identity()): GONE})


def counts(verdict: Verdict) -> dict[str, int]:
    return {kind.value: len(verdict.of(kind)) for kind in DefectKind}


def record_with(evidence: Evidence, wanted: Callable[[AppendedRecord], bool]) -> AppendedRecord:
    return next(record for record in evidence.appended if wanted(record))


def header(record: AppendedRecord, name: str) -> str:
    return dict(record.headers)[name].decode()


def live(evidence: Evidence, kind: str = "updated") -> list[AppendedRecord]:
    return [
        record
        for record in evidence.appended
        if record.offset >= evidence.live_from[record.topic, record.partition]
        and f".{kind}." in header(record, "ce_type")
    ]


def without_applied(evidence: Evidence, event_id: str) -> list[AppliedRow]:
    return [row for row in evidence.applied if row.event_id != event_id]


def swapped_with(evidence: Evidence, record: AppendedRecord, **fields: Any) -> list[AppendedRecord]:
    return [each._replace(**fields) if each is record else each for each in evidence.appended]
