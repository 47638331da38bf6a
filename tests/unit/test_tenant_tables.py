"""Tables of tenants: which stand for one declared table, whose rows they hold, and what is found when they change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition

from rowcast.event import DomainEvent, decode
from rowcast.identity import Identity
from rowcast.sources.connector import _pattern
from rowcast.sources.definition import ColumnDefinition, SourceDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.field import FieldDefinition
from rowcast.sources.source_file import load_source
from rowcast.sources.tenant import TableNames, TenantPattern, meeting
from stream_app.core.change import HEARTBEAT_PREFIX, Message, Operation
from stream_app.core.defect import TableDefectError
from stream_app.core.emission import Emitted
from stream_app.core.halting import HaltedTypes
from stream_app.core.heartbeat import Heartbeat, dropped_by, forget_tenants, newest_heartbeat
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.partition import Capture
from stream_app.core.sequencing import emit_pending, emptied_below, origin_of, sequence, split_truncates
from stream_app.core.state import Emptied, Key, View
from stream_app.core.tail import Tail
from stream_app.core.transaction import Assembler, Transaction

AT = "2026-03-02T09:15:00Z"
PATTERN = "{tenant}_mod_inventory_storage"


def of_tenants() -> SourceDefinition:
    """Instance, holdings and item, one below the other, in a schema for each tenant."""
    plain = build_definition()
    return replace(
        plain,
        aggregates=tuple(replace(each, table=f"{PATTERN}.{each.name}") for each in plain.aggregates),
        tables=tuple(replace(each, name=each.name.replace("public", PATTERN)) for each in plain.tables),
    )


DEFINITION = of_tenants()


def compiled() -> SourceMapping:
    return compile_mapping(DEFINITION, {each.name: accept for each in DEFINITION.aggregates})


@pytest.mark.parametrize(
    ("declared", "table", "tenant"),
    [
        ("{tenant}_inv.item", "diku_inv.item", "diku"),
        ("{tenant}_inv.item", "my-lib_2_inv.item", "my-lib_2"),
        ("{tenant}_inv.item", "a_inv_inv.item", "a_inv"),
        ("{tenant}_inv.item", "_inv.item", None),
        ("{tenant}_inv.item", "Diku_INV.item", None),
        ("{tenant}_inv.item", "diku_inv.items", None),
        ("{tenant}_inv.item", "diku_inv_old.item", None),
        ("{tenant}_inv.item", "dikü_inv.item", None),
        ("a${tenant}.item", "a$b.item", "b"),
        ("a${tenant}.item", "axb.item", None),
        ("{tenant}.item", "public.item", "public"),
    ],
)
def test_a_pattern_stands_for_the_tables_of_its_schemas_alone(declared: str, table: str, tenant: str | None) -> None:
    """The whole schema has to fit, as it is written, and the tenant is what stands between."""
    assert TenantPattern.read(declared).tenant_of(table) == tenant
    assert TableNames(["public.other", declared]).find(table) == (None if tenant is None else (declared, tenant))
    if tenant is not None:
        assert TenantPattern.read(declared).table_of(tenant) == table


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        (("{tenant}_a.item", "{tenant}_b.item"), []),
        (("{tenant}_a.item", "{tenant}_a.note"), []),
        (("{tenant}_a.item", "x_{tenant}.item"), [("{tenant}_a.item", "x_{tenant}.item")]),
        (("{tenant}_a.item", "{tenant}.item"), [("{tenant}_a.item", "{tenant}.item")]),
        (("shared_a.item", "{tenant}_a.item"), [("{tenant}_a.item", "shared_a.item")]),
        (("public.item", "{tenant}_a.item"), []),
    ],
)
def test_patterns_that_may_be_one_table_are_found(tables: tuple[str, ...], found: list[tuple[str, str]]) -> None:
    """Whether or not there is such a table yet."""
    assert list(meeting(tables)) == found


def test_the_connector_is_told_of_tables_by_case_and_whole() -> None:
    """Debezium compares without case, and has to have what is no letter of an expression escaped."""
    assert _pattern("a${tenant}_x.item.id") == r"(?-i)a\$[A-Za-z0-9_-]+_x\.item\.id"
    assert _pattern("public.item") == r"public\.item"


HEAD = "source: shop\ndatabase: shop\naggregates:\n"
COPY = '  copy: {table: "{tenant}_a.copy", id: id, parent: {aggregate: title, column: t}}\n'
TITLE = '  title: {table: "{tenant}_a.title", id: id}\n'
REFERENCES = 'references:\n  place: {table: "{tenant}_a.place", key: id, value: name}\n'


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('  title: {table: "public.{tenant}", id: id}\n', "aggregates.title.table", "not accepted"),
        ('  title: {table: "{tenant}_{tenant}.title", id: id}\n', "aggregates.title.table", "not accepted"),
        ('  title: {table: "{other}_a.title", id: id}\n', "aggregates.title.table", "not accepted"),
        (
            TITLE + "  copy: {table: public.copy, id: id, parent: {aggregate: title, column: t}}\n",
            "aggregates.copy.parent.aggregate",
            "{tenant}_a.title has a tenant, public.copy has none",
        ),
        (
            "  title: {table: public.title, id: id}\n" + COPY,
            "aggregates.copy.parent.aggregate",
            "public.title has no tenant, {tenant}_a.copy has one",
        ),
        (
            TITLE.replace("}\n", ", embedded: {notes: {table: public.note, column: t}}}\n"),
            "aggregates.title.embedded.notes.table",
            "public.note has no tenant",
        ),
        (
            TITLE + '  copy: {table: "{tenant}_a.copy", id: id,'
            " parent: {aggregate: title, column: t, through: {table: public.bound, column: c}}}\n",
            "aggregates.copy.parent.through.table",
            "public.bound has no tenant",
        ),
        (
            "  title: {table: public.title, id: id, fields: {place: {column: p, reference: place}}}\n" + REFERENCES,
            "aggregates.title.fields.place.reference",
            "{tenant}_a.place has a tenant, public.title has none",
        ),
        (
            TITLE + '  copy: {table: "b_{tenant}.title", id: id}\n',
            "aggregates.title.table",
            "{tenant}_a.title and b_{tenant}.title may be the same table",
        ),
    ],
)
def test_what_cannot_be_told_apart_by_tenant_is_refused(tmp_path: Path, text: str, field: str, words: str) -> None:
    """At the field that says it, before a database is asked."""
    path = tmp_path / "shop.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(DocumentError) as caught:
        load_source(path)
    assert [fault.field for fault in caught.value.faults] == [field]
    assert words in caught.value.faults[0].message


def test_tables_of_all_may_be_looked_up_in_by_each_tenant(tmp_path: Path) -> None:
    """And a tenant's own by its rows."""
    path = tmp_path / "shop.yaml"
    fields = "fields: {place: {column: p, reference: place}, kind: {column: k, reference: kind}}"
    path.write_text(
        HEAD
        + TITLE.replace("}\n", f", {fields}}}\n")
        + REFERENCES
        + "  kind: {table: public.kind, key: id, value: n}\n"
    )
    assert load_source(path).references[1].table == "public.kind"


class Library:
    """The core over the change log of a source with tenants."""

    def __init__(self) -> None:
        self.mapping, self.log, self.store = compiled(), ChangeLog(), MemoryStore()

    def commit(self, tenant: str, *changes: tuple[str, str, Any, Any]) -> list[DomainEvent]:
        """The events of one transaction on the tables of *tenant*."""
        start = len(self.log.values)
        self.log.transaction(changes)
        schema = PATTERN.replace("{tenant}", tenant)
        values = [value.replace(b'"public"', f'"{schema}"'.encode()) for value in self.log.values[start:]]
        (placed,) = Assembler(0, [], tenant_tables=self.mapping.tenant_tables).feed(enumerate(values))
        assert isinstance(placed.unit, Transaction)
        emptied, unit = split_truncates(self.mapping, placed.unit)
        every_type = frozenset(self.mapping.by_type)
        view, emitted = View(emptied=frozenset(emptied)), Emitted()
        for row in [key for key in self.store.rows if view.is_emptied(*key)]:
            del self.store.rows[row]
            self.store.aggregates[row] = self.store.aggregates[row]._replace(present=False, parent_id_text=None)
        reading = every_type if emptied else frozenset[str]()
        self._run(sequence(self.mapping, view, [unit], reading, (emitted, Tail())), view)
        if emptied:
            _, below = emptied_below(self.mapping, emptied)
            keys = [key for key in self.store.aggregates if Emptied(key[0], key[1].split("/")[0]) in below]
            view = View()
            self._run(emit_pending(self.mapping, view, sorted(keys), origin_of(unit), (emitted, Tail())), view)
        return [decode(*record) for record in emitted.records]

    def _run(self, lookups: Any, view: View) -> None:
        for lookup in lookups:
            self.store.load(lookup, view)
        self.store.save(view)


INSTANCE = {"id": "1", "title": "A", "tags": None, "secret": "s"}
HOLDINGS = {"id": "1", "instance_id": "1", "place": "hall"}


@pytest.mark.guarantee("Order per aggregate")
def test_equal_ids_of_two_tenants_are_two_aggregates() -> None:
    """Each with its own versions and parents; the identity says whose it is, and reads back."""
    library = Library()
    for tenant in ("diku", "other-1"):
        events = library.commit(tenant, ("c", "instance", None, INSTANCE), ("c", "holdings", None, HOLDINGS))
        assert [(each.identity, each.version) for each in events] == [
            (Identity("inventory", "instance", ("1",), tenant), 1),
            (Identity("inventory", "holdings", ("1",), tenant), 1),
        ]
        assert events[1].ancestors == {"instance": [f"{tenant}/1"]}
        assert Identity.from_id_text("inventory", "instance", f"{tenant}/1") == events[0].identity
        assert "{tenant}" not in events[0].after
    (moved,) = library.commit("diku", ("u", "holdings", None, {**HOLDINGS, "place": "attic"}))
    assert (moved.identity.id_text, moved.version, moved.before) == ("diku/1", 2, {"place": "hall"})
    (gone,) = library.commit("other-1", ("d", "holdings", {"id": "1", "instance_id": None, "place": None}, None))
    assert (gone.identity.id_text, gone.kind, gone.before["place"]) == ("other-1/1", "deleted", "hall")


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_truncate_empties_one_tenant() -> None:
    """Rows of the same transaction before it have no effect, those after it and those of others stand."""
    library = Library()
    for tenant in ("diku", "other"):
        library.commit(tenant, ("c", "instance", None, INSTANCE), ("c", "holdings", None, HOLDINGS))
    second = {**INSTANCE, "id": "2"}
    events = library.commit(
        "diku",
        ("c", "instance", None, {**INSTANCE, "id": "3"}),
        ("t", "instance", None, None),
        ("c", "instance", None, second),
    )
    assert [(each.identity.id_text, each.kind) for each in events if each.identity.aggregate == "instance"] == [
        ("diku/1", "deleted"),
        ("diku/2", "created"),
    ]
    assert {key.id_text for key, state in library.store.aggregates.items() if state.present} == {
        *("diku/2", "diku/1"),  # the holdings, whose parent is gone
        *("other/1",),
    }


def beat(tables: dict[str, str], lacks: dict[str, Any] | None = None, of: str = "a1") -> Transaction:
    told = {"of": of, "publication": "7", "operations": True, "is": tables, "lacks": lacks or {}}
    content = orjson.dumps({"source": "inventory", "at": AT, "captured": told})
    return Transaction(1, 9, 1, 1, (), (Message(HEARTBEAT_PREFIX, content, 1, 1, 1),))


def table_of(tenant: str) -> str:
    return f"{tenant}_mod_inventory_storage.item"


CAPTURE = Capture(tables={each.name: each for each in DEFINITION.tables})
DIKU = {table_of("diku"): "x1"}
FIRST = newest_heartbeat("inventory", None, [beat(DIKU)], CAPTURE._replace(begun={"captured": {"is": DIKU}}))


def defects_of(former: Heartbeat | None, unit: Transaction, capture: Capture = CAPTURE) -> list[tuple[str, str | None]]:
    try:
        newest_heartbeat("inventory", former, [unit], capture)
    except TableDefectError as fault:
        return [(each.code, each.tenant) for each in fault.defects]
    return []


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_is_wrong_with_a_tenants_table_is_told_of_this_tenant_until_it_is_halted() -> None:
    """Not published, published late, made anew, without a column, partitioned; published while empty it is right."""
    new = table_of("new")
    assert defects_of(FIRST, beat({**DIKU, new: "y1+"})) == []
    assert defects_of(FIRST, beat({**DIKU, new: "y1"})) == [("PUBLICATION_INCOMPLETE", "new")]
    unpublished = beat({**DIKU, new: "y1"}, {new: {"unpublished": [], "identity": "d"}})
    assert defects_of(FIRST, unpublished) == []  # it may get its key yet
    young = newest_heartbeat("inventory", FIRST, [unpublished], CAPTURE)
    assert defects_of(young, unpublished) == [("PUBLICATION_INCOMPLETE", "new"), ("REPLICA_IDENTITY_WEAK", "new")]
    assert defects_of(young, beat({**DIKU, new: "y2+"})) == []
    assert defects_of(young, beat({**DIKU, new: "y2"})) == [("PUBLICATION_INCOMPLETE", "new")]
    assert defects_of(FIRST, beat({table_of("diku"): "x2"})) == [("COLUMN_CHANGED", "diku")]
    found = beat(DIKU, {table_of("diku"): {"columns": {"status": ""}}})
    assert defects_of(FIRST, found) == [("COLUMN_CHANGED", "diku")]
    assert defects_of(FIRST, beat(DIKU, {table_of("diku"): {"table": "partitioned"}})) == [("TABLE_MISSING", "diku")]
    assert defects_of(FIRST, found, CAPTURE._replace(halted_tenants=frozenset({"diku"}))) == []


def test_a_halted_tenant_has_no_events_and_the_others_go_on() -> None:
    """No type is halted, also where the table is that of all types; what is lifted is asked again."""
    mapping = compiled()
    halted = HaltedTypes(mapping, [])
    with pytest.raises(TableDefectError) as caught:
        newest_heartbeat("inventory", FIRST, [beat({table_of("diku"): "x2"})], CAPTURE)
    assert not halted.stops_all(caught.value.defects)
    (halt,) = halted.halt(caught.value.defects, AT)
    assert (halt.tenant, halted.tenants, halted.types, halted.causes) == ("diku", {"diku"}, set(), set())
    assert halt.told().startswith("tenant diku is halted since")
    assert HaltedTypes(mapping, [halt]).tenants == {"diku"}

    library = Library()
    library.log.transaction([("c", "instance", None, INSTANCE)])
    for tenant, count in (("diku", 0), ("other", 1)):
        schema = f'"{PATTERN.replace("{tenant}", tenant)}"'.encode()
        values = [value.replace(b'"public"', schema) for value in library.log.values]
        (placed,) = Assembler(0, [], tenant_tables=mapping.tenant_tables).feed(enumerate(values))
        assert isinstance(placed.unit, Transaction)
        view, emitted = View(), Emitted(muted=halted.tenants)
        for lookup in sequence(mapping, view, [placed.unit], frozenset(), (emitted, Tail())):
            library.store.load(lookup, view)
        assert (len(emitted.records), view.aggregates[Key("instance", f"{tenant}/1")].present) == (count, True)

    assert FIRST is not None
    read = forget_tenants(FIRST, TableNames(CAPTURE.tables), ["diku"], {"captured": {"is": {table_of("diku"): "x2"}}})
    assert defects_of(read, beat({table_of("diku"): "x2"})) == []
    halted.lift_tenants(["diku"])
    assert (halted.tenants, halted.take_changed()) == (frozenset(), ([], ["diku/"]))


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_dropped_table_is_empty_when_two_heartbeats_lack_it() -> None:
    """One may have been said while the table came; and rows of one that nobody has told of yet are known, too."""
    library = Library()
    library.log.transaction([("c", "item", None, {"id": "1", "holdings_id": "1", "status": "-", "price": "1.00"})])
    schema = f'"{PATTERN.replace("{tenant}", "short")}"'.encode()
    values = [value.replace(b'"public"', schema) for value in library.log.values]
    (placed,) = Assembler(0, [], tenant_tables=library.mapping.tenant_tables).feed(enumerate(values))
    assert isinstance(placed.unit, Transaction)
    seen = newest_heartbeat("inventory", FIRST, [placed.unit], CAPTURE)
    assert dropped_by("inventory", seen, beat(DIKU), CAPTURE) == []
    once = newest_heartbeat("inventory", seen, [beat(DIKU)], CAPTURE)
    (row,) = dropped_by("inventory", once, beat(DIKU), CAPTURE)
    assert (row.operation, row.table, row.tenant) == (Operation.TRUNCATE, f"{PATTERN}.item", "short")
    again = newest_heartbeat("inventory", once, [placed.unit], CAPTURE)
    assert dropped_by("inventory", again, beat(DIKU), CAPTURE) == []
    assert dropped_by("inventory", once, beat(DIKU, of="a2"), CAPTURE) == []
    twice = newest_heartbeat("inventory", once, [beat(DIKU)], CAPTURE)
    assert dropped_by("inventory", twice, beat(DIKU), CAPTURE) == []
    assert defects_of(once, beat({**DIKU, table_of("short"): "z1+"})) == []


def of_documents() -> SourceMapping:
    """The same with all in a document, as FOLIO has it: id, and the parent's id."""
    columns = tuple(
        ColumnDefinition(name=name, type=kind, nullable=False) for name, kind in (("pk", "uuid"), ("jsonb", "jsonb"))
    )
    aggregates = tuple(
        replace(
            each,
            id=("/jsonb/id",),
            parent=None if each.parent is None else replace(each.parent, columns=(f"/jsonb/{each.parent.columns[0]}",)),
            fields={"id": FieldDefinition(place="/jsonb/id"), "hrid": FieldDefinition(place="/jsonb/hrid")},
        )
        for each in DEFINITION.aggregates
    )
    tables = tuple(replace(each, columns=columns, key=("pk",)) for each in DEFINITION.tables)
    definition = replace(DEFINITION, aggregates=aggregates, tables=tables)
    return compile_mapping(definition, {each.name: accept for each in aggregates})


def document(pk: str, **record: str) -> dict[str, str]:
    return {"pk": pk, "jsonb": orjson.dumps(record).decode()}


def test_equal_ids_in_documents_of_two_tenants_are_two_aggregates() -> None:
    """A row that takes an id of another row of its tenant is refused; that of another tenant goes on."""
    library = Library()
    library.mapping = of_documents()
    for tenant in ("diku", "other"):
        events = library.commit(
            tenant,
            ("c", "instance", None, document("p1", id="i1", hrid=tenant)),
            ("c", "holdings", None, document("p1", id="h1", instance_id="i1", hrid="ho1")),
        )
        assert [(each.identity.id_text, each.version) for each in events] == [(f"{tenant}/i1", 1), (f"{tenant}/h1", 1)]
        assert events[1].ancestors == {"instance": [f"{tenant}/i1"]}
    assert library.commit("diku", ("c", "instance", None, document("p2", id="i1", hrid="twice"))) == []
    assert library.commit("diku", ("c", "instance", None, document("p3", hrid="none"))) == []
    refused = {key.id_text for key, state in library.store.aggregates.items() if state.refusal}
    assert refused == {"diku/i1", "diku/row:p3"}
    (event,) = library.commit("other", ("u", "instance", None, document("p1", id="i1", hrid="new")))
    assert (event.identity.id_text, event.version, event.before) == ("other/i1", 2, {"hrid": "other"})
