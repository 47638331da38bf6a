"""Personal data: what a source refuses, and that nothing behind the change log holds what may not be published."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from changelog import ChangeLog, MemoryStore, accept, build_definition, run_batch

from rowcast.contracts.contract import Contract
from rowcast.errors import ConfigurationError, StopError
from rowcast.event import DomainEvent, decode
from rowcast.hash_key import HashKey, hash_key
from rowcast.settings import DatabaseSettings, load_settings
from rowcast.sources.catalogue import Catalogue, Column, Table
from rowcast.sources.compilation import compile_definition
from rowcast.sources.connector import connector_configuration
from rowcast.sources.definition import AggregateDefinition, ColumnDefinition, SourceDefinition, TableDefinition
from rowcast.sources.document import DocumentError
from rowcast.sources.field import FieldDefinition
from rowcast.sources.source_file import SourceFile, load_source
from stream_app.core.column import PLACEHOLDER
from stream_app.core.mapping import SourceMapping, compile_mapping
from stream_app.core.state import Key
from stream_app.trial import Trial

KEY = HashKey(b"0123456789abcdef0123456789abcdef")
NONE = {"x-pii": "none"}
TEXT = {"type": ["string", "null"]}
PERSON = {
    "type": ["object", "null"],
    "properties": {
        "name": {**TEXT, "x-pii": "name"},
        "town": {**TEXT, "x-pii": "none"},
        "mail": {**TEXT, "x-pii": "contact"},
        "number": {**TEXT, "x-pii": "government-id"},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/person"}},
    },
    "required": ["number"],
}
PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer", **NONE},
    "name": {**TEXT, "x-pii": "name"},
    "mail": {**TEXT, "x-pii": "contact"},
    "born": {**TEXT, "x-pii": "birth"},
    "number": {**TEXT, "x-pii": "government-id"},
    "tags": {"type": ["array", "null"], "items": {"type": ["string", "null"]}, "x-pii": "contact"},
    "person": {"oneOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
    "phone": {**TEXT, "x-pii": "contact"},
    "note": {**TEXT, "x-pii": "none"},
}
SOURCE = """source: shop
database: shop
pii: {name: mask, contact: hash, government-id: drop, birth: publish}
aggregates:
  customer:
    table: public.customer
    id: id
    fields: {phone: /doc/phone, person: /doc/person}
"""
CLEAR = "CANARY"
TABLE = TableDefinition(
    name="public.customer",
    columns=tuple(
        ColumnDefinition(name=name, type=kind, nullable=True) for name, kind in (("id", "integer"), ("doc", "jsonb"))
    ),
    key=("id",),
    replica_identity="d",
)


def column(name: str, kind: str = "text", *, nullable: bool = True) -> Column:
    return Column(name=name, type=kind, nullable=nullable, enum=False, generated=False)


def catalogue(**changes: Any) -> Catalogue:
    table: dict[str, Any] = {
        "name": "public.customer",
        "columns": (
            column("id", "integer", nullable=False),
            *map(column, ("name", "mail", "number", "note")),
            column("born", "date"),
            column("tags", "text[]"),
            column("doc", "jsonb"),
        ),
        "kind": "r",
        "persistence": "p",
        "replica_identity": "d",
        "key": ("id",),
        "partition_of": None,
        "inherits": None,
        "leaf_identities": frozenset(),
    }
    version = changes.pop("version", 180_000)
    return Catalogue(
        database="shop",
        version=version,
        wal_level="logical",
        slots_max=10,
        in_recovery=False,
        may_replicate=True,
        tables={"public.customer": Table(**{**table, **changes})},
    )


def contract(properties: Mapping[str, Any] = PROPERTIES, **changes: Any) -> Contract:
    entity = {
        "type": "object",
        "x-ancestors": [],
        "properties": dict(properties),
        "required": list(properties),
        "$defs": {"person": PERSON},
        **changes,
    }
    path = Path("schemas/shop/customer/v1.0.json")
    return Contract(path=path, domain="shop", aggregate="customer", major=1, minor=0, entity=entity)


def source(tmp_path: Path, *changes: tuple[str, str]) -> SourceFile:
    text = SOURCE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    return load_source(path)


def compiled(tmp_path: Path, *changes: tuple[str, str], **table: Any) -> SourceDefinition:
    return compile_definition(source(tmp_path, *changes), {"customer": contract()}, catalogue(**table))


def refused(tmp_path: Path, properties: Mapping[str, Any], *changes: tuple[str, str]) -> str:
    with pytest.raises(DocumentError) as error:
        compile_definition(source(tmp_path, *changes), {"customer": contract(properties)}, catalogue())
    return str(error.value)


def digest(text: str) -> str:
    return hmac.new(KEY.secret, text.encode(), sha256).hexdigest()


def row(id_: int = 1, **columns: Any) -> dict[str, Any]:
    person = {
        "name": CLEAR,
        "town": "Kiel",
        "mail": f"{CLEAR}@a",
        "number": CLEAR,
        "friends": [{"name": CLEAR, "number": CLEAR, "friends": [{"mail": CLEAR, "number": None}]}],
    }
    document = {"person": person, "phone": CLEAR, "more": 1}
    return {
        "id": id_, "name": CLEAR, "mail": f"{CLEAR}@b", "born": "1970-01-01Z", "number": CLEAR, "note": "n",
        "tags": [CLEAR, None], "doc": json.dumps(document), **columns,
    }  # fmt: skip


class Pipeline:
    """The core of a worker, with its state in memory."""

    def __init__(self, definition: SourceDefinition) -> None:
        self.mapping: SourceMapping = compile_mapping(definition, {"customer": accept}, KEY)
        self.log, self.store = ChangeLog(), MemoryStore()

    def commit(self, *changes: tuple[str, str, Any, Any]) -> list[DomainEvent]:
        """A transaction; `held` is then all that a worker holds of it."""
        start = len(self.log.values)
        self.log.transaction(changes)
        records, view = run_batch(self.mapping, self.store, self.log.records(start))
        self.store.save(view)
        self.held = repr((view, self.store.rows, self.store.aggregates, records))
        return [decode(*record) for record in records]


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """With a field of every kind."""
    return Pipeline(compiled(tmp_path))


def test_each_class_is_published_dropped_masked_or_hashed_before_anything_is_kept(pipeline: Pipeline) -> None:
    """At any depth; null stays null; a demanded field that is dropped is null; nothing else holds the clear value."""
    (event,) = pipeline.commit(("c", "customer", None, row()))
    assert event.after == {
        "id": 1, "name": "***", "mail": digest(f"{CLEAR}@b"), "born": "1970-01-01", "number": None,
        "tags": [digest(CLEAR), None], "phone": digest(CLEAR), "note": "n",
        "person": {
            "name": "***", "town": "Kiel", "mail": digest(f"{CLEAR}@a"), "number": None,
            "friends": [
                {"name": "***", "number": None, "friends": [{"mail": digest(CLEAR), "number": None}]},
            ],
        },
    }  # fmt: skip
    assert CLEAR not in pipeline.held
    empty = dict.fromkeys(row(), None) | {"id": 2}
    (nulls,) = pipeline.commit(("c", "customer", None, empty))
    assert nulls.after == {"id": 2, **dict.fromkeys([*PROPERTIES][1:])}


def test_former_values_and_deleted_rows_are_hidden_too(pipeline: Pipeline) -> None:
    """Before images, those of deletions and those of another primary key included."""
    pipeline.commit(("c", "customer", None, row()))
    (event,) = pipeline.commit(("u", "customer", row(), row(mail="other", name="OTHER", note="m")))
    assert event.before == {"mail": digest(f"{CLEAR}@b"), "note": "n"}, "a masked value does not change"
    (event,) = pipeline.commit(("d", "customer", row(mail="other"), None))
    assert event.before is not None
    assert (event.before["mail"], event.before["name"]) == (digest("other"), "***")
    assert CLEAR not in pipeline.held
    assert "OTHER" not in pipeline.held


def test_a_value_that_an_update_did_not_touch_is_not_hashed_again(pipeline: Pipeline) -> None:
    """What is missing from the WAL is completed from what is kept, which is hashed already."""
    pipeline.commit(("c", "customer", None, row()))
    (event,) = pipeline.commit(("u", "customer", None, row(mail=PLACEHOLDER, doc=PLACEHOLDER, note="m")))
    assert event.after is not None
    assert event.after["mail"] == digest(f"{CLEAR}@b")
    assert event.after["person"]["name"] == "***"
    assert event.before == {"note": "n"}


@pytest.mark.parametrize(
    "document",
    [
        '{"person": ',
        '{"n": 1.00000000000000000000001, "person": {"name": "CANARY"}}',
        "[" * 3000 + "]" * 3000,
        '"CANARY"',
    ],
)
def test_a_refused_row_shows_nothing_that_is_not_published(pipeline: Pipeline, document: str) -> None:
    """A document that cannot be read is not kept, because nobody can tell where in it something has to be hidden."""
    assert pipeline.commit(("c", "customer", None, row(doc=document))) == []
    state = pipeline.store.aggregates[Key("customer", "1")]
    assert state.refusal is not None
    shown = json.loads(state.refusal.record)
    assert (shown["name"], shown["mail"], shown["born"]) == ("***", digest(f"{CLEAR}@b"), "1970-01-01Z")
    assert CLEAR not in pipeline.held


MISPLACED: dict[str, Any] = {
    "a text for an object": {"person": CLEAR},
    "a list for an object": {"person": [{"name": CLEAR}]},
    "an object for a list": {"person": {"friends": {"name": CLEAR}}},
    "an object for a text": {"phone": {"number": CLEAR}},
    "a list for a text": {"phone": [[CLEAR]]},
}


@pytest.mark.parametrize("case", MISPLACED)
def test_a_value_of_another_kind_than_the_contract_says_is_hidden(pipeline: Pipeline, case: str) -> None:
    """Its validator refuses it; until then nobody can tell what in it is personal."""
    pipeline.commit(("c", "customer", None, row(doc=json.dumps(MISPLACED[case]))))
    assert CLEAR not in pipeline.held


def test_rules_that_became_stricter_hold_for_what_was_published_before(tmp_path: Path, pipeline: Pipeline) -> None:
    """The first event under them does not tell the former values once more."""
    loose = Pipeline(compiled(tmp_path, ("name: mask, contact: hash", "name: publish, contact: publish")))
    (event,) = loose.commit(("c", "customer", None, row()))
    assert event.after is not None
    assert event.after["name"] == CLEAR
    pipeline.store.aggregates = dict(loose.store.aggregates)
    (event,) = pipeline.commit(("c", "customer", None, row(note="m")))
    assert event.before == {"note": "n"}
    assert CLEAR not in repr(event)
    (event,) = pipeline.commit(("d", "customer", row(), None))
    assert CLEAR not in repr(event)


def test_a_dropped_column_is_neither_captured_nor_published_by_the_database(tmp_path: Path) -> None:
    """From PostgreSQL 15 on, and where the replica identity allows it; the connector leaves it out in any case."""
    definition = compiled(tmp_path)
    (table,) = definition.tables
    assert table.published_columns == {"id", "name", "mail", "born", "tags", "doc", "note"}
    settings = connector_configuration(
        definition, DatabaseSettings("shop", "postgresql://reader@db.example/shop"), server_version=180_000
    )
    assert "number" not in settings["column.include.list"]
    for changes in ({"version": 140_000}, {"replica_identity": "f"}):
        (table,) = compiled(tmp_path, **changes).tables
        assert table.published_columns is None
    assert SourceDefinition.from_json(definition.to_json()) == definition


FAULTS: dict[str, tuple[dict[str, Any], list[tuple[str, str]], str]] = {
    "nobody classified it": (
        {"note": {**TEXT, "x-pii": "unclassified"}},
        [],
        "customer/v1.0.json#/properties/note/x-pii: nobody has said whether it is personal data",
    ),
    "nobody classified a variant": (
        {"note": {"oneOf": [{"type": "null"}, {"type": "array", "items": {"type": "string"}}]}},
        [],
        "customer/v1.0.json#/properties/note/oneOf/1/items: nobody has said whether this variant is personal data",
    ),
    "no word for its class": (
        {},
        [("contact: hash, ", "")],
        "v1.0.json#/properties/mail: `pii` of this source does not say what to do with contact",
    ),
    "a mask that the contract rejects": (
        {"name": {"type": "string", "minLength": 9, "x-pii": "name"}},
        [],
        "property 'name' of schemas/shop/customer/v1.0.json is masked, but the contract does not accept '***' there",
    ),
    "a hash that the contract rejects": (
        {"mail": {**TEXT, "format": "email", "x-pii": "contact"}},
        [],
        "is hashed, but the contract does not accept 64",
    ),
    "a mask of a number": (
        {"name": {"type": ["integer", "null"], "x-pii": "name"}},
        [],
        "but mask of column 'name' of type text gives string",
    ),
    "dropped and demanded": (
        {"number": {"type": "string", "x-pii": "government-id"}},
        [],
        "is dropped, but the contract demands a value",
    ),
    "a part that is dropped and demanded": (
        {
            "person": {
                "type": "object",
                "required": ["a"],
                "properties": {"a": {"type": "string", "x-pii": "government-id"}},
            }
        },
        [],
        "/properties/person/properties/a is dropped, but the contract demands a value",
    ),
    "the id": (
        {"id": {"type": "string", "x-pii": "name"}},
        [],
        "also read as it is: the id or a link, which record keys hold",
    ),
    "the id dropped": ({"id": {"type": ["integer", "null"], "x-pii": "government-id"}}, [], "the id or a link, which"),
    "a condition": ({}, [("    id: id\n", "    id: id\n    where: {name: x}\n")], "name is also read as it is: where"),
    "published elsewhere": (
        {},
        [("phone: /doc/phone", "phone: /doc/phone, note: {column: /doc/phone}")],
        "also read as it is: field 'note'",
    ),
    "published from within": (
        {},
        [("phone: /doc/phone", "phone: /doc/phone, note: /doc/person/friends/0/name")],
        "is masked, but /doc/person/f",
    ),
    "made by a cast": (
        {},
        [("phone: /doc/phone", "phone: {column: note, cast: text}")],
        "because it is made by cast 'text'",
    ),
    "two ways": (
        {},
        [("phone: /doc/phone", "phone: {column: mail, pii: mask}")],
        "mail is masked elsewhere (accepted: one of them)",
    ),
    "a wrong word": (
        {},
        [("name: mask", "name: hide")],
        "'hide' is not accepted (accepted: drop, hash, mask, publish)",
    ),
    "no class": ({}, [("name: mask", "none: mask")], "'none' is no class of personal data"),
    "a dropped column that is not there": (
        {},
        [("phone: /doc/phone", "number: numbr")],
        "has no column 'numbr', so nothing",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_would_not_be_hidden_is_refused_by_plan(case: str, tmp_path: Path) -> None:
    """Each fault names field and reason before anything runs."""
    properties, changes, message = FAULTS[case]
    assert message in refused(tmp_path, {**PROPERTIES, **properties}, *changes)


def test_a_source_that_says_nothing_publishes_what_is_classified(tmp_path: Path) -> None:
    """A class is a decision; without `pii` the contract's word is enough."""
    definition = compiled(tmp_path, ("pii: {name: mask, contact: hash, government-id: drop, birth: publish}\n", ""))
    assert not definition.aggregates[0].handlings
    assert compile_mapping(definition, {"customer": accept}).shield is None


def test_a_field_may_be_handled_by_itself(tmp_path: Path) -> None:
    """Its own word counts more than that of its class, for all of it."""
    own = "phone: /doc/phone, mail: {column: mail, pii: publish}, note: {column: note, pii: hash}"
    definition = compiled(tmp_path, ("phone: /doc/phone", own))
    pipeline = Pipeline(definition)
    (event,) = pipeline.commit(("c", "customer", None, row()))
    assert event.after is not None
    assert (event.after["mail"], event.after["note"]) == (f"{CLEAR}@b", digest("n"))


def test_a_worker_without_the_key_of_the_definition_stops_the_source(tmp_path: Path) -> None:
    """With another key the same value would get another hash."""
    definition = replace(compiled(tmp_path), hash_key_id=KEY.id)
    for key in (None, HashKey(b"x" * 32)):
        with pytest.raises(StopError, match="HASH_KEY_WRONG"):
            compile_mapping(definition, {"customer": accept}, key)
    assert compile_mapping(definition, {"customer": accept}, KEY).shield


def keys(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    (tmp_path / "keys.properties").write_text(f"hash={'k' * 40}\n")
    yield "", {"ROWCAST_HASH_KEY": "k" * 40}
    yield 'hash_key = "${file:keys.properties:hash}"', {}


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """As every other secret; it is shown nowhere, and one that can be guessed is refused."""
    for text, environ in keys(tmp_path):
        (tmp_path / "rowcast.toml").write_text(text)
        settings = load_settings(tmp_path, environ)
        assert settings.hash_key() == hash_key("k" * 40, "")
        assert "kkk" not in repr((settings, settings.hash_key()))
    with pytest.raises(ConfigurationError, match="has 5 characters"):
        load_settings(tmp_path, {"ROWCAST_HASH_KEY": "short"}).hash_key()


def test_a_committed_case_holds_no_clear_value(tmp_path: Path) -> None:
    """What `sources preview --save` writes was hidden before, and gives the same events again."""
    trial = Trial(compiled(tmp_path))
    read = {name: value for name, value in row().items() if name != "number"}
    saved = trial.committable("public.customer", read)
    assert CLEAR not in repr(saved)
    first, second = (Trial(compiled(tmp_path)).commit([("public.customer", saved)]).events for _ in range(2))
    assert first == second
    assert first[0].after is not None
    assert first[0].after["person"]["town"] == "Kiel"


def test_members_that_the_contract_does_not_name_are_not_published(pipeline: Pipeline) -> None:
    """At any depth: nobody has said what they are. An object of which it names none is published as it is."""
    person = {"name": None, "number": None, "nick": CLEAR, "friends": [{"number": None, "more": {"deep": CLEAR}}]}
    (event,) = pipeline.commit(("c", "customer", None, row(doc=json.dumps({"person": person}))))
    assert event.after is not None
    assert event.after["person"] == {"name": None, "number": None, "friends": [{"number": None}]}
    free = {**PROPERTIES, "note": {"type": ["object", "null"], **NONE}}
    assert entity(free, note={"any": [{"thing": 1}]})["note"] == {"any": [{"thing": 1}]}
    variants = [{"type": "null"}, {"type": "object", **NONE}, {"$ref": "#/$defs/person"}]
    assert entity({**PROPERTIES, "note": {"oneOf": variants}}, note={"any": 1})["note"] == {"any": 1}
    plain = {"type": "object", "properties": {"a": {**TEXT, **NONE}, "b": {"$ref": "#/$defs/leaf"}}}
    leaf = {"type": "array", "items": {"type": "object", "properties": {"c": {**TEXT, **NONE}}}}
    given = {"a": "x", "b": [{"c": "y", "d": 1}, "z"], "e": {}}
    found = entity({**PROPERTIES, "note": plain}, {"leaf": leaf}, note=given)
    assert found["note"] == {"a": "x", "b": [{"c": "y"}, "z"]}
    mapped = {"type": "object", "additionalProperties": {"$ref": "#/$defs/person"}}
    found = entity({**PROPERTIES, "note": mapped}, note={"any": {"town": "a", "more": 1}})
    assert found["note"] == {"any": {"town": "a"}}


def entity(
    properties: Mapping[str, Any], definitions: Mapping[str, Any] | None = None, /, **document: Any
) -> Mapping[str, Any]:
    """What is published of a row with a document, under a contract that nothing has to be hidden by."""
    aggregate = AggregateDefinition(
        name="customer",
        table="public.customer",
        id=("id",),
        parent=None,
        fields={"note": FieldDefinition(place="/doc/note")},
        major=1,
        minor=0,
        entity_schema=contract(properties, **{"$defs": {"person": PERSON, **(definitions or {})}}).entity,
        value_schema={},
        dataschema="",
    )
    definition = replace(build_definition(), aggregates=(aggregate,), tables=(TABLE,))
    mapping = compile_mapping(definition, {"customer": accept})
    return mapping.by_type["customer"].entity({"id": 1, "doc": json.dumps(document)})


ORDER = {
    "id": {"type": "integer", **NONE},
    "lines": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["id", "pin", "doc"],
            "properties": {
                "id": {"type": "integer", **NONE},
                "who": {**TEXT, "x-pii": "name"},
                "mail": {**TEXT, "x-pii": "contact"},
                "pin": {**TEXT, "x-pii": "government-id"},
                "own": {**TEXT, "x-pii": "name"},
                "doc": {"$ref": "#/$defs/person"},
            },
        },
    },
}
EMBEDDING = """source: shop
database: shop
pii: {name: mask, contact: hash, government-id: drop}
aggregates:
  customer:
    table: public.customer
    id: id
    embedded:
      lines: {table: public.line, column: customer_id, fields: {own: {column: own, pii: publish}}}
"""


def lines_of(tmp_path: Path, *changes: tuple[str, str]) -> SourceDefinition:
    text = EMBEDDING
    for old, new in changes:
        text = text.replace(old, new)
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    columns = [column("id", "integer", nullable=False), column("customer_id", "integer")]
    columns += [*map(column, ("who", "mail", "pin", "own")), column("doc", "jsonb")]
    plain = catalogue().tables["public.customer"]
    tables = {"public.customer": plain, "public.line": replace(plain, name="public.line", columns=tuple(columns))}
    return compile_definition(load_source(path), {"customer": contract(ORDER)}, replace(catalogue(), tables=tables))


def test_embedded_rows_are_hidden_too(tmp_path: Path) -> None:
    """By class or by their own word, in columns and documents, before they are kept."""
    definition = lines_of(tmp_path)
    assert definition.tables[1].published_columns == {"id", "customer_id", "who", "mail", "own", "doc"}
    assert SourceDefinition.from_json(definition.to_json()) == definition
    person = {"name": CLEAR, "number": CLEAR, "more": CLEAR}
    line = {
        "id": 2,
        "customer_id": 1,
        "who": CLEAR,
        "mail": CLEAR,
        "pin": CLEAR,
        "own": "mine",
        "doc": json.dumps(person),
    }
    pipeline = Pipeline(definition)
    (event,) = pipeline.commit(("c", "customer", None, {"id": 1}), ("c", "line", None, line))
    hidden = {"who": "***", "mail": digest(CLEAR), "pin": None, "own": "mine", "doc": {"name": "***", "number": None}}
    assert event.after == {"id": 1, "lines": [{"id": 2, **hidden}]}
    (event,) = pipeline.commit(("u", "line", line, {**line, "own": "yours"}))
    assert event.before == {"lines": [{"id": 2, **hidden}]}
    assert CLEAR not in pipeline.held.replace(f"'more': '{CLEAR}'", "")


EMBEDDED_FAULTS = {
    "order": ("column: customer_id", "column: customer_id, order: who", "embedded.lines.fields.who: property 'who' of"),
    "where": ("column: customer_id", "column: customer_id, where: {mail: x}", "mail is also read as it is: where"),
    "whole": (
        "own: {column: own, pii: publish}",
        "own: {column: id, pii: hash}",
        "id is also read as it is: the key of",
    ),
}


@pytest.mark.parametrize("case", EMBEDDED_FAULTS)
def test_what_embedded_rows_would_not_hide_is_refused(case: str, tmp_path: Path) -> None:
    """As in the root table."""
    old, new, message = EMBEDDED_FAULTS[case]
    with pytest.raises(DocumentError) as error:
        lines_of(tmp_path, (old, new))
    assert message in str(error.value)
