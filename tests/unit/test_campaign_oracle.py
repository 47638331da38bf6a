"""What the campaign expects, against the slow and plain oracle of random schemas."""

from __future__ import annotations

import random

import pytest
from test_core_random_schemas import Writer

from campaign.oracle import Commit, expected_events, token
from campaign.random_schema import Rows, expected, random_schema
from campaign.rows import RowChange


@pytest.mark.parametrize("seed", range(20))
def test_the_campaign_expects_what_the_plain_oracle_expects(seed: int) -> None:
    """Chains of parents, moved keys, filters, soft deletes: event by event."""
    rng = random.Random(seed)
    types = random_schema(rng)
    writer, commits, history = Writer(rng, types), list[Commit](), list[tuple[int, Rows]]()
    for lsn in range(1, 40):
        before = dict(writer.rows)
        writer.transaction()
        changes = [RowChange(name, key, None) for name, key in before if (name, key) not in writer.rows]
        changes += [
            RowChange(name, None, row) for (name, key), row in writer.rows.items() if before.get((name, key)) != row
        ]
        commits.append(Commit(lsn, lsn, 0.0, changes))
        history.append((lsn, dict(writer.rows)))
    found = [
        (event.key[0], event.key[1], event.lsn, event.kind, event.after, event.ancestors)
        for events in expected_events(types, {}, commits).values()
        for event in events
    ]
    assert sorted(map(token, found)) == sorted(map(token, expected(types, history)))
