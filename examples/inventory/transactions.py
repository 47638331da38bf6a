"""
The kinds of transactions that the live load drives, as a library's application would send them.

Each writes through one `Work`, which notes what it touched; what is published afterwards is read back from the
database, never guessed. Public functions named in `KINDS` do nothing but SQL and leave COMMIT to the caller.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from examples.inventory import vocabulary
from examples.inventory.forest import Forest
from examples.inventory.published import AGGREGATES, Key, State, read_states


@dataclass(frozen=True, slots=True)
class Numbers:
    """Running numbers for human-readable ids and barcodes, unique over all clients; gaps are normal."""

    counter: Iterator[int]

    @classmethod
    def after_existing(cls, connection: psycopg.Connection) -> Numbers:
        """Numbers above all that any hrid carries."""
        row = connection.execute(
            "SELECT coalesce(max(substr(hrid, 3)::bigint), 0) FROM (SELECT hrid FROM public.instance UNION ALL"
            " SELECT hrid FROM public.holdings UNION ALL SELECT hrid FROM public.item) every"
        ).fetchone()
        return cls(itertools.count(int(row[0]) + 1 if row else 1))

    def next(self) -> int:
        """The next number."""
        return next(self.counter)


@dataclass(slots=True, kw_only=True)
class Work:
    """One open transaction of one client: its *connection*, what it owns, and what it has touched so far."""

    connection: psycopg.Connection
    rng: Random
    forest: Forest
    shared: tuple[UUID, ...]
    numbers: Numbers
    touched: dict[str, dict[UUID, None]] = field(default_factory=lambda: {each: {} for each in AGGREGATES})
    changes: int = 0

    def execute(self, statement: LiteralString, parameters: tuple[Any, ...]) -> None:
        """Run one data-changing statement and count its rows."""
        self.changes += self.connection.execute(statement, parameters).rowcount

    def touch(self, aggregate: str, *ids: UUID) -> None:
        """Note that the published state of these may have changed."""
        self.touched[aggregate].update(dict.fromkeys(ids))

    def read_back(self) -> dict[Key, State]:
        """What everything touched looks like now, at the end of the transaction."""
        states: dict[Key, State] = {}
        for aggregate, ids in self.touched.items():
            if ids:
                states |= read_states(self.connection, aggregate, ids)
        return states

    def insert_instance(self) -> UUID:
        """A new title."""
        identity = uuid4()
        fields = vocabulary.instance_fields(self.rng)
        fields["contributors"] = Jsonb(fields["contributors"])
        self.execute(
            "INSERT INTO public.instance (id, hrid, title, source, instance_type, contributors, languages,"
            " published_year, discovery_suppress, updated_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())",
            (identity, f"in{self.numbers.next():08d}", *fields.values()),
        )
        self.touch("instance", identity)
        return identity

    def insert_holdings(self, instance: UUID) -> UUID:
        """New holdings of *instance*."""
        identity = uuid4()
        self.execute(
            "INSERT INTO public.holdings (id, hrid, instance_id, permanent_location, call_number)"
            " VALUES (%s, %s, %s, %s, %s)",
            (identity, f"ho{self.numbers.next():08d}", instance, *vocabulary.holdings_fields(self.rng).values()),
        )
        self.touch("holdings", identity)
        return identity

    def insert_item(self, holdings: UUID) -> UUID:
        """A new item of *holdings*."""
        identity, number = uuid4(), self.numbers.next()
        barcode = None if self.rng.random() < 0.05 else f"{40_000_000_000_000 + number}"
        self.execute(
            "INSERT INTO public.item (id, hrid, holdings_id, barcode, material_type, status, price, circulation_notes,"
            " last_borrower) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (identity, f"it{number:08d}", holdings, barcode, *vocabulary.item_fields(self.rng).values()),
        )
        self.touch("item", identity)
        return identity

    def delete_items(self, *items: UUID) -> None:
        """Delete these items."""
        self.execute("DELETE FROM public.item WHERE id = ANY(%s)", (list(items),))
        self.touch("item", *items)

    def delete_holdings(self, *holdings: UUID) -> None:
        """Delete these holdings, their items first."""
        self.delete_items(*self.forest.items_of(holdings))
        self.execute("DELETE FROM public.holdings WHERE id = ANY(%s)", (list(holdings),))
        self.touch("holdings", *holdings)

    def savepoint_rolled_back(self, step: Callable[[], object]) -> None:
        """Run *step* inside a savepoint and roll back to it: nothing of it happens."""
        changes = self.changes
        self.connection.execute("SAVEPOINT attempt")
        step()
        self.connection.execute("ROLLBACK TO SAVEPOINT attempt")
        self.changes = changes


def create(work: Work) -> None:
    """A new title with holdings and items, in one transaction."""
    instance = work.insert_instance()
    for _ in range(work.rng.randint(1, 2)):
        holdings = work.insert_holdings(instance)
        for _ in range(work.rng.randint(0, 3)):
            work.insert_item(holdings)


def create_item(work: Work) -> None:
    """One more copy in existing holdings."""
    if holdings := work.forest.holdings(work.rng):
        work.insert_item(holdings)


def update_instance(work: Work) -> None:
    """New title, year and suppression; a large contributor list stays as it is, out of line."""
    if instance := work.forest.instance(work.rng):
        work.execute(
            "UPDATE public.instance SET title = %s, published_year = %s, discovery_suppress = NOT discovery_suppress,"
            " updated_at = clock_timestamp() WHERE id = %s",
            (vocabulary.title(work.rng), work.rng.choice((None, work.rng.randint(1850, 2026))), instance),
        )
        work.touch("instance", instance)


def update_contributors(work: Work) -> None:
    """Other contributors and languages."""
    if instance := work.forest.instance(work.rng):
        fields = vocabulary.instance_fields(work.rng)
        work.execute(
            "UPDATE public.instance SET contributors = %s, languages = %s, updated_at = clock_timestamp()"
            " WHERE id = %s",
            (Jsonb(fields["contributors"]), fields["languages"], instance),
        )
        work.touch("instance", instance)


def update_shared(work: Work) -> None:
    """A title that all clients write to: they wait for each other's row lock."""
    if work.shared:
        instance = work.rng.choice(work.shared)
        work.execute(
            "UPDATE public.instance SET title = %s, updated_at = clock_timestamp() WHERE id = %s",
            (vocabulary.title(work.rng), instance),
        )
        work.touch("instance", instance)


def update_holdings(work: Work) -> None:
    """Another place and call number."""
    if holdings := work.forest.holdings(work.rng):
        work.execute(
            "UPDATE public.holdings SET permanent_location = %s, call_number = %s, updated_at = clock_timestamp()"
            " WHERE id = %s",
            (vocabulary.location(work.rng), vocabulary.call_number(work.rng), holdings),
        )
        work.touch("holdings", holdings)


def update_item(work: Work) -> None:
    """An item is lent, returned or repriced; its private columns change as well."""
    if item := work.forest.item(work.rng):
        work.execute(
            "UPDATE public.item SET status = %s, price = %s, last_borrower = %s, updated_at = clock_timestamp()"
            " WHERE id = %s",
            (work.rng.choice(vocabulary.STATUSES), vocabulary.price(work.rng), vocabulary.borrower(work.rng), item),
        )
        work.touch("item", item)


def update_private(work: Work) -> None:
    """Only columns that are not published: no event."""
    if item := work.forest.item(work.rng):
        work.execute(
            "UPDATE public.item SET circulation_notes = %s, last_borrower = %s WHERE id = %s",
            (vocabulary.note(work.rng), vocabulary.borrower(work.rng), item),
        )
        work.touch("item", item)


def rewrite(work: Work) -> None:
    """Rows written back exactly as they were: no event."""
    if instance := work.forest.instance(work.rng):
        work.execute("UPDATE public.instance SET title = title WHERE id = %s", (instance,))
        work.execute("UPDATE public.holdings SET call_number = call_number WHERE instance_id = %s", (instance,))
        work.touch("instance", instance)
        work.touch("holdings", *work.forest.holdings_of(instance))


def change_and_change_back(work: Work) -> None:
    """An item leaves its holdings and returns in the same transaction: no event."""
    item = work.forest.item(work.rng)
    if item and (elsewhere := work.forest.holdings(work.rng, other_than=work.forest.holdings_of_item(item))):
        for holdings in (elsewhere, work.forest.holdings_of_item(item)):
            work.execute("UPDATE public.item SET holdings_id = %s WHERE id = %s", (holdings, item))
        work.touch("item", item)


def move_item(work: Work) -> None:
    """An item moves to holdings of another title."""
    item = work.forest.item(work.rng)
    if item and (holdings := _holdings_elsewhere(work, work.forest.holdings_of_item(item))):
        _place_item(work, item, holdings)


def move_holdings(work: Work) -> None:
    """Holdings move to another title: the ancestors of all their items change with them."""
    holdings = work.forest.holdings(work.rng)
    if holdings and (instance := work.forest.instance(work.rng, other_than=work.forest.instance_of(holdings))):
        _place_holdings(work, holdings, instance)


def merge(work: Work) -> None:
    """A duplicate title is merged: its holdings move to another one, it is deleted, an item is created."""
    duplicate = work.forest.instance(work.rng)
    kept = work.forest.instance(work.rng, other_than=duplicate)
    if duplicate and kept:
        for holdings in work.forest.holdings_of(duplicate):
            _place_holdings(work, holdings, kept)
            work.insert_item(holdings)
        work.execute("DELETE FROM public.instance WHERE id = %s", (duplicate,))
        work.touch("instance", duplicate)


def reorganise(work: Work) -> None:
    """Rows of all three tables in one transaction, the item twice."""
    item = work.forest.item(work.rng)
    if item is None:
        return
    holdings = work.forest.holdings_of_item(item)
    instance = work.forest.instance_of(holdings)
    _place_item(work, item, holdings)
    work.execute(
        "UPDATE public.instance SET discovery_suppress = NOT discovery_suppress, updated_at = clock_timestamp()"
        " WHERE id = %s",
        (instance,),
    )
    work.execute(
        "UPDATE public.holdings SET permanent_location = %s, updated_at = clock_timestamp() WHERE id = %s",
        (vocabulary.location(work.rng), holdings),
    )
    work.execute("UPDATE public.item SET status = 'In process' WHERE id = %s", (item,))
    _place_item(work, item, work.insert_holdings(instance))
    work.touch("instance", instance)
    work.touch("holdings", holdings)


def delete_item(work: Work) -> None:
    """One copy goes."""
    if item := work.forest.item(work.rng):
        work.delete_items(item)


def delete_holdings(work: Work) -> None:
    """Holdings go with their items."""
    if holdings := work.forest.holdings(work.rng):
        work.delete_holdings(holdings)


def delete_instance(work: Work) -> None:
    """A title goes with everything below it."""
    if instance := work.forest.instance(work.rng):
        work.delete_holdings(*work.forest.holdings_of(instance))
        work.execute("DELETE FROM public.instance WHERE id = %s", (instance,))
        work.touch("instance", instance)


def insert_and_delete(work: Work) -> None:
    """An item that is gone before anybody could see it: no event for it, one for its holdings."""
    if holdings := work.forest.holdings(work.rng):
        work.delete_items(work.insert_item(holdings))
        work.execute(
            "UPDATE public.holdings SET call_number = %s, updated_at = clock_timestamp() WHERE id = %s",
            (vocabulary.call_number(work.rng), holdings),
        )
        work.touch("holdings", holdings)


def savepoint(work: Work) -> None:
    """Part of the transaction is rolled back to a savepoint; the rest counts."""
    update_item(work)
    work.savepoint_rolled_back(lambda: create(work))
    work.savepoint_rolled_back(lambda: move_holdings(work))
    work.savepoint_rolled_back(lambda: delete_item(work))
    update_holdings(work)


def _holdings_elsewhere(work: Work, holdings: UUID) -> UUID | None:
    # A few draws find holdings of another title wherever there are enough of them.
    for _ in range(5):
        candidate = work.forest.holdings(work.rng, other_than=holdings)
        if candidate and work.forest.instance_of(candidate) != work.forest.instance_of(holdings):
            return candidate
    return None


def _place_item(work: Work, item: UUID, holdings: UUID) -> None:
    work.execute(
        "UPDATE public.item SET holdings_id = %s, updated_at = clock_timestamp() WHERE id = %s", (holdings, item)
    )
    work.touch("item", item)


def _place_holdings(work: Work, holdings: UUID, instance: UUID) -> None:
    work.execute(
        "UPDATE public.holdings SET instance_id = %s, updated_at = clock_timestamp() WHERE id = %s",
        (instance, holdings),
    )
    work.touch("holdings", holdings)
    work.touch("item", *work.forest.items_of([holdings]))


KINDS: Mapping[Callable[[Work], None], int] = {
    create: 16,
    create_item: 6,
    update_instance: 10,
    update_contributors: 3,
    update_shared: 5,
    update_holdings: 6,
    update_item: 16,
    update_private: 4,
    rewrite: 3,
    change_and_change_back: 2,
    move_item: 8,
    move_holdings: 6,
    merge: 2,
    reorganise: 4,
    delete_item: 4,
    delete_holdings: 2,
    delete_instance: 2,
    insert_and_delete: 2,
    savepoint: 4,
}
"""Every kind with its share of the load."""
