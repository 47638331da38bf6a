"""Marked values in columns of every kind, and a search for them wherever a running source leaves something."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition
from psycopg import sql
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, read_topics, rowcast

from rowcast.topics import PROGRESS_TOPIC, domain_topic

KEY = "a key that only tests have, and long enough"
SOURCE = """source: {name}
database: {name}
topics: {{partitions: 3}}
refusals: {{stop_above: 1}}
pii: {{name: mask, contact: hash, secret: drop, place: publish}}
aggregates:
  customer:
    table: public.customer
    id: id
    fields: {{phone: /doc/phone, person: /doc/person}}
  account:
    table: public.account
    id: id
    parent: {{aggregate: customer, column: customer_id}}
"""
TEXT = {"type": ["string", "null"]}
CUSTOMER = {
    "id": {"type": "integer"},
    "name": {"type": "string", "x-pii": "name"},
    "nick": {**TEXT, "x-pii": "name"},
    "mail": {**TEXT, "x-pii": "contact"},
    "pin": {**TEXT, "x-pii": "secret"},
    "town": {**TEXT, "x-pii": "place"},
    "phone": {**TEXT, "x-pii": "contact"},
    "note": {"type": ["string", "null"], "maxLength": 20},
    "person": {
        "type": ["object", "null"],
        "properties": {
            "name": {**TEXT, "x-pii": "name", "description": "-"},
            "pin": {**TEXT, "x-pii": "secret", "description": "-"},
            "town": {**TEXT, "x-pii": "place", "description": "-"},
        },
    },
}
ACCOUNT = {
    "id": {"type": "integer"},
    "owner": {"type": "string", "x-pii": "name"},
    "iban": {**TEXT, "x-pii": "contact"},
    "pin": {**TEXT, "x-pii": "secret"},
    "state": {"type": "string", "maxLength": 20},
}
SCHEMA = """
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, nick text, mail text, pin text, town text, note text,
                       doc jsonb, unused text);
CREATE TABLE account (id int PRIMARY KEY, customer_id int, owner varchar(60) NOT NULL, iban text, pin text,
                      state text NOT NULL);
ALTER TABLE account REPLICA IDENTITY FULL;
"""
# In the name of each mark stands what is done with it.
MASKED, HASHED, DROPPED, PUBLISHED = "cnryMASKED", "cnryHASHED", "cnryDROPPED", "cnryPUBLISHED"
HIDDEN = (MASKED, HASHED, DROPPED)
# A member of a document that no property names stays in row state and is published nowhere.
UNDECLARED = "cnryUNDECLARED"


def add_customers(project: TestProject, first: int, last: int, note: str = "plain") -> None:
    """Rows with a mark in every column; those of *first* to *last*."""
    document = {
        "phone": f"{HASHED} phone",
        "person": {"name": f"{MASKED} in", "pin": f"{DROPPED} in", "town": f"{PUBLISHED} in"},
    }
    project.execute(
        f"""INSERT INTO customer SELECT g, '{MASKED} ' || g, '{MASKED} nick ' || g, '{HASHED}' || g || '@example.org',
        '{DROPPED} ' || g, '{PUBLISHED} ' || g, %s, %s::jsonb, 'cnryUNUSED' FROM generate_series(%s::int, %s::int) g""",
        note,
        json.dumps(document),
        first,
        last,
    )
    project.execute(
        f"""INSERT INTO account SELECT g, g, '{MASKED} ' || g, '{HASHED} ' || g, '{DROPPED} ' || g, '{PUBLISHED}'
        FROM generate_series(%s::int, %s::int) g""",
        first,
        last,
    )


def raw_topic(project: TestProject, *topics: str) -> bytes:
    """Everything that stands in *topics*: keys, values and headers."""
    consumer = KafkaConsumer(bootstrap_servers=project.stack.brokers, isolation_level="read_committed", group_id=None)
    found: list[bytes] = []
    try:
        parts = [TopicPartition(each, part) for each in topics for part in consumer.partitions_for_topic(each) or ()]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)

        def read() -> bool:
            for records in consumer.poll(200).values():
                found.extend(
                    b"%s %s %s" % (each.key or b"", each.value or b"", repr(each.headers).encode()) for each in records
                )
            return all(consumer.position(part) >= end for part, end in ends.items())

        wait_until(read, f"the end of {', '.join(topics)}")
    finally:
        consumer.close()
    return b"\n".join(found)


def control_database(project: TestProject) -> Iterator[tuple[str, str]]:
    """Every table of the control database, as text."""
    with project.control() as control:
        tables = control.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'rowcast'::regnamespace AND relkind = 'r'"
        )
        for (name,) in tables.fetchall():
            query = sql.SQL("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {} t").format(
                sql.Identifier("rowcast", name)
            )
            row = control.execute(query).fetchone()
            assert row is not None
            # What PostgreSQL shows of bytes are hexadecimal digits.
            yield name, str(row[0])
            columns = control.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND atttypid = 'bytea'::regtype",
                (f"rowcast.{name}",),
            )
            for (column,) in columns.fetchall():
                raw = sql.SQL("SELECT coalesce(string_agg(encode({}, 'escape'), E'\\n'), '') FROM {}").format(
                    sql.Identifier(column), sql.Identifier("rowcast", name)
                )
                row = control.execute(raw).fetchone()
                assert row is not None
                yield f"{name}.{column}", str(row[0])


def assert_hidden(places: Iterable[tuple[str, str]]) -> None:
    """None of *places* (name, text) holds a mark that has to be hidden."""
    for name, text in places:
        for mark in (*HIDDEN, "cnryUNUSED"):
            at = text.find(mark)
            assert at < 0, f"{name}: {text[max(0, at - 200) : at + 60]}"


@pytest.fixture
def customers(project: TestProject) -> TestProject:
    """A source with columns of every kind, one table with the former image of each row in the WAL."""
    (project.folder / "key.properties").write_text(f"hash={KEY}\n")
    settings = project.folder / "rowcast.toml"
    settings.write_text('hash_key = "${file:key.properties:hash}"\n' + settings.read_text())
    project.source_path.write_text(SOURCE.format(name=project.name))
    project.write_contract("customer", (), CUSTOMER)
    project.write_contract("account", ("customer",), ACCOUNT)
    project.execute(SCHEMA)
    return project


@pytest.mark.slow
def test_what_a_source_does_not_publish_is_found_nowhere(customers: TestProject, workers: WorkerPool) -> None:
    """Snapshot, changes, deletions, refusals, a large transaction that a killed worker had staged, and a TRUNCATE."""
    project, topics = customers, [domain_topic(customers.name, each, 2) for each in ("customer", "account")]
    add_customers(project, 1, 20)
    project.apply()
    first = workers.start("sequencer.in_staging=kill@2")
    first.wait_owned()
    wait_until(lambda: len(read_topics(project, ("customer", "account"), major=2)) == 40, "the snapshot", 60)
    add_customers(project, 21, 30)
    project.execute(
        "UPDATE customer SET nick = nick || '!', doc = doc || %s::jsonb WHERE id < 5", json.dumps({"more": UNDECLARED})
    )
    project.execute("UPDATE account SET iban = iban || '!', owner = owner || '!' WHERE id < 5")
    project.execute("UPDATE customer SET id = id + 1000 WHERE id = 6")
    project.execute("DELETE FROM customer WHERE id = 7")
    project.execute("DELETE FROM account WHERE id IN (7, 8)")
    project.execute("UPDATE customer SET note = 'longer than the contract allows' WHERE id IN (9, 10)")
    project.execute("UPDATE account SET state = 'longer than the contract allows' WHERE id IN (9, 10)")
    wait_until(lambda: "refused account 10" in first.text(), "a refusal")
    metrics = first.get("/metrics").text
    add_customers(project, 10_001, 32_000)
    assert first.wait_ended(60) == -9
    staged = dict(control_database(project))["staged_change"]
    assert len(staged.splitlines()) >= 20_000
    assert_hidden(control_database(project))

    second = workers.start()
    second.wait_owned(40)
    wait_until(lambda: len(histories(project, ("customer",), major=2)) > 22_000, "the large transaction", 90)
    project.execute("TRUNCATE account")
    wait_until(lambda: b".deleted." in raw_topic(project, topics[1]), "the TRUNCATE", 60)
    published = raw_topic(project, *topics, PROGRESS_TOPIC).decode()
    assert PUBLISHED in published
    assert "***" in published
    assert UNDECLARED not in published
    places = [
        ("topics", published),
        ("log", "".join(each.log.read_text() for each in workers.workers)),
        ("metrics", metrics + second.get("/metrics").text),
        *(
            (" ".join(command), rowcast(project, *command).stdout)
            for command in (("refused", "show", project.name, "customer", "9"), ("refused", "list", "--json"))
        ),
        *control_database(project),
    ]
    assert_hidden(places)
    assert "record" in dict(places)[f"refused show {project.name} customer 9"]
    # What the change log has for its window is what nobody but the worker can hide.
    log = raw_topic(project, f"{project.name}.changes").decode()
    assert "cnryUNUSED" not in log
    assert f"{DROPPED} 1" not in log, "a dropped column does not get there"
    assert f"{MASKED} 1" not in log, "nor does a masked text that is never null"
    assert f"{HASHED} 1" in log


@pytest.mark.slow
def test_other_rules_for_personal_data_need_a_new_snapshot(customers: TestProject, workers: WorkerPool) -> None:
    """What is kept of rows was hidden as it came; a worker with another key publishes nothing."""
    project = customers
    add_customers(project, 1, 3)
    project.apply()
    (published,) = project.execute(
        "SELECT attnames::text[] FROM pg_publication_tables WHERE tablename = 'customer'"
    ).fetchone() or ((),)
    assert "pin" not in published
    assert project.plan() == []
    worker = workers.start(settings={"ROWCAST_HASH_KEY": "another key, which is also long enough"})
    wait_until(lambda: "HASH_KEY_WRONG" in worker.text(), "the worker says what is wrong", 30)
    assert KEY not in worker.text()
    worker.kill()
    assert rowcast(project, "sources", "resume", project.name).returncode == 0
    workers.start().wait_owned(40)
    wait_until(lambda: len(read_topics(project, ("customer", "account"), major=2)) == 6, "the snapshot", 60)
    text = project.source_path.read_text()
    project.source_path.write_text(text.replace("name: mask", "name: publish"))
    refused = rowcast(project, "sources", "plan")
    assert (refused.returncode, "keeps personal data as it was declared" in refused.stderr) == (2, True), refused
