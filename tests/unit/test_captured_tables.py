"""What heartbeats tell of captured tables and their publication, and which of it stops the source."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
import pytest

from rowcast.errors import StopError
from rowcast.sources.definition import ColumnDefinition, TableDefinition
from stream_app.core.change import HEARTBEAT_PREFIX, Message
from stream_app.core.defect import TableDefectError
from stream_app.core.heartbeat import forget_catalogue, forget_tables, newest_heartbeat
from stream_app.core.partition import Capture
from stream_app.core.transaction import Transaction

AT = "2026-03-02T09:15:00Z"
TYPES = {"id": "integer", "name": "character varying(20)", "price": "numeric(6,2)", "at": "timestamp with time zone"}
COLUMNS = tuple(ColumnDefinition(name=name, type=kind, nullable=False) for name, kind in TYPES.items())
CUSTOMER = TableDefinition(name="public.customer", columns=COLUMNS, key=("id",), replica_identity="d")
CAPTURE = Capture(tables={CUSTOMER.name: CUSTOMER})


def beat(lacks: Any = None, **told: Any) -> Transaction:
    captured = {
        "of": "a1",
        "is": "b1",
        "publication": "7",
        "operations": True,
        **told,
        "lacks": {} if lacks is None else {"public.customer": lacks},
    }
    content = orjson.dumps(
        {"source": "shop", "at": AT, "captured": {name: each for name, each in captured.items() if each is not None}}
    )
    return Transaction(1, 1, 1, 1, (), (Message(HEARTBEAT_PREFIX, content, 1, 1, 1),))


FIRST = newest_heartbeat("shop", None, [beat()], CAPTURE)


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.parametrize(
    ("found", "code", "message"),
    [
        (beat({"columns": {"name": ""}}), "COLUMN_CHANGED", "public.customer: column 'name' is gone"),
        (
            beat({"columns": {"at": "timestamp without time zone"}}),
            "COLUMN_CHANGED",
            "public.customer: column 'at' is of type timestamp without time zone, was timestamp with time zone",
        ),
        (beat({"columns": {"price": "numeric(6,1)"}}), "COLUMN_CHANGED", "public.customer: column 'price' is of"),
        (beat({"columns": {"name": "character varying(20)[]"}}), "COLUMN_CHANGED", "public.customer: column 'name'"),
        (beat(**{"is": "b2"}), "COLUMN_CHANGED", "a captured table or column was dropped, and made anew"),
        (beat({"table": "gone"}), "TABLE_MISSING", "public.customer: captured, but not in the database any more"),
        (beat({"identity": "n"}), "REPLICA_IDENTITY_WEAK", "public.customer: its replica identity is NOTHING"),
        (beat({"identity": "di"}), "REPLICA_IDENTITY_WEAK", "public.customer: its replica identity is DEFAULT, and no"),
        (beat({"unpublished": []}), "PUBLICATION_INCOMPLETE", "the publication lacks public.customer, or some of"),
        (beat({"unpublished": ["at"]}), "PUBLICATION_INCOMPLETE", "the publication lacks columns at of"),
        (beat(operations=False), "PUBLICATION_INCOMPLETE", "the publication does not publish every operation"),
        (beat({"unpublished": []}, publication=None), "PUBLICATION_MISSING", "the publication was dropped"),
        (beat(publication="8"), "PUBLICATION_RECREATED", "the publication was dropped, and made anew"),
    ],
)
def test_a_table_that_is_not_as_it_was_applied_stops_the_source(found: Transaction, code: str, message: str) -> None:
    """With what is the case; nothing is passed by resuming but what loses nothing."""
    with pytest.raises(StopError) as stopped:
        newest_heartbeat("shop", FIRST, [found], CAPTURE)
    assert (stopped.value.code, stopped.value.message[: len(message)]) == (code, message)
    resumed = CAPTURE._replace(resumed=datetime.fromisoformat(AT))
    if code == "REPLICA_IDENTITY_WEAK":
        assert stopped.value.remedy.endswith("then rowcast sources resume shop")
        assert newest_heartbeat("shop", FIRST, [found], resumed) is not None
        return
    assert stopped.value.remedy.endswith("then rowcast sources resnapshot shop --yes")
    with pytest.raises(StopError):
        newest_heartbeat("shop", FIRST, [found], resumed)


@pytest.mark.parametrize(
    "found",
    [
        beat({"columns": {"name": "text"}}),
        beat({"columns": {"name": "character varying(40)", "id": "bigint", "price": "numeric(12,2)"}}),
        beat({"columns": {"other": ""}, "unpublished": ["other"]}),  # its mapping was taken out since
        beat(of="a2", **{"is": "b2"}),  # another definition was applied
        Transaction(1, 1, 1, 1, (), (Message(HEARTBEAT_PREFIX, b'{"source":"shop","at":"2026-03-02"}', 1, 1, 1),)),
    ],
)
def test_ordinary_changes_go_on(found: Transaction) -> None:
    """What is published stays as it is, or was applied."""
    assert newest_heartbeat("shop", FIRST, [found], CAPTURE) is not None


@pytest.mark.guarantee("Nothing committed is lost")
def test_a_change_during_the_first_snapshot_is_found() -> None:
    """Against what was noted before it; a new snapshot begins from what there is then."""
    begun = CAPTURE._replace(begun=FIRST)
    assert newest_heartbeat("shop", None, [beat()], begun) == FIRST
    with pytest.raises(StopError, match="made anew"):
        newest_heartbeat("shop", forget_catalogue(FIRST), [beat(**{"is": "b2"})], begun)


def test_a_definition_without_tables_to_compare_goes_on() -> None:
    """A heartbeat of a table that is not captured any more."""
    assert newest_heartbeat("shop", FIRST, [beat({"table": "gone"})], Capture()) == FIRST


@pytest.mark.guarantee("Nothing committed is lost")
def test_what_was_made_anew_is_told_by_its_table() -> None:
    """Where the heartbeat knows; of tables whose types are halted nothing is asked, nor of what a resync has read."""
    first = newest_heartbeat("shop", None, [beat(**{"is": {"public.customer": "b1"}})], CAPTURE)
    assert first is not None
    anew = beat(**{"is": {"public.customer": "b2"}})
    with pytest.raises(TableDefectError) as stopped:
        newest_heartbeat("shop", first, [anew], CAPTURE)
    assert [(each.code, each.table) for each in stopped.value.defects] == [("COLUMN_CHANGED", CUSTOMER.name)]

    halted = CAPTURE._replace(halted=frozenset({CUSTOMER.name}))
    for found in (anew, beat({"columns": {"name": ""}}), beat(**{"is": "b2"})):
        assert newest_heartbeat("shop", first, [found], halted) is not None
    assert newest_heartbeat("shop", FIRST, [beat(**{"is": "b2"})], halted) is not None
    read = forget_tables(first, [CUSTOMER.name], {"captured": {"is": {"public.customer": "b2"}}})
    assert newest_heartbeat("shop", read, [anew], CAPTURE) is not None
    with pytest.raises(TableDefectError):
        newest_heartbeat("shop", read, [beat(**{"is": {"public.customer": "b3"}})], CAPTURE)


def test_defects_of_several_tables_are_told_together() -> None:
    """What is wrong with all of them stops the source, whatever is wrong with one."""
    with pytest.raises(TableDefectError) as found:
        newest_heartbeat("shop", FIRST, [beat({"identity": "n", "unpublished": [], "columns": {"at": ""}})], CAPTURE)
    codes = [each.code for each in found.value.defects]
    assert codes == ["PUBLICATION_INCOMPLETE", "COLUMN_CHANGED", "REPLICA_IDENTITY_WEAK"]
    with pytest.raises(StopError) as stopped:
        newest_heartbeat("shop", FIRST, [beat({"columns": {"at": ""}}, operations=False)], CAPTURE)
    assert not isinstance(stopped.value, TableDefectError)
