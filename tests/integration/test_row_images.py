"""Row images of every replica identity, keys of every kind, partitions, TRUNCATE: the topic says what SELECT says."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql
from stack_fixture import TestProject, wait_until
from worker_fixture import Worker, WorkerPool, histories, rowcast

from rowcast.annotation import annotate
from rowcast.errors import ConfigurationError
from rowcast.identity import join_id_parts
from rowcast.sources.admission import table_misfits
from rowcast.sources.catalogue import read_catalogue

VALUES = "note text, blob bytea, doc jsonb, tags text[], numbers bigint[], ids uuid[]"
# As an application might have them; each identity with a key of its own kind.
TABLES = {
    "plain": (f"(id integer PRIMARY KEY, {VALUES})", "DEFAULT"),
    "whole": (f"(id uuid PRIMARY KEY, {VALUES})", "FULL"),
    "indexed": (f"(id text PRIMARY KEY, code text NOT NULL UNIQUE, {VALUES})", "USING INDEX indexed_code_key"),
    "keyless": (
        f"(id text NOT NULL UNIQUE, {VALUES})",
        "USING INDEX keyless_id_key",
    ),
    "parted": (f"(id integer, day timestamp, {VALUES}, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)", ""),
}
COLUMNS = ("note", "blob", "doc", "tags", "numbers", "ids")
HOSTILE = ["", " ", "a,b", "a/b", "~", "%41", "'\"\\", "\n\t\x01", "\U0001f600é", "￿", "x" * 600, "NULL", "row:1", "-"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# What a large value is made of; it stands outside its row.
LARGE = {
    "note": "repeat(md5(%s::text), 300)",
    "blob": "decode(repeat(md5(%s::text), 300), 'hex')",
    "doc": "to_jsonb(repeat(md5(%s::text), 300))",
    "tags": "(SELECT array_agg(md5(g::text || %s)) FROM generate_series(1, 300) g)",
    "ids": "(SELECT array_agg(md5(g::text || %s)::uuid) FROM generate_series(1, 300) g)",
    "numbers": "(SELECT array_agg(g * (%s::text::bigint + 1)) FROM generate_series(1, 2000) g)",
}


@pytest.fixture
def tables(project: TestProject) -> TestProject:
    """A project with the tables, each an aggregate."""
    ids = {"parted": "[id, day]"}
    declared = "".join(f"  {name}: {{table: public.{name}, id: {ids.get(name, 'id')}}}\n" for name in TABLES)
    project.source_path.write_text(
        f"source: {project.name}\ndatabase: {project.name}\ntopics: {{partitions: 3}}\naggregates:\n{declared}"
    )
    for name, (columns, identity) in TABLES.items():
        project.execute(f"CREATE TABLE {name} {columns}")
        if identity:
            project.execute(f"ALTER TABLE {name} REPLICA IDENTITY {identity}")
        for column in COLUMNS:
            project.execute(f"ALTER TABLE {name} ALTER {column} SET STORAGE EXTERNAL")
        keys = {"parted": ("id", "day"), "indexed": ("id", "code")}.get(name, ("id",))
        project.write_contract(name, (), {each: {} for each in (*keys, *COLUMNS)})
    project.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-07-01')")
    project.execute("CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2026-07-01') TO ('2027-01-01')")
    return project


def key_of(name: str, number: int) -> tuple[object, ...]:
    """The *number*-th key of a table."""
    if name == "whole":
        return (f"00000000-0000-0000-0000-{number:012d}",)
    if name == "parted":
        return number, f"2026-{1 + number % 12:02d}-01 00:00:00"
    return (HOSTILE[number % len(HOSTILE)] + str(number),) if name in {"indexed", "keyless"} else (number,)


def key_columns(name: str) -> tuple[str, ...]:
    """The primary key, or what stands for it."""
    return ("id", "day") if name == "parted" else ("id",)


def change(project: TestProject, rng: random.Random) -> None:
    """One statement on a random row."""
    name = rng.choice(list(TABLES))
    key, other = key_of(name, rng.randrange(30)), key_of(name, rng.randrange(30))
    where = " AND ".join(f"{column} = %s" for column in key_columns(name))
    column = rng.choice(COLUMNS)
    kind = rng.choice(["insert", "insert", "large", "small", "null", "delete", "key", "code"])
    if kind == "insert":
        names = (*key_columns(name), *(("code",) if name == "indexed" else ()), "note")
        values = (*key, *((f"c{key[0]}",) if name == "indexed" else ()), f"n{rng.random()}")
        marks = ", ".join("%s" for _ in values)
        conflict = "ON CONFLICT DO NOTHING"
        project.execute(f"INSERT INTO {name} ({', '.join(names)}) VALUES ({marks}) {conflict}", *values)
    elif kind == "large":
        value = LARGE[column]
        project.execute(f"UPDATE {name} SET {column} = {value} WHERE {where}", str(rng.randrange(99)), *key)
    elif kind == "small":
        note = rng.choice([f"s{rng.random()}", "__debezium_unavailable_value"])
        project.execute(f"UPDATE {name} SET note = %s WHERE {where}", note, *key)
    elif kind == "null":
        project.execute(f"UPDATE {name} SET {column} = NULL WHERE {where}", *key)
    elif kind == "delete":
        project.execute(f"DELETE FROM {name} WHERE {where}", *key)
    elif kind == "key":
        taken = project.execute(f"SELECT FROM {name} WHERE {where}", *other).fetchone()
        if taken is None:
            sets = ", ".join(f"{each} = %s" for each in key_columns(name))
            project.execute(f"UPDATE {name} SET {sets} WHERE {where}", *other, *key)
    elif name == "indexed":
        project.execute(f"UPDATE indexed SET code = %s WHERE {where}", f"c{rng.random()}", *key)


def change_randomly(project: TestProject, seed: int, transactions: int) -> None:
    rng = random.Random(seed)
    for _ in range(transactions):
        with project.connection.transaction():
            for _ in range(rng.randint(1, 6)):
                change(project, rng)
            if rng.random() < 0.02:
                project.execute(f"TRUNCATE {rng.choice(list(TABLES))}")


def truth(project: TestProject) -> dict[tuple[str, str], Any]:
    """What SELECT shows, in the form of events."""
    found = {}
    for name in TABLES:
        fields = [*key_columns(name), *(["code"] if name == "indexed" else []), *COLUMNS]
        rows = project.execute(
            sql.SQL("SELECT to_jsonb(t), encode(blob, 'base64') FROM {} t").format(sql.Identifier(name)).as_string()
        )
        for row, blob in rows:
            row["blob"] = None if blob is None else blob.replace("\n", "")
            key = join_id_parts([str(row[each]) for each in key_columns(name)])
            found[name, key] = {each: row[each] for each in fields}
    return found


def published(project: TestProject, names: Sequence[str] = tuple(TABLES)) -> dict[tuple[str, str], Any]:
    last = [events[-1] for events in histories(project, names, major=2).values()]
    return {
        (event.identity.aggregate, event.identity.id_text): dict(event.after)
        for event in last
        if event.after is not None
    }


def wait_equal(project: TestProject) -> None:
    """Wait until the topics say what SELECT says; the source has to be quiet."""
    wanted = truth(project)
    try:
        wait_until(lambda: published(project) == wanted, "topics agree with SELECT", 40)
    except pytest.fail.Exception:
        found = published(project)
        wrong = [
            f"{each}: {str(wanted.get(each))[:300]} but {str(found.get(each))[:300]}"
            for each in wanted.keys() | found.keys()
            if wanted.get(each) != found.get(each)
        ]
        pytest.fail("\n".join(wrong[:5]))


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_row_image_gives_what_select_shows(tables: TestProject, workers: WorkerPool, seed: int) -> None:
    """Large values that no change touches, deletions without old image, changed keys, hostile keys, TRUNCATE."""
    change_randomly(tables, seed, 25)
    tables.apply()
    workers.start().wait_owned()
    change_randomly(tables, seed + 100, 25 if seed == 1 else 300)
    wait_equal(tables)
    assert {name for name, _ in published(tables)} == set(TABLES)
    with tables.connection.transaction():
        tables.execute("INSERT INTO plain (id) VALUES (998)")
        annotate(tables.connection, actor="ann", reason="why", traceparent=TRACE)
    with tables.connection.transaction(force_rollback=True):
        annotate(tables.connection, actor="nobody")
    tables.execute("INSERT INTO plain (id) VALUES (999)")
    with pytest.raises(ConfigurationError, match="no transaction to annotate"):
        annotate(tables.connection, actor="nobody")
    wait_equal(tables)
    told = {events[0].identity.id_text: events[0] for events in histories(tables, ("plain",), 2).values()}
    assert (told["998"].context, told["998"].traceparent) == ({"actor": "ann", "reason": "why"}, TRACE)
    assert (told["999"].context, told["999"].traceparent) == ({}, None)
    assert any("deleted" in str(event.kind) for events in histories(tables, TABLES, 2).values() for event in events)


UNFIT = {
    "has a deferrable primary key": "CREATE TABLE unfit (id int PRIMARY KEY DEFERRABLE)",
    "is inherited by public.heir": "CREATE TABLE unfit (id int PRIMARY KEY); CREATE TABLE heir () INHERITS (unfit)",
    "inherits from public.above": "CREATE TABLE above (id int); CREATE TABLE unfit (PRIMARY KEY (id)) INHERITS (above)",
    "is told apart by the generated column 'id'": (
        "CREATE TABLE unfit (one int, id int GENERATED ALWAYS AS (one + 1) STORED PRIMARY KEY)"
    ),
    "has a partition whose replica identity is an index": (
        "CREATE TABLE unfit (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE unfit_1 PARTITION OF unfit DEFAULT; ALTER TABLE unfit_1 REPLICA IDENTITY USING INDEX unfit_1_pkey"
    ),
    "has replica identity NOTHING": (
        "CREATE TABLE unfit (id int PRIMARY KEY); ALTER TABLE unfit REPLICA IDENTITY NOTHING"
    ),
    "has no primary key": "CREATE TABLE unfit (id int UNIQUE)",
}


def test_a_table_whose_rows_could_not_be_told_apart_is_refused(project: TestProject) -> None:
    """Named with what is wrong and what helps, before anything is touched."""
    project.source_path.write_text(
        f"source: {project.name}\ndatabase: {project.name}\naggregates:\n  unfit: {{table: public.unfit, id: id}}\n"
    )
    project.write_contract("unfit", (), {"id": {}})
    for message, statements in UNFIT.items():
        with project.connection.transaction(force_rollback=True):
            project.execute(statements)
            project.execute("SET LOCAL search_path = pg_catalog")
            catalogue = read_catalogue(project.connection, ["public.unfit"])
        found = [each for each, _ in table_misfits(catalogue.tables["public.unfit"], catalogue)]
        assert [each for each in found if each.startswith(message)], (message, found)


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_partitions_that_come_and_go_with_their_rows_are_made_up_for(tables: TestProject, workers: WorkerPool) -> None:
    """New partitions are captured at once; what the WAL does not say halts the type, and reading it anew tells."""
    tables.execute(
        "INSERT INTO parted (id, day)"
        " SELECT g, '2026-01-15'::timestamp + g * '1 day'::interval FROM generate_series(1, 300) g"
    )
    tables.apply()
    worker = workers.start()
    worker.wait_owned()
    tables.execute("CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')")
    tables.execute("INSERT INTO parted (id, day) SELECT g, '2027-01-15' FROM generate_series(1, 5) g")
    tables.execute("TRUNCATE parted")
    tables.execute("INSERT INTO parted (id, day) VALUES (1, '2026-02-01'), (2, '2026-08-01'), (3, '2027-02-01')")
    wait_equal(tables)

    tables.execute("CREATE TABLE brought (LIKE parted INCLUDING ALL)")
    tables.execute("INSERT INTO brought (id, day) VALUES (4, '2028-02-01')")
    tables.execute("ALTER TABLE parted ATTACH PARTITION brought FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')")
    tables.execute("ALTER TABLE parted DETACH PARTITION parted_1")
    tables.execute("TRUNCATE parted_2")
    told = "public.parted: 1 partitions were attached; public.parted: 1 partitions were detached"
    make_up(tables, worker, told)
    assert {id_text for name, id_text in published(tables) if name == "parted"} == {
        "3,2027-02-01T00%3A00%3A00",
        "4,2028-02-01T00%3A00%3A00",
    }


def make_up(
    tables: TestProject, worker: Worker, told: str, verb: Sequence[str] = ("recover", "--code", "PARTITIONS_CHANGED")
) -> None:
    """Wait for the halt, which the next beat brings, and for what *verb* makes of it."""
    hasten(tables)
    wait_until(lambda: b"PARTITIONS_CHANGED" in worker.log.read_bytes(), "the halt", 60)
    status = rowcast(tables, "sources", "status", tables.name).stdout
    assert told in status
    assert "aggregate type parted is halted" in status
    done = rowcast(tables, "sources", *verb, tables.name, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_equal(tables)


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_a_partition_that_is_truncated_by_its_own_name_is_made_up_for(tables: TestProject, workers: WorkerPool) -> None:
    """A TRUNCATE of the whole table is in the WAL, and stops nothing."""
    days = "SELECT g, '2026-01-15'::timestamp + g * '1 day'::interval FROM generate_series(1, 300) g"
    tables.execute(f"INSERT INTO parted (id, day) {days}")
    tables.apply()
    worker = workers.start()
    worker.wait_owned()
    wait_equal(tables)
    tables.execute("TRUNCATE parted")
    tables.execute(f"INSERT INTO parted (id, day) {days}")
    wait_equal(tables)
    tables.execute("SELECT pg_stat_force_next_flush()")  # the server may otherwise count the rows later
    wait_told(tables, "parted_2")
    tables.execute("VACUUM (FULL, ANALYZE) parted_2")
    wait_told(tables, "parted_2")
    assert b"PARTITIONS_CHANGED" not in worker.log.read_bytes()
    tables.execute("TRUNCATE parted_2")
    tables.execute(f"INSERT INTO parted (id, day) SELECT * FROM ({days}) d (id, day) WHERE day > '2026-09-01'")
    tables.execute("ANALYZE parted_2")
    make_up(tables, worker, "public.parted: 1 partitions were truncated by their own names")


def wait_told(tables: TestProject, partition: str) -> None:
    """Wait until the worker takes the file of *partition*, which is another than before, for what it has to be."""
    (node,) = tables.execute("SELECT pg_relation_filenode(%s)", partition).fetchone() or (0,)
    for what in (f'"{node}', f'"{node}/'):  # what was rewritten is told twice
        hasten(tables)
        wait_until(functools.partial(is_told, tables, what), f"a heartbeat that tells of {partition}'s file", 60)


def is_told(tables: TestProject, what: str) -> bool:
    with tables.control() as control:
        row = control.execute("SELECT heartbeat FROM rowcast.source WHERE source = %s", (tables.name,)).fetchone()
    return row is not None and what in str(row[0])


def hasten(tables: TestProject) -> None:
    """Let the next heartbeat be one that tells of partitions."""
    tables.execute("UPDATE rowcast.heartbeat SET counter = counter + 20 - counter % 20")


def attach_beside_the_slot(tables: TestProject) -> None:
    """Give `parted` one more partition, with rows, as soon as the source's slot is there."""
    url = tables.settings.database(tables.name).url
    with psycopg.connect(url, autocommit=True) as connection:
        slots = "SELECT FROM pg_replication_slots WHERE database = current_database()"
        wait_until(lambda: connection.execute(slots).fetchone() is not None, "the slot", 120)
        connection.execute("INSERT INTO brought (id, day) VALUES (5, '2028-02-02')")
        connection.execute(
            "ALTER TABLE parted ATTACH PARTITION brought FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')"
        )


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
def test_what_comes_with_a_partition_during_the_first_snapshot_is_made_up_for(
    tables: TestProject, workers: WorkerPool
) -> None:
    """A table with rows is attached when the slot is there, so that the snapshot is under way or about to begin."""
    days = "SELECT g, '2026-01-15'::timestamp + g * '1 day'::interval FROM generate_series(1, 300) g"
    tables.execute(f"INSERT INTO parted (id, day) {days}")
    tables.execute("INSERT INTO plain (id, note) SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 5000) g")
    tables.execute("CREATE TABLE brought (LIKE parted INCLUDING ALL)")
    tables.execute("INSERT INTO brought (id, day) VALUES (4, '2028-02-01')")
    attaching = threading.Thread(target=attach_beside_the_slot, args=[tables])
    attaching.start()
    worker = workers.start()
    tables.apply()
    attaching.join(60)
    worker.wait_owned()
    make_up(tables, worker, "public.parted: 1 partitions were attached", ["resnapshot"])


@pytest.mark.slow
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("step", [pytest.param("", marks=pytest.mark.matrix), "after_publish=kill@3"])
def test_a_large_transaction_keeps_what_changed_keys_leave_outside_the_wal(
    tables: TestProject, workers: WorkerPool, step: str
) -> None:
    """Also of keys that change twice, or come after a value that the transaction wrote, and when the worker dies."""
    large = ", ".join(f"{column} = {value.replace('%s', 'id')}" for column, value in LARGE.items())
    for name in ("plain", "indexed"):
        code = ", code" if name == "indexed" else ""
        tables.execute(f"INSERT INTO {name} (id{code}) SELECT g{code and ', g'} FROM generate_series(10, 40) g")
    tables.execute(f"UPDATE plain SET {large}")
    tables.execute("UPDATE indexed SET note = repeat(md5(id), 300), blob = repeat(id, 3000)::bytea")
    tables.apply()
    first = workers.start(f"sequencer.{step}" if step else "")
    first.wait_owned()
    wait_equal(tables)
    with tables.connection.transaction():
        tables.execute("INSERT INTO plain (id, note) SELECT g, 'n' || g FROM generate_series(100000, 103000) g")
        tables.execute(
            "DO $$ BEGIN FOR i IN 1..18000 LOOP UPDATE plain SET note = i::text WHERE id = 40; END LOOP; END $$"
        )
        tables.execute("UPDATE plain SET note = repeat('new', 3000) WHERE id BETWEEN 10 AND 14")
        tables.execute("UPDATE plain SET id = id + 90000 WHERE id BETWEEN 10 AND 30")
        tables.execute("UPDATE plain SET id = id - 60000 WHERE id BETWEEN 90012 AND 90020")
        tables.execute("UPDATE plain SET blob = NULL WHERE id BETWEEN 90021 AND 90025")
        tables.execute("UPDATE indexed SET id = id || 'x', code = 'c' || code")
        tables.execute("UPDATE indexed SET note = 'y' WHERE id < '2'")
    if step:
        assert first.wait_ended(60) == -9
        with tables.control() as control:
            (place,) = control.execute("SELECT sub_position FROM rowcast.source").fetchone() or ("",)
        assert "merging" in place, place
        assert "last" in place, "some of its rows are folded, and others are not"
        workers.start().wait_owned()
    wait_equal(tables)
    with tables.control() as control:
        assert control.execute("SELECT count(*) FROM rowcast.moved_row").fetchone() == (0,)
