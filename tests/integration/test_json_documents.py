"""Catalogue records as JSONB documents in tables of their own, from first snapshot row to live changes."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from catalogue_records import Records, catalogue_records
from psycopg.types.json import Jsonb
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, rowcast

from rowcast.errors import ConfigurationError

SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
refusals: {{stop_above: 1}}
aggregates:
  instance: {{table: public.instance_record, document: jsonb, id: /jsonb/id}}
  holdings:
    table: public.holdings_record
    document: jsonb
    id: /jsonb/id
    parent: {{aggregate: instance, column: /jsonb/instanceId}}
  item:
    table: public.item_record
    document: jsonb
    id: /jsonb/id
    parent: {{aggregate: holdings, column: /jsonb/holdingsRecordId}}
    fields: {{status: /jsonb/status/name, changed: changed}}
  part:
    table: public.part_record
    document: jsonb
    id: /jsonb/id
    parent: {{aggregate: item, column: /jsonb/itemId}}
"""
ABOVE = {"instance": (), "holdings": ("instance",), "item": ("holdings", "instance")}
ABOVE["part"] = ("item", *ABOVE["item"])
LINK = {"holdings": "instanceId", "item": "holdingsRecordId", "part": "itemId"}
# What the random changes take; the dirty records stay as they are.
CLEAN = "jsonb_typeof(jsonb -> 'id') = 'string' AND length(jsonb ->> 'id') > 10"
TEXT, LIST = {"type": "string", "minLength": 1}, {"type": ["array", "null"]}
OPTIONAL = {"type": ["string", "null"]}
PROPERTIES: dict[str, dict[str, Any]] = {
    "instance": {
        **dict.fromkeys(("id", "hrid", "title", "source"), TEXT),
        **dict.fromkeys(("identifiers", "contributors", "languages", "publication", "notes"), LIST),
        "discoverySuppress": {"type": ["boolean", "null"]},
    },
    "holdings": {**dict.fromkeys(("id", "hrid", "instanceId"), TEXT), "callNumber": OPTIONAL, "notes": LIST},
    "item": {
        **dict.fromkeys(("id", "hrid", "status", "holdingsRecordId"), TEXT),
        "barcode": OPTIONAL,
        "notes": LIST,
        "changed": {"type": "integer"},
    },
    "part": dict.fromkeys(("id", "itemId", "holdingsRecordId"), TEXT),
}


@pytest.fixture
def documents(project: TestProject) -> TestProject:
    """A project whose aggregates are documents, with empty tables."""
    project.source_path.write_text(SOURCE.format(name=project.name))
    for aggregate, properties in PROPERTIES.items():
        project.write_contract(aggregate, ABOVE[aggregate], properties)
        project.execute(
            f"CREATE TABLE {aggregate}_record (pk bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, jsonb jsonb,"
            " changed integer NOT NULL DEFAULT 0)"
        )
        # Not compressed: what has more than 2 kB is kept apart from its row.
        project.execute(f"ALTER TABLE {aggregate}_record ALTER COLUMN jsonb SET STORAGE EXTERNAL")
    return project


def insert(project: TestProject, aggregate: str, *records: Any) -> None:
    for record in records:
        project.execute(f"INSERT INTO {aggregate}_record (jsonb) VALUES (%s)", Jsonb(record))


def insert_all(project: TestProject, records: Records) -> None:
    for aggregate, each in records.items():
        insert(project, aggregate, *each)


def insert_dirty(project: TestProject) -> None:
    """What should not be there: unknown parents, no id, no document, two of one id, values that no contract allows."""
    insert(project, "holdings", {"id": "orphan", "hrid": "o", "instanceId": "nobody"}, {"id": "free", "hrid": "f"})
    insert(project, "instance", {"hrid": "n"}, {"id": {"odd": 1}}, [], "text", None)
    insert(project, "instance", *[{"id": "twice", "hrid": "t", "title": "T", "source": "MARC"}] * 2)
    insert(project, "item", {"id": "bad", "hrid": "b", "status": "Available", "holdingsRecordId": "orphan"})
    insert(project, "item", {"id": "none", "hrid": "n", "status": None, "holdingsRecordId": "orphan"})
    insert(project, "part", {"id": "lost", "itemId": "bad", "holdingsRecordId": "orphan"})


def expected(project: TestProject) -> dict[tuple[str, str], Any]:
    """What should be published now, by type and id, from SELECT alone; aggregates that are refused are left out."""
    rows: dict[str, dict[str, list[tuple[Any, int]]]] = {aggregate: {} for aggregate in PROPERTIES}
    for aggregate, found in rows.items():
        for record, changed in project.execute(f"SELECT jsonb, changed FROM {aggregate}_record"):
            if isinstance(record, dict) and isinstance(record.get("id"), str):
                found.setdefault(record["id"], []).append((record, changed))
    states = {}
    for aggregate, found in rows.items():
        for id_, held in found.items():
            record, changed = held[0]
            after = {name: record.get(name) for name in PROPERTIES[aggregate]}
            if aggregate == "item":
                status = record["status"]
                after |= {"status": status.get("name") if isinstance(status, dict) else None, "changed": changed}
            required = [name for name, each in PROPERTIES[aggregate].items() if each is TEXT]
            if len(held) == 1 and all(after[name] for name in required):
                states[aggregate, id_] = {"after": after, "ancestors": _ancestors(rows, aggregate, id_)}
    return states


def _ancestors(rows: Mapping[str, Any], aggregate: str, id_: str) -> dict[str, list[str] | None]:
    ancestors: dict[str, list[str] | None] = {}
    below, ids = aggregate, [id_]
    for above in ABOVE[aggregate]:
        if ids:
            parent = rows[below][ids[0]][0][0].get(LINK[below])
            ids = [] if parent is None else [parent] if parent in rows[above] else None
        ancestors[above] = ids
        below = above
    return ancestors


def published(project: TestProject) -> dict[tuple[str, str], Any]:
    """The last state of each aggregate that is not deleted; versions have to be dense."""
    last = [events[-1] for events in histories(project, tuple(PROPERTIES), major=2).values()]
    return {
        (event.identity.aggregate, event.identity.id_text): {"after": event.after, "ancestors": dict(event.ancestors)}
        for event in last
        if event.after is not None
    }


def wait_published(project: TestProject) -> None:
    """Wait until the topics say what the source's tables say; the source has to be quiet."""
    truth = expected(project)

    def difference() -> Any:
        found = published(project)
        names = [key for key in truth.keys() | found.keys() if truth.get(key) != found.get(key)]
        return [(key, truth.get(key), found.get(key)) for key in sorted(names)[:2]] or "none"

    try:
        wait_until(lambda: difference() == "none", "topics agree with the documents", 60)
    except pytest.fail.Exception as error:
        pytest.fail(f"{error}: {difference()} {rowcast(project, 'refused', 'list').stdout}")


def change_randomly(project: TestProject, seed: int, transactions: int) -> None:
    """Committed changes of documents of every kind, from a connection of its own."""
    rng = random.Random(seed)
    with psycopg.connect(project.settings.database(project.name).url, autocommit=True) as connection:
        for number in range(transactions):
            with connection.transaction():
                for _ in range(rng.randint(1, 3)):
                    _change(connection, rng, number)


def _change(connection: psycopg.Connection[Any], rng: random.Random, number: int) -> None:
    aggregate = rng.choice(list(PROPERTIES))
    table = f"{aggregate}_record"
    some = f"pk = (SELECT pk FROM {table} WHERE {CLEAN} ORDER BY md5(pk::text || %s) LIMIT 1)"
    salt = str(rng.random())
    chance = rng.random()
    if chance < 0.4:
        note = Jsonb([{"note": f"changed {number}"}])
        connection.execute(
            f"UPDATE {table} SET jsonb = jsonb || jsonb_build_object('notes', %s) WHERE {some}", (note, salt)
        )
    elif chance < 0.6:
        # The document is not touched; where it is long it is not in the WAL.
        connection.execute(f"UPDATE {table} SET changed = changed + 1 WHERE {some}", (salt,))
    elif chance < 0.7:
        new = Jsonb({"id": str(uuid.UUID(int=rng.getrandbits(128)))})
        connection.execute(f"UPDATE {table} SET jsonb = jsonb || %s WHERE {some}", (new, salt))
    elif chance < 0.8:
        connection.execute(f"UPDATE {table} SET pk = DEFAULT, changed = changed + 1 WHERE {some}", (salt,))
    elif chance < 0.9 and aggregate in LINK:
        above = "item" if aggregate == "part" else ABOVE[aggregate][0]
        parent = f"(SELECT jsonb -> 'id' FROM {above}_record WHERE {CLEAN} ORDER BY md5(pk::text || %s) LIMIT 1)"
        statement = f"UPDATE {table} SET jsonb = coalesce(jsonb_set(jsonb, %s, {parent}), jsonb) WHERE {some}"
        connection.execute(statement, ([LINK[aggregate]], salt, salt))
    else:
        connection.execute(f"DELETE FROM {table} WHERE {some}", (salt,))


@pytest.mark.guarantee("Nothing committed is lost")
def test_real_records_arrive_and_follow_every_change_of_their_documents(
    documents: TestProject, workers: WorkerPool
) -> None:
    """Snapshot and stream agree with SELECT; dirty records are refused by name, and none holds up another."""
    records = catalogue_records()
    insert_all(documents, records)
    insert_dirty(documents)
    load = threading.Thread(target=change_randomly, args=(documents, 1, 150), daemon=True)
    load.start()
    documents.apply()
    worker = workers.start()
    worker.wait_owned()
    change_randomly(documents, 2, 150)
    load.join(60)
    worker.kill()
    change_randomly(documents, 3, 60)
    workers.start().wait_owned(40)
    wait_published(documents)

    refused = {
        each["id"]: each["reason"] for each in json.loads(rowcast(documents, "refused", "list", "--json").stdout)
    }
    without_id = [reason for id_, reason in refused.items() if id_.startswith("row:")]
    assert len(without_id) == 5
    assert refused["twice"] == "2 rows of public.instance_record have this id"
    assert refused["bad"] == "/jsonb/status/name: a string has no member 'name'"
    assert refused["none"].startswith("/after/status: ")
    assert published(documents)["holdings", "orphan"]["ancestors"] == {"instance": None}
    assert published(documents)["part", "lost"]["ancestors"] == {
        "item": ["bad"],
        "holdings": ["orphan"],
        "instance": None,
    }

    documents.execute(
        "UPDATE instance_record SET jsonb = %s WHERE jsonb = '[]'", Jsonb({**records["instance"][0], "id": "new"})
    )
    documents.execute(
        "DELETE FROM instance_record WHERE pk = (SELECT min(pk) FROM instance_record WHERE jsonb ->> 'id' = 'twice')"
    )
    wait_published(documents)
    left = {each["id"] for each in json.loads(rowcast(documents, "refused", "list", "--json").stdout)}
    assert len([id_ for id_ in left if id_.startswith("row:")]) == 4
    assert "twice" not in left


@pytest.mark.slow
def test_large_transactions_and_truncate_of_documents(documents: TestProject, workers: WorkerPool) -> None:
    """Ids that change in a transaction too large for memory, and a table that is emptied and filled again."""
    documents.apply()
    workers.start().wait_owned()
    fill = (
        "INSERT INTO instance_record (jsonb) SELECT jsonb_build_object('id', 'i' || g, 'hrid', 'h' || g, 'title', 'T',"
        " 'source', 'MARC') FROM generate_series(1, 12000) g"
    )
    documents.execute(fill)
    wait_published(documents)
    with documents.connection.transaction():
        # Every id moves on by one, so that each is left by a row and taken by another.
        move = "jsonb_set(jsonb, '{id}', to_jsonb('i' || (substr(jsonb ->> 'id', 2)::int + 1)))"
        documents.execute(f"UPDATE instance_record SET jsonb = {move}")
        documents.execute('UPDATE instance_record SET jsonb = jsonb || \'{"title": "U"}\'')
    wait_published(documents)
    with documents.connection.transaction():
        documents.execute("TRUNCATE instance_record")
        documents.execute(fill.replace("12000", "10"))
    wait_published(documents)
    assert len(published(documents)) == 10


def test_a_document_column_that_is_none_is_refused_before_anything_is_touched(documents: TestProject) -> None:
    """No such column, no JSON, no primary key: told with line and field."""
    text = documents.source_path.read_text()
    for wrong, words in (
        (text.replace("document: jsonb, id", "document: changed, id"), "'changed' of type integer holds no JSON"),
        (text.replace("column: /jsonb/itemId", "column: /json/itemId"), "public.part_record has no column 'json'"),
        (text.replace("status: /jsonb/status/name", "status: /changed/name"), "'changed' of type integer holds no"),
    ):
        documents.source_path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=words):
            documents.apply()
