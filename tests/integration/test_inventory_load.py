"""The live load against a real PostgreSQL: its own log leads from the first to the last state of every row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from stack_fixture import SharedStack

from examples.inventory import catalogue
from examples.inventory.ledger import CommittedTransaction, Ledger
from examples.inventory.load import LiveLoad, LoadError, LoadPlan
from examples.inventory.published import Key, State, read_all_states
from examples.inventory.transactions import KINDS
from examples.main_job.expectation import expected_events, final_states


@pytest.fixture
def inventory(stack: SharedStack) -> Iterator[psycopg.Connection]:
    """A database with a catalogue of 120 titles."""
    with psycopg.connect(stack.new_database("load").url, autocommit=True) as connection:
        catalogue.create_schema(connection)
        catalogue.load(connection, catalogue.generate(120, 1))
        yield connection


def url_of(connection: psycopg.Connection) -> str:
    """How to open another connection to the same database."""
    return f"{connection.info.dsn} password={connection.info.password}"


def drive(
    connection: psycopg.Connection, folder: Path, plan: LoadPlan
) -> tuple[dict[Key, State], list[CommittedTransaction], int]:
    """The states before the load, its log, and how many it rolled back."""
    initial = read_all_states(connection)
    with Ledger(folder / "committed.jsonl", initial) as ledger:
        load = LiveLoad(url_of(connection), plan, ledger, initial)
        load.start()
        while not load.wait(60):
            pytest.fail("the load does not end")
        return initial, ledger.transactions(), ledger.rolled_back


@pytest.mark.parametrize("seed", [1, 2])
def test_log_leads_to_the_final_rows(inventory: psycopg.Connection, tmp_path: Path, seed: int) -> None:
    """After moves, deletes, rollbacks and savepoints the log tells exactly what the tables hold."""
    plan = LoadPlan(rate=400, seconds=2, seed=seed)

    initial, log, rolled_back = drive(inventory, tmp_path, plan)

    assert final_states(initial, log) == read_all_states(inventory)
    assert len(log) + rolled_back == plan.total
    assert {entry.kind for entry in log} == {kind.__name__ for kind in KINDS}
    assert 0.04 < rolled_back / plan.total < 0.2
    assert any(entry.context for entry in log)
    assert len({entry.xid for entry in log}) == len(log)


def test_kinds_that_publish_nothing_are_expected_to_publish_nothing(
    inventory: psycopg.Connection, tmp_path: Path
) -> None:
    """Rewrites, private columns and changes that are taken back change rows but expect no event."""
    initial, log, _ = drive(inventory, tmp_path, LoadPlan(rate=400, seconds=2, seed=3))

    quiet = {"rewrite", "update_private", "change_and_change_back"}
    speaking = {event.transaction.kind for events in expected_events(initial, log).values() for event in events}
    assert quiet.isdisjoint(speaking)
    assert all(entry.changes > 0 for entry in log)


def test_moved_holdings_take_their_items_along(inventory: psycopg.Connection, tmp_path: Path) -> None:
    """A transaction that moves holdings expects an event for each of their items, whose row it never wrote."""
    initial, log, _ = drive(inventory, tmp_path, LoadPlan(rate=400, seconds=2, seed=4))

    moved = [
        (event, key)
        for key, events in expected_events(initial, log).items()
        for event in events
        if event.transaction.kind == "move_holdings" and key.aggregate == "item"
    ]
    assert moved
    for event, _ in moved:
        assert event.former.after == event.state.after
        assert event.former.ancestors["holdings"] == event.state.ancestors["holdings"]
        assert event.former.ancestors["instance"] != event.state.ancestors["instance"]


def test_catalogue_is_loaded_once(inventory: psycopg.Connection) -> None:
    """A database that holds a catalogue is left as it is."""
    before = read_all_states(inventory)

    assert catalogue.load(inventory, catalogue.generate(50, 9)) == catalogue.count(inventory)
    assert read_all_states(inventory) == before


def test_failing_client_breaks_off_the_load(inventory: psycopg.Connection, tmp_path: Path) -> None:
    """When a statement fails, the truth is no longer certain: the load says so instead of going on."""
    initial = read_all_states(inventory)
    inventory.execute("ALTER TABLE public.item DROP COLUMN last_borrower")

    with Ledger(tmp_path / "committed.jsonl", initial) as ledger:
        load = LiveLoad(url_of(inventory), LoadPlan(rate=200, seconds=5, seed=1), ledger, initial)
        load.start()
        with pytest.raises(LoadError, match="last_borrower"):
            load.wait(60)
