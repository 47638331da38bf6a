"""The generated catalogue and the plan of the live load: seeded, realistic, nested as libraries are."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from random import Random
from uuid import UUID

import orjson
import pytest
from jsonschema import Draft202012Validator

from examples.inventory import catalogue
from examples.inventory.forest import Forest
from examples.inventory.ledger import CommittedTransaction, Ledger
from examples.inventory.load import LoadPlan
from examples.inventory.published import COLUMNS, GONE, Key, State, json_form
from examples.inventory.transactions import KINDS
from examples.main_job.expectation import expected_events, final_states
from examples.main_job.latency import commit_to_applied_ms, percentile

SCHEMAS = Path(__file__).parents[2] / "schemas" / "inventory"


def test_same_seed_gives_the_same_catalogue() -> None:
    """Seed and size decide every value; another seed gives other rows."""
    first, again, other = (list(catalogue.generate(100, seed)) for seed in (4, 4, 5))

    assert first == again
    assert first != other


def test_catalogue_has_the_declared_shape() -> None:
    """Each title has one to three holdings, each holdings none to four items, parents before children."""
    rows = list(catalogue.generate(300, 1))
    seen: set[UUID] = set()
    holdings: Counter[UUID] = Counter()
    items: Counter[UUID] = Counter()
    for row in rows:
        if row.table == "holdings":
            assert row.columns["instance_id"] in seen
            holdings[row.columns["instance_id"]] += 1
        elif row.table == "item":
            assert row.columns["holdings_id"] in seen
            items[row.columns["holdings_id"]] += 1
        seen.add(row.columns["id"])

    assert len(seen) == len(rows)
    assert len(holdings) == 300
    assert set(holdings.values()) == {1, 2, 3}
    assert {items[row.columns["id"]] for row in rows if row.table == "holdings"} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("aggregate", COLUMNS)
def test_every_generated_row_is_valid_against_its_contract(aggregate: str) -> None:
    """The generator knows no value that the published contract refuses, and publishes exactly its properties."""
    schema = orjson.loads((SCHEMAS / aggregate / "v1.0.json").read_bytes())
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)

    assert set(COLUMNS[aggregate]) == set(schema["properties"])
    for row in catalogue.generate(150, 2):
        if row.table == aggregate:
            validator.validate({name: json_form(row.columns[name]) for name in COLUMNS[aggregate]})


def test_some_titles_are_stored_out_of_line() -> None:
    """A few contributor lists are too large for their row, as PostgreSQL's TOAST wants them."""
    sizes = [
        len(orjson.dumps(row.columns["contributors"])) for row in catalogue.generate(600, 1) if row.table == "instance"
    ]

    assert 1 <= sum(size > 8_000 for size in sizes) <= 60


def test_same_seed_draws_the_same_kinds_of_transactions() -> None:
    """The kind of transaction number k depends on seed and k alone, and every kind comes up."""
    plan, again, other = (LoadPlan(rate=100, seconds=20, seed=seed) for seed in (1, 1, 2))

    def kinds(drawn: LoadPlan) -> list[str]:
        return [drawn.draw(number).choices(list(KINDS), list(KINDS.values()))[0].__name__ for number in range(2_000)]

    assert kinds(plan) == kinds(again)
    assert kinds(plan) != kinds(other)
    assert set(kinds(plan)) == {kind.__name__ for kind in KINDS}


def a_transaction(ticket: int, **states: State) -> CommittedTransaction:
    """A committed transaction that left items in these states."""
    keyed = {Key("item", name): state for name, state in states.items()}
    return CommittedTransaction(
        ticket=ticket, kind="test", xid=str(ticket), committed_at=float(ticket), changes=1, context=None, states=keyed
    )


def item(status: str, holdings: str = "h1") -> State:
    """An item that is nothing but its status and place."""
    return State({"status": status}, {"holdings": [holdings], "instance": ["i1"]})


def test_expected_events_are_the_changes_of_published_state() -> None:
    """One event per aggregate per transaction that changed it; none for rewrites and for what was never seen."""
    initial = {Key("item", "a"): item("old")}
    log = [
        a_transaction(3, a=item("new", "h2")),
        a_transaction(1, a=item("old"), ghost=GONE),
        a_transaction(2, a=item("new")),
        a_transaction(4, a=GONE, b=item("fresh")),
    ]

    events = expected_events(initial, log)

    assert [(event.kind, event.transaction.ticket) for event in events[Key("item", "a")]] == [
        ("updated", 2),
        ("updated", 3),
        ("deleted", 4),
    ]
    assert [event.kind for event in events[Key("item", "b")]] == ["created"]
    assert Key("item", "ghost") not in events
    assert final_states(initial, log) == {Key("item", "b"): item("fresh")}


def test_ledger_counts_expected_events_and_writes_every_transaction(tmp_path: Path) -> None:
    """The running count equals the expectation, and the file holds one line a transaction."""
    log = [a_transaction(1, a=item("x")), a_transaction(2, a=item("x")), a_transaction(3, a=GONE, b=item("y"))]
    with Ledger(tmp_path / "committed.jsonl", {}) as ledger:
        for entry in log:
            ledger.record(entry)

        assert ledger.expected_events == sum(map(len, expected_events({}, log).values())) == 3
        assert ledger.transactions() == log
        assert ledger.waiting_since(0) == 1.0
        assert ledger.waiting_since(1) == 3.0
        assert ledger.waiting_since(3) is None
    lines = [orjson.loads(line) for line in (tmp_path / "committed.jsonl").read_bytes().splitlines()]
    assert [line["ticket"] for line in lines] == [1, 2, 3]
    assert lines[2]["states"][0] == {"aggregate": "item", "id": "a", "after": None, "ancestors": {}}


def test_forest_follows_moves_and_deletes() -> None:
    """The owner's picture of its trees is what its committed transactions left."""
    instances, holdings, items = ([UUID(int=base + place) for place in range(2)] for base in (10, 20, 30))

    def placed(kind: str, identity: UUID, parent: UUID) -> tuple[Key, State]:
        return Key(kind, str(identity)), State(
            {f"{'instance' if kind == 'holdings' else 'holdings'}_id": str(parent)}, {}
        )

    forest = Forest()
    # Children first, to see that order does not matter.
    forest.follow(
        dict(
            [placed("item", items[0], holdings[0]), placed("item", items[1], holdings[0])]
            + [placed("holdings", each, instances[0]) for each in holdings]
            + [(Key("instance", str(each)), State({}, {})) for each in instances]
        )
    )
    forest.follow(dict([placed("holdings", holdings[0], instances[1]), placed("item", items[1], holdings[1])]))
    forest.follow({Key("item", str(items[0])): GONE})

    assert forest.holdings_of(instances[1]) == [holdings[0]]
    assert forest.items_of(holdings) == [items[1]]
    assert forest.instance_of(holdings[0]) == instances[1]
    assert {forest.item(Random(seed)) for seed in range(10)} == {items[1]}
    assert forest.holdings(Random(1), other_than=holdings[0]) == holdings[1]
    forest.follow({Key("item", str(items[1])): GONE})
    assert forest.item(Random(1)) is None


def test_percentiles_are_nearest_rank() -> None:
    """p99 of a hundred values is the ninety-ninth; the largest is the maximum; early sights count as nothing."""
    waits = list(map(float, range(1, 101)))
    behind = {str(number): a_transaction(1) for number in range(2)}

    assert [percentile(waits, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert commit_to_applied_ms(behind, {"0": 0.5, "1": 1.25}) == {"p50": 0.0, "p95": 250.0, "p99": 250.0, "max": 250.0}
    assert commit_to_applied_ms(behind, {}) is None


def test_numbers_of_hrids_are_unique() -> None:
    """No two rows of the catalogue share an hrid or a barcode."""
    rows = list(catalogue.generate(200, 3))
    barcodes = [row.columns["barcode"] for row in rows if row.table == "item" and row.columns["barcode"]]

    assert len({row.columns["hrid"] for row in rows}) == len(rows)
    assert len(set(barcodes)) == len(barcodes)
    assert all(len(row.columns["hrid"]) == 10 for row in itertools.islice(rows, 50))
