"""Halted types: which they are when a table is not as it was applied, and that rows of them make no event."""

from __future__ import annotations

from dataclasses import replace

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch

from rowcast.event import decode
from rowcast.halt import Halt, first_of
from rowcast.sources.definition import ColumnDefinition, ReferenceDefinition, SourceDefinition, TableDefinition
from rowcast.sources.field import FieldDefinition
from stream_app.core.change import Columns, Operation, RowChange
from stream_app.core.defect import Defect, TableDefectError
from stream_app.core.emission import Emitted, Origin
from stream_app.core.halting import UNSURE, HaltedTypes, types_made_of
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.sequencing import emit_pending, settle
from stream_app.core.state import ABSENT, Key, Refusal, View
from stream_app.core.tail import Tail
from stream_app.refusal import RefusalWatch

SINCE = "2026-03-02T09:15:00.000000Z"


INSTANCE = {"id": "i1", "title": "t", "tags": "[]", "secret": "s"}
ITEM = {"id": "x1", "holdings_id": "h1", "status": "in", "price": None}


def looking_up() -> SourceDefinition:
    """Instance, holdings and item, one below the other; items look up a kind."""
    plain = build_definition()
    columns = (ColumnDefinition(name="code", type="text", nullable=False),)
    kind = TableDefinition(name="public.kind", columns=columns, key=("code",), replica_identity="d")
    looked_up = {"status": FieldDefinition(place="status", reference="kind")}
    aggregates = [
        replace(each, fields={**each.fields, **looked_up}) if each.name == "item" else each for each in plain.aggregates
    ]
    reference = ReferenceDefinition(name="kind", table="public.kind", key="code", value="code")
    return replace(plain, aggregates=tuple(aggregates), tables=(*plain.tables, kind), references=(reference,))


def compiled(definition: SourceDefinition) -> SourceMapping:
    return compile_mapping(definition, {each.name: accept for each in definition.aggregates})


def of(table: str, code: str = "COLUMN_CHANGED") -> list[Defect]:
    return [Defect(code, f"{table}: column 'x' is gone", "put it back", f"public.{table}")]


def row(table: str, after: Columns | None, before: Columns | None = None) -> RowChange:
    operation = Operation.DELETE if after is None else Operation.UPDATE
    return RowChange(operation, f"public.{table}", before, after, 1, 1, 7, 0)


def test_what_is_halted_are_the_types_of_the_table_and_those_below() -> None:
    """Also those that look something up in it; nothing is asked of tables whose types are all known."""
    mapping = compiled(looking_up())
    assert types_made_of(mapping, "public.kind") == {"item"}
    halted = HaltedTypes(mapping, [])
    new = halted.halt(of("holdings"), SINCE)

    assert [(each.aggregate, each.cause, each.tables) for each in new] == [
        ("holdings", "holdings", ("public.holdings",)),
        ("item", "holdings", ()),
    ]
    assert (halted.types, halted.tables) == ({"holdings", "item"}, {"public.holdings"})
    assert halted.halt(of("holdings"), SINCE) == []
    assert [each[:2] for each in halted.halt(of("kind", "TABLE_MISSING"), SINCE)] == [("item", "item")]
    assert halted.tables == {"public.holdings", "public.item", "public.kind"}
    assert halted.stops_all(of("instance"))
    added, lifted = halted.take_changed()
    assert (len(added), lifted, halted.take_changed()) == (3, [], ([], []))
    again = HaltedTypes(mapping, added)
    assert again.types == halted.types
    assert (again.lift(["holdings"]), again.types) == (["holdings"], {"item"})
    assert (again.lift(["item"]), again.types, again.tables) == (["item"], set(), set())
    assert again.take_changed() == ([], ["holdings", "item"])


def test_a_type_that_is_not_declared_any_more_halts_nothing() -> None:
    """Another definition was applied; what it halted below goes on as well."""
    halts = [Halt("item", "shelf", "TABLE_MISSING", "gone", "", (), SINCE)]
    halted = HaltedTypes(compiled(build_definition()), halts)

    assert (halted.types, halted.take_changed()) == (set(), ([], ["shelf"]))


def test_a_heartbeat_tells_better_than_rows_why() -> None:
    """So its table is asked for until then; and since when it is halted stays."""
    halted = HaltedTypes(compiled(build_definition()), [])
    halted.halt(of("item", UNSURE), SINCE)
    assert halted.tables == set()
    (told,) = halted.halt(of("item"), "2026-03-02T10:00:00.000000Z")

    assert (told.code, told.since, halted.tables) == ("COLUMN_CHANGED", SINCE, {"public.item"})
    assert halted.halt(of("item", UNSURE), SINCE) == []
    assert first_of([told, told._replace(since="2026-01-01")]) == {"item": "2026-01-01"}
    assert told.remedy("shop") == "put it back; then rowcast sources recover shop --code COLUMN_CHANGED --yes"


@pytest.mark.guarantee("Nothing committed is lost")
def test_rows_of_halted_types_go_to_row_state_and_make_no_event() -> None:
    """The others have theirs; when it is over, one event says what became of the aggregate."""
    mapping, log, store = compiled(build_definition()), ChangeLog(), MemoryStore()
    log.transaction([("c", "instance", None, INSTANCE), ("c", "item", None, ITEM)])
    halted = Emitted(unready=frozenset({"item"}))
    records, view = run_batch(mapping, store, log.records(), emitted=halted)
    store.save(view)

    assert [decode(*each).identity.aggregate for each in records] == ["instance"]
    key = next(key for key in store.aggregates if key.aggregate == "item")
    assert store.aggregates[key].present
    assert store.aggregates[key].version == 0
    assert chunk(mapping, store, key, Emitted(unready=frozenset({"item"}))) == []
    (event,) = chunk(mapping, store, key, Emitted())
    assert event[0].startswith("inventory.item")


def chunk(mapping: SourceMapping, store: MemoryStore, key: Key, emitted: Emitted) -> list[tuple[str, ...]]:
    """The topics of what goes out for *key*."""
    view = View()
    for lookup in emit_pending(mapping, view, [key], Origin(9, SINCE, snapshot=True), (emitted, Tail())):
        store.load(lookup, view)
    return [(each.topic,) for each in emitted.records]


@pytest.mark.guarantee("Order per aggregate")
def test_a_version_that_was_published_before_the_halt_is_kept() -> None:
    """The step was not committed: its events stand in the topic, and the next version counts on above them."""
    mapping, log, store = compiled(build_definition()), ChangeLog(), MemoryStore()
    log.transaction([("c", "item", None, ITEM)])
    lost, _view = run_batch(mapping, store, log.records())
    assert len(lost) == 1
    tail, view, halted = Tail(lost), View(), Emitted(unready=frozenset({"item"}))
    for lookup in settle(mapping, view, Origin(9, SINCE), (halted, tail)):
        MemoryStore().load(lookup, view)

    assert ([state.version for state in view.aggregates.values() if state.version], halted.records) == ([1], [])


def test_a_row_that_nobody_can_tell_is_left_to_the_resync() -> None:
    """Only of a table that is known not to be as it was."""
    halted = HaltedTypes(compiled(build_definition()), [])
    nameless, named = row("item", None, {"status": "x"}), row("item", None, {"id": "1"})
    assert halted.placeable([nameless, named]) == (nameless, named)
    halted.halt(of("item"), SINCE)

    assert halted.placeable([nameless, named]) == (named,)


def test_a_row_without_a_mapped_column_shows_why_events_are_refused() -> None:
    """Once; then its types are halted."""
    halted = HaltedTypes(compiled(build_definition()), [])
    cut = row("item", {"id": "1"})
    with pytest.raises(TableDefectError, match=r"public\.item: rows come without column") as caught:
        halted.refuse_cut([row("item", None, {"id": "1"}), cut])
    halted.halt(caught.value.defects, SINCE)

    halted.refuse_cut([cut])


def test_a_reference_row_without_its_key_is_told_by_its_table() -> None:
    """Before anything is folded that it may stand in."""
    halted = HaltedTypes(compiled(looking_up()), [])
    nameless = row("kind", {"label": "x"})
    with pytest.raises(TableDefectError, match="ROW_WITHOUT_ID") as caught:
        halted.refuse_nameless([row("item", {}), nameless])
    assert [each.aggregate for each in halted.halt(caught.value.defects, SINCE)] == ["item"]

    assert halted.stops_all(of("item")) is False
    assert not halted.takes(nameless)


def test_a_wave_of_refusals_is_laid_to_the_fewest_types() -> None:
    """Those without which the share would not be too large; a few bad rows of others halt nothing."""
    tables = {"item": "public.item", "instance": "public.instance"}
    watch = RefusalWatch("shop", 0.2)
    watch.check(60, 0)
    watch.refuse_wave(tables, (0, 10), refused_view({"item": 9, "instance": 1}))
    with pytest.raises(TableDefectError, match=r"20 of 80 events were refused.* 18 of item") as caught:
        watch.refuse_wave(tables, (0, 20), refused_view({"item": 18, "instance": 2}))

    assert [(each.code, each.table) for each in caught.value.defects] == [(UNSURE, "public.item")]
    watch.begin()
    watch.refuse_wave(tables, (10, 9), refused_view({"item": 9}))


def refused_view(counts: dict[str, int]) -> View:
    """A view in which so many aggregates of each type are refused."""
    view = View()
    for aggregate, count in counts.items():
        for number in range(count):
            view.put(Key(aggregate, str(number)), ABSENT._replace(refusal=Refusal("bad", "{}", SINCE, 1)))
    return view
