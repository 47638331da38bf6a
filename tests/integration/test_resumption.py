"""
The connector goes on from a place between changes that share an LSN, or behind a BEGIN.

Where it had stored its place when it died cannot be chosen, so it is written here: Kafka Connect lets a stopped
connector's place be changed, and a copy of the slot still has what the connector has confirmed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
import pytest
import requests
from confluent_kafka import Producer
from kafka.admin import NewTopic
from stack_fixture import TestProject, wait_until
from worker_fixture import WorkerPool, histories, rowcast

from rowcast.sources.connector import connector_name, slot_name
from rowcast.topics import change_log_topic

LAST = 9_000
# More than a page of them.
COPIED = 600


@pytest.fixture
def things(project: TestProject) -> TestProject:
    """A project with one table, captured, and two rows of before."""
    project.source_path.write_text(
        f"source: {project.name}\ndatabase: {project.name}\ntopics: {{partitions: 3}}\n"
        "aggregates: {thing: {table: public.thing, id: id}}\n"
    )
    project.execute("CREATE TABLE thing (id integer PRIMARY KEY, note text)")
    project.write_contract("thing", (), {"id": {}, "note": {}})
    project.apply()
    insert(project, 1)
    insert(project, 2)
    return project


def insert(project: TestProject, number: int) -> None:
    project.execute("INSERT INTO thing VALUES (%s, 'first')", number)


def copy_rows(project: TestProject, numbers: Sequence[int]) -> None:
    """One transaction in which nothing else happens."""
    with project.connection.transaction(), project.connection.cursor().copy("COPY thing FROM STDIN") as copy:
        for number in numbers:
            copy.write_row((number, "copied"))


def change_key(project: TestProject) -> None:
    with project.connection.transaction():
        project.execute("UPDATE thing SET id = 11 WHERE id = 1")
        project.execute("UPDATE thing SET note = 'changed' WHERE id = 2")


def changes_of(log: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """The rows of the transaction that created *number*, in order."""
    rows = [each for each in log if each.get("transaction") and each["op"] != "m"]
    (made,) = [each for each in rows if each["op"] == "c" and each["after"]["id"] == number]
    xid = made["source"]["txId"]
    return [each for each in rows if each["source"]["txId"] == xid]


def has(number: int) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether a change log has the row *number*."""
    return lambda log: any((each.get("after") or {}).get("id") == number for each in log if each.get("transaction"))


@dataclass
class Connector:
    """The connector of a project, which can be set back."""

    project: TestProject

    @property
    def _url(self) -> str:
        return f"{self.project.stack.connect_url}/connectors/{connector_name(self.project.name)}"

    @property
    def _kept(self) -> str:
        return f"kept_{self.project.name}"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what the slot has from now on."""
        self._copy_slot(slot_name(self.project.name), self._kept)
        try:
            yield
        finally:
            self.project.execute("SELECT pg_drop_replication_slot(%s)", self._kept)

    def stop(self) -> None:
        """Wait until nothing of it runs."""
        requests.put(f"{self._url}/stop", timeout=30).raise_for_status()
        wait_until(lambda: not requests.get(f"{self._url}/status", timeout=30).json()["tasks"], "it is stopped")

    def resume_behind(self, log: Sequence[dict[str, Any]], sent: Sequence[dict[str, Any]]) -> None:
        """Go on as if *sent*, the first changes of a transaction in *log*, was the last that was stored."""
        last = sent[-1]["source"]
        ends = [int(each["id"].split(":")[1]) for each in log if each.get("status") == "END"]
        message = "UPDATE" if sent[-1]["op"] == "d" else "INSERT"  # a changed key is one message
        events = 1 if message == "UPDATE" else sum(each["source"]["lsn"] == last["lsn"] for each in sent)
        place = {
            "transaction_id": str(last["txId"]),
            "transaction_data_collection_order_public.thing": len(sent),
            "txId": last["txId"],
            "lsn": last["lsn"],
            "lsn_proc": last["lsn"],
            "lsn_commit": max(each for each in ends if each <= sent[0]["source"]["lsn"]),
            "lsn_events_processed": events,
            "messageType": message,
            "ts_usec": last["ts_us"],
        }
        self._resume(place)

    def resume_behind_begin(self, begin: dict[str, Any], commit_lsn: int) -> None:
        """Go on as if *begin* was the last that was stored, and the transaction before it committed at *commit_lsn*."""
        xid, lsn = begin["id"].split(":")
        place = {"transaction_id": xid, "txId": int(xid), "lsn": int(lsn), "messageType": "BEGIN"}
        self._resume({**place, "lsn_proc": commit_lsn, "lsn_commit": commit_lsn, "ts_usec": begin["ts_ms"] * 1000})

    def _resume(self, place: dict[str, Any]) -> None:
        wait_until(self._drop_slot, "the slot is free")
        self._copy_slot(self._kept, slot_name(self.project.name))
        offsets = [{"partition": {"server": self.project.name}, "offset": place}]
        requests.patch(f"{self._url}/offsets", json={"offsets": offsets}, timeout=30).raise_for_status()
        requests.put(f"{self._url}/resume", timeout=30).raise_for_status()

    def _copy_slot(self, old: str, new: str) -> None:
        self.project.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", old, new)

    def _drop_slot(self) -> bool:
        try:
            self.project.execute("SELECT pg_drop_replication_slot(%s)", slot_name(self.project.name))
        except psycopg.errors.ObjectInUse:
            return False
        return True


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize(
    ("change", "made", "sent"),
    [
        pytest.param(lambda project: copy_rows(project, range(20, 25)), 20, 1, id="first row of a COPY"),
        pytest.param(lambda project: copy_rows(project, range(20, 25)), 20, 3, id="third row of a COPY"),
        pytest.param(change_key, 11, 1, id="first half of a changed key"),
    ],
)
def test_a_transaction_that_is_sent_again_from_its_middle_is_known(
    things: TestProject, workers: WorkerPool, change: Callable[[TestProject], None], made: int, sent: int
) -> None:
    """Debezium counts its changes otherwise then than it did before."""
    workers.start().wait_owned()
    connector = Connector(things)
    things.change_log(has(2))
    with connector.kept():
        change(things)
        insert(things, LAST - 1)
        log = things.change_log(has(LAST - 1))
        wait_until(lambda: f"{things.name}/thing/{LAST - 1}" in published(things), "all of it is published")
        connector.stop()
        mine = changes_of(log, made)
        connector.resume_behind(log, mine[:sent])
        insert(things, LAST)
        wait_until(lambda: f"{things.name}/thing/{LAST}" in published(things), "the source goes on")
    again = things.change_log(has(LAST))
    ends = [each["event_count"] for each in again if str(each.get("id")).startswith(f"{mine[0]['source']['txId']}:")]
    assert len(set(ends[1:])) == 2, "it was sent again, and counted otherwise"
    assert published(things) == source_rows(things)


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("more", [pytest.param(0, id="delivered once"), pytest.param(1, id="sent again")])
def test_rows_that_the_connector_leaves_out_are_not_passed_over(
    things: TestProject, workers: WorkerPool, more: int
) -> None:
    """
    It goes on behind the first row of a COPY's second page: the source stops, and its recovery finds the rest.

    With exactly-once source this row was the last that was sent; without it, *more* may have been.
    """
    connector = Connector(things)
    things.change_log(has(2))
    with connector.kept():
        copy_rows(things, range(20, 20 + COPIED))
        log = things.change_log(has(19 + COPIED))
        connector.stop()
        mine = changes_of(log, 20)
        second = page_after(mine, 0)
        cut_log(things, log, mine[second + more])
        connector.resume_behind(log, mine[: second + 1])
        insert(things, LAST)
        things.change_log(has(LAST))
    workers.start().wait_owned()
    stops_and_recovers(things, "COPY")
    wait_until(lambda: published(things) == source_rows(things), "topics agree with the source", 60)


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("close", [True, False], ids=["written right behind the COMMIT", "written later"])
def test_changes_left_out_behind_a_begin_are_not_passed_over(
    things: TestProject, workers: WorkerPool, *, close: bool
) -> None:
    """
    It goes on behind the BEGIN of a transaction that another one was committed beside.

    Debezium takes what was written right behind that COMMIT for the COMMIT itself, and leaves out all before it: the
    source stops, and its recovery finds that. Where nothing was written there, nothing is left out.
    """
    connector = Connector(things)
    things.change_log(has(2))
    with connector.kept():
        firsts = write_beside(things, close=close)
        log = things.change_log(has(firsts[-1] + 2))
        beside = {each: committed_beside(log, each) for each in firsts}
        first, commit_lsn = next((each, lsn) for each, (lsn, second) in beside.items() if (lsn == second) == close)
        connector.stop()
        xid = changes_of(log, first)[0]["source"]["txId"]
        (begin,) = [each for each in log if each.get("status") == "BEGIN" and is_of(each, xid)]
        cut_log(things, log, begin)
        connector.resume_behind_begin(begin, commit_lsn)
        insert(things, LAST)
        again = things.change_log(has(LAST))
    workers.start().wait_owned()
    if close:
        assert not has(first)(again), "it was left out"
        stops_and_recovers(things, "BEGIN")
    wait_until(lambda: published(things) == source_rows(things), "topics agree with the source", 60)
    assert not stopped(things)


def write_beside(project: TestProject, *, close: bool) -> list[int]:
    """
    Transactions that each write two rows, another being committed between these; the numbers of their first rows.

    *close*: the second row is written where that COMMIT ends in the WAL, if the server writes nothing of its own there.
    """
    project.execute("CREATE TABLE beside (id integer)")
    firsts = [100 * number for number in range(1, 11)]
    with psycopg.connect(project.settings.database(project.name).url) as one:
        for first in firsts:
            one.execute("INSERT INTO thing VALUES (%s, 'first')", (first,))
            insert(project, first + 1)
            if not close:
                project.execute("INSERT INTO beside VALUES (1)")
            one.execute("INSERT INTO thing VALUES (%s, 'second')", (first + 2,))
            one.commit()
    return firsts


def committed_beside(log: Sequence[dict[str, Any]], first: int) -> tuple[int, int]:
    """The LSN of the COMMIT beside the transaction that wrote *first*, and that of its second row."""
    xid = changes_of(log, first + 1)[0]["source"]["txId"]
    (lsn,) = [int(each["id"].split(":")[1]) for each in log if each.get("status") == "END" and is_of(each, xid)]
    return lsn, changes_of(log, first)[1]["source"]["lsn"]


def is_of(boundary: dict[str, Any], xid: int) -> bool:
    """Whether this is the BEGIN or END of the transaction *xid*."""
    return str(boundary["id"]).startswith(f"{xid}:")


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize("keyed", [False, True], ids=["rows of a COPY", "second half of a changed key"])
def test_what_the_connector_leaves_out_when_it_sends_again_is_known(
    things: TestProject, workers: WorkerPool, *, keyed: bool
) -> None:
    """Without exactly-once source it had sent more than it had stored; what follows has other numbers."""
    connector = Connector(things)
    things.change_log(has(2))
    with connector.kept():
        if keyed:
            change_key(things)
        else:
            copy_rows(things, range(20, 20 + COPIED))
        insert(things, LAST - 1)
        log = things.change_log(has(LAST - 1))
        connector.stop()
        mine = changes_of(log, 11 if keyed else 20)
        stored = 0 if keyed else page_after(mine, 0)
        cut_log(things, log, mine[page_after(mine, stored)])
        connector.resume_behind(log, mine[: stored + 1])
        insert(things, LAST)
        again = things.change_log(has(LAST))
    ends = [each["event_count"] for each in again if str(each.get("id")).startswith(f"{mine[0]['source']['txId']}:")]
    assert ends[-1] < len(mine), "some were left out"
    workers.start().wait_owned()
    wait_until(lambda: published(things) == source_rows(things), "topics agree with the source", 60)
    assert not stopped(things)


def page_after(changes: Sequence[dict[str, Any]], place: int) -> int:
    """Where the LSN of the change at *place* ends."""
    lsn = changes[place]["source"]["lsn"]
    return next(n for n, each in enumerate(changes) if n > place and each["source"]["lsn"] != lsn)


def cut_log(project: TestProject, log: Sequence[dict[str, Any]], last: dict[str, Any]) -> None:
    """Leave of the change log what was sent up to the change *last*."""
    topic = change_log_topic(project.name)
    admin = project.admin()
    try:
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), "the topic is gone")
        admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        admin.close()
    producer = Producer({"bootstrap.servers": project.stack.brokers})
    for each in log[: log.index(last) + 1]:
        producer.produce(topic, orjson.dumps(each), partition=0)
    assert producer.flush(30) == 0


def stops_and_recovers(project: TestProject, where: str) -> None:
    """The source stops and says *where* changes are missing; its recovery is done."""
    told = wait_until(lambda: stopped(project), "the source stops")
    assert "INCOMPLETE_TRANSACTION" in told
    assert where in told
    done = rowcast(project, "sources", "recover", project.name, "--code", "INCOMPLETE_TRANSACTION", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


def stopped(project: TestProject) -> str:
    """What the source has stopped with."""
    with project.control() as control:
        row = control.execute("SELECT stopped_code || ': ' || stopped_detail FROM rowcast.source").fetchone()
    return str(row[0]) if row and row[0] else ""


def published(project: TestProject) -> dict[str, Any]:
    """What the topics say there is, by identity."""
    last = {name: events[-1].after for name, events in histories(project, ["thing"], 2).items()}
    return {name: after["note"] for name, after in last.items() if after is not None}


def source_rows(project: TestProject) -> dict[str, Any]:
    """What the source says there is."""
    return {f"{project.name}/thing/{number}": note for number, note in project.execute("SELECT id, note FROM thing")}
