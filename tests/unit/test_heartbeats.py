"""What heartbeats say to the worker: when the newest was, and which partitions there are."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from rowcast.errors import StopError
from stream_app.core.change import HEARTBEAT_PREFIX, Message
from stream_app.core.heartbeat import forget_catalogue, newest_heartbeat
from stream_app.core.partition import Capture
from stream_app.core.transaction import Transaction

AT = "2026-03-02T09:15:00Z"


def beat(**said: Any) -> Transaction:
    content = json.dumps({"source": "shop", "at": AT, **said}).encode()
    return Transaction(1, 1, 1, 1, (), (Message(HEARTBEAT_PREFIX, content, 1, 1, 1),))


def test_the_newest_of_the_source_counts() -> None:
    """Any role may emit messages: what is none, or another source's, is passed over."""
    strange = Transaction(1, 1, 1, 1, (), (Message(HEARTBEAT_PREFIX, b"[]", 1, 1, 1),))
    found = newest_heartbeat(
        "shop", None, [beat(counter=1), beat(counter=2), beat(source="other"), strange, beat(at="x")]
    )

    assert found == {"source": "shop", "at": AT, "counter": 2}
    assert newest_heartbeat("shop", found, []) == found
    assert newest_heartbeat("shop", None, [beat(partitions="many")]) == {"source": "shop", "at": AT}


def test_partitions_are_remembered_over_beats_that_say_nothing() -> None:
    """Also what is there already when the source is looked at for the first time."""
    first = newest_heartbeat("shop", None, [beat(partitions={"public.p": ["5", "6@99"]}), beat(partitions=None)])

    assert first is not None
    assert first["partitions"] == {"public.p": ["5", "6@99"]}
    assert newest_heartbeat("shop", first, [beat(partitions={"public.p": ["5", "6@99", "7"]})]) is not None
    assert newest_heartbeat("shop", forget_catalogue(first), [beat(partitions={})]) == {
        "source": "shop",
        "at": AT,
        "partitions": {},
    }


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"public.p": ["5", "6", "7@3"]}, "public.p: 1 partitions were attached"),
        ({"public.p": ["5"]}, "public.p: 1 partitions were detached or dropped"),
        ({}, "public.p: 2 partitions were detached or dropped"),
        ({"public.p": ["5", "6@4"]}, "public.p: 1 partitions were attached"),
        ({"public.p": ["5", "6"], "public.q": ["8@4"]}, "public.q: 1 partitions were attached"),
    ],
)
def test_rows_that_came_or_went_with_a_partition_stop_the_source(found: dict[str, list[str]], told: str) -> None:
    """Nothing of them is in the WAL. A partition that was detached and attached again counts, too."""
    former = {"at": AT, "partitions": {"public.p": ["5", "6"]}}
    with pytest.raises(StopError, match=told) as stopped:
        newest_heartbeat("shop", former, [beat(partitions=found)])

    assert stopped.value.code == "PARTITIONS_CHANGED"
    assert stopped.value.remedy == "rowcast sources resnapshot shop --yes"


FILES = {"public.p": {"5": "5/700/10/10/", "6": "6/700/-1/10/"}}
HELD = {"partitions": {"public.p": ["5", "6"]}, "files": FILES}
ROOT = frozenset({("public.p", 900)})


def files(**found: str) -> Transaction:
    now = {oid[1:]: file for oid, file in found.items()}
    return beat(partitions={"public.p": list(now)}, files={"public.p": now})


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize(
    ("found", "truncated"),
    [
        (files(_5="5/700/-1/0/", _6="70/900/-1/0/"), frozenset[tuple[str, int]]()),  # one by its own name
        (
            files(_5="5/700/-1/0/", _6="6/700/-1/0/", _7="70/900/-1/0/"),
            frozenset[tuple[str, int]](),
        ),  # one that has just been created
        (files(_5="70/900/-1/0/", _6="71/901/-1/0/"), ROOT),  # by its own name after all were
        (files(_5="70/900/-1/0/", _6="71/900/-1/0/"), frozenset({("public.q", 900)})),  # with another table
    ],
)
def test_a_partition_that_is_truncated_by_its_own_name_stops_the_source(
    found: Transaction, truncated: frozenset[tuple[str, int]]
) -> None:
    """It has another file, and no TRUNCATE of the whole table in the log explains it."""
    for former, capture in (
        ({"at": AT, **HELD}, Capture(truncated=truncated)),
        (None, Capture(HELD, truncated)),  # while the first snapshot was read
    ):
        with pytest.raises(StopError, match=r"public\.p: 1 partitions|public\.p: 2 partitions") as stopped:
            newest_heartbeat("shop", former, [beat(), found], capture)
        assert stopped.value.code == "PARTITIONS_CHANGED"


@pytest.mark.parametrize(
    ("found", "truncated"),
    [
        (files(_5="5/700/-1/0/", _6="6/700/-1/0/", _7="7/900/-1/0/"), frozenset[tuple[str, int]]()),  # a new one
        (files(_5="5/701/-1/0/", _6="6/700/-1/0/"), frozenset[tuple[str, int]]()),  # another owner, or other rights
        (files(_5="70/900/-1/0/", _6="71/900/-1/0/"), ROOT),
        (files(_5="70/904/-1/0/", _6="71/904/-1/0/"), ROOT),  # in a savepoint
    ],
)
def test_partitions_that_the_log_explains_go_on(found: Transaction, truncated: frozenset[tuple[str, int]]) -> None:
    """A TRUNCATE of the whole table is in the log, and remembered until partitions are told again."""
    for former, capture in (
        ({"at": AT, **HELD}, Capture(truncated=truncated)),
        (None, Capture(HELD, truncated)),
    ):
        between = newest_heartbeat("shop", former, [beat()], capture)
        found_later = newest_heartbeat("shop", between, [found], capture._replace(truncated=frozenset()))

        assert found_later is not None
        assert "truncated" not in found_later


def test_what_was_never_told_of_files_is_not_missed() -> None:
    """A position that an older version wrote has partitions alone."""
    former = {"at": AT, "partitions": {"public.p": ["5", "6"]}}
    assert newest_heartbeat("shop", former, [files(_5="70/900/-1/0/", _6="6/700/-1/0/")]) is not None


@pytest.mark.parametrize(
    "now",
    [
        "60/900/10/10/",  # VACUUM FULL, CLUSTER, a column with a default for each row
        "60/900/30/30/",  # after rows had come
        "60/900/0/0/",  # nothing was ever in it
    ],
)
def test_a_partition_that_was_rewritten_with_its_rows_goes_on(now: str) -> None:
    """More rows are counted than were inserted since, twice: the server's counters may be late."""
    inserted = now.split("/")[3]
    kept = {"partitions": {"public.p": ["6"]}, "files": {"public.p": {"6": f"6/700/-1/{inserted}/"}}}
    first = newest_heartbeat("shop", {"at": AT, **kept}, [files(_6=now)])
    second = newest_heartbeat("shop", first, [beat(), files(_6=now)])
    third = newest_heartbeat("shop", second, [files(_6=now)])

    assert first is not None
    assert first["files"] == kept["files"]
    assert third is not None
    assert third["files"] == {"public.p": {"6": now}}
    assert "rewritten" not in third


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize(
    "now",
    [
        "60/900/-1/10/",  # TRUNCATE
        "60/900/0/10/",  # TRUNCATE, ANALYZE
        "60/900/50/60/",  # TRUNCATE, INSERT, ANALYZE or CLUSTER
        "60/900/55/60/",  # estimated by ANALYZE
        "60/900/-1/60/",  # TRUNCATE, INSERT, REINDEX: the count is the index's
        "60/900/30/10/1767000000.5",  # analyzed, and the server tells late what was inserted
        "60/900/30/5/",  # the counters began anew
    ],
)
def test_a_partition_that_may_have_lost_rows_stops_the_source(now: str) -> None:
    """Whenever it is not certain that rows of before are still there, also when it is told late."""
    former = {"at": AT, "partitions": {"public.p": ["6"]}, "files": {"public.p": {"6": "6/700/30/10/"}}}
    late = files(_6="60/900/50/10/")
    for transactions in ([files(_6=now)], [late, files(_6=now)]):
        with pytest.raises(StopError, match=r"1 partitions were truncated") as stopped:
            newest_heartbeat("shop", former, transactions)
        assert stopped.value.code == "PARTITIONS_CHANGED"


@pytest.mark.guarantee("Nothing committed is lost")
def test_another_server_stops_the_source() -> None:
    """A promoted one goes on when who knows it has resumed the source; a new snapshot begins with what there is."""
    former = newest_heartbeat("shop", None, [beat(system_identifier="1", timeline=1)])
    assert newest_heartbeat("shop", former, [beat(system_identifier="1", timeline=1), beat()]) is not None
    for found, code in ((beat(system_identifier="2"), "DATABASE_REPLACED"), (beat(timeline=2), "DATABASE_PROMOTED")):
        with pytest.raises(StopError) as stopped:
            newest_heartbeat("shop", former, [found])
        assert stopped.value.code == code
        assert newest_heartbeat("shop", forget_catalogue(former), [found]) is not None
    resumed = Capture(resumed=datetime.fromisoformat(AT))
    passed = newest_heartbeat("shop", former, [beat(system_identifier="1", timeline=2)], resumed)
    assert passed is not None
    assert newest_heartbeat("shop", passed, [beat(system_identifier="1", timeline=2)]) == passed
