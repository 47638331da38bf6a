"""What the campaign expects, against the slow and plain oracle of random schemas."""

from __future__ import annotations

import random

import pytest

from campaign.control_loss import as_told
from campaign.oracle import Commit, expect, expected_events, token
from campaign.random_schema import Rows, Type, expected, random_row, random_schema
from campaign.rows import RowChange, apply_changes, key_of
from rowcast.sources.field import FieldDefinition


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


@pytest.mark.parametrize("seed", range(40))
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


def test_a_snapshot_tells_the_last_state_alone() -> None:
    """Of what was committed between what was published last and the snapshot; nothing of what is as it was."""
    fields = {"name": FieldDefinition(place="c0")}
    made = Type("thing", 0, {"k0": "integer", "c0": "text"}, ("k0",), None, (), fields)
    changes = [(1, "a"), (2, "a"), (3, "a"), (1, "b"), (1, "c"), (2, "b"), (2, "a"), (3, None), (4, "a"), (1, "d")]
    commits = [
        Commit(
            n,
            10 * n,
            0.0,
            [RowChange("thing", (key,), None) if name is None else RowChange("thing", None, {"k0": key, "c0": name})],
        )
        for n, (key, name) in enumerate(changes, 1)
    ]
    told = expected_events([made], {}, as_told(commits, 35, 95))
    assert [(each.kind, each.after, each.asked) for each in told["thing", "1"]] == [
        ("created", {"name": "a"}, False),
        ("snapshot", {"name": "c"}, True),
        ("updated", {"name": "d"}, False),
    ]
    assert [each.kind for each in told["thing", "2"]] == ["created"]
    assert [each.kind for each in told["thing", "3"]] == ["created", "deleted"]
    assert [each.kind for each in told["thing", "4"]] == ["snapshot"]
    assert as_told(commits, 95, 98) == commits


def test_what_a_contract_does_not_take_is_refused() -> None:
    """No event and no version; the next state that it takes tells what changed since the last event."""
    fields = {"name": FieldDefinition(place="c0")}
    made = Type("thing", 0, {"k0": "integer", "c0": "text"}, ("k0",), None, (), fields, short=frozenset(["name"]))
    texts = ["a", "x" * 2_000, "b"]
    commits = [Commit(n, n, 0.0, [RowChange("thing", None, {"k0": 1, "c0": text})]) for n, text in enumerate(texts, 1)]
    oracle = expect([made], {}, commits)
    told = [(each.version, each.kind, each.lsn, each.after) for each in oracle.events["thing", "1"]]
    assert told == [(1, "created", 1, {"name": "a"}), (2, "updated", 3, {"name": "b"})]
    assert oracle.refused == [(0, {}), (2, {"thing": 1}), (3, {})]


def test_what_no_log_has_is_told_when_it_is_read() -> None:
    """As snapshots and ends, at a place that nobody knows beforehand."""
    made = Type("thing", 0, {"k0": "integer"}, ("k0",), None, (), {"kind": FieldDefinition(constant="thing")})
    commits = [
        Commit(1, 1, 0.0, [RowChange("thing", None, {"k0": 1})]),
        Commit(2, 2, 0.0, [RowChange("thing", (1,), None), RowChange("thing", None, {"k0": 2})], hidden=True),
    ]
    events = expect([made], {}, commits).events
    first, last = events["thing", "1"][-1], events["thing", "2"][-1]
    assert [(each.kind, each.lsn, each.asked) for each in (first, last)] == [
        ("deleted", None, True),
        ("snapshot", None, True),
    ]
