"""What the campaign expects, against the slow and plain oracle of random schemas."""

from __future__ import annotations

import random

import pytest

from campaign.oracle import Commit, expected_events, token
from campaign.random_schema import Rows, Type, expected, random_row, random_schema
from campaign.rows import RowChange, apply_changes, key_of


def random_changes(rng: random.Random, types: list[Type], rows: Rows) -> list[RowChange]:
    """A transaction that inserts, changes, deletes and moves a few rows."""
    changes = []
    for _ in range(rng.randint(1, 6)):
        made = rng.choice(types)
        row = random_row(rng, made)
        present = [key for name, key in rows if name == made.name]
        kind = rng.choice(["put", "put", "delete", "move"])
        if kind == "put" or not present:
            change = RowChange(made.name, None, row)
        elif kind == "delete":
            change = RowChange(made.name, rng.choice(present), None)
        else:
            key = rng.choice(present)
            moved = {**rows[made.name, key], **{name: row[name] for name in made.key}}
            change = RowChange(made.name, key if key_of(made, moved) != key else None, moved)
        changes.append(change)
        apply_changes(rows, [change], {each.name: each for each in types})
    return changes


@pytest.mark.parametrize("seed", range(20))
def test_the_campaign_expects_what_the_plain_oracle_expects(seed: int) -> None:
    """Chains of parents, moved keys, filters, soft deletes: event by event."""
    rng = random.Random(seed)
    types = random_schema(rng)
    rows, commits, history = Rows(), list[Commit](), list[tuple[int, Rows]]()
    for lsn in range(1, 40):
        commits.append(Commit(lsn, lsn, 0.0, random_changes(rng, types, rows)))
        history.append((lsn, dict(rows)))
    found = [
        (event.key[0], event.key[1], event.lsn, event.kind, event.after, event.ancestors)
        for events in expected_events(types, {}, commits).values()
        for event in events
    ]
    assert sorted(map(token, found)) == sorted(map(token, expected(types, history)))
