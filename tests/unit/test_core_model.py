"""The core against a model: random transactions, random batches, crashes, and a plain oracle."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest
from changelog import COLUMNS, FIELDS, PARENTS, ChangeLog, build_mapping, run_with_crashes

from rowcast.event import DomainEvent, decode
from stream_app.core.column import PLACEHOLDER

Rows = dict[tuple[str, str], dict[str, Any]]
State = tuple[dict[str, Any], dict[str, Any]]
PREFIX = {"instance": "i", "holdings": "h", "item": "x"}


def random_row(rng: random.Random, table: str, number: int) -> dict[str, Any]:
    row = {column: rng.choice(["a", "b", None]) for column in COLUMNS[table]}
    if "tags" in row:
        row["tags"] = json.dumps(rng.choice([[], {"n": 1}, None]))
    if table in PARENTS:
        parent, column = PARENTS[table]
        row[column] = rng.choice([None, *(f"{PREFIX[parent]}{each}" for each in range(4))])
    return {**row, "id": f"{PREFIX[table]}{number}"}


def random_transaction(rng: random.Random, rows: Rows) -> list[tuple[str, str, Any, Any]]:
    """Changes that PostgreSQL could have committed on top of *rows*, which follow."""
    changes: list[tuple[str, str, Any, Any]] = []
    for _ in range(rng.randint(1, 6)):
        table, number = rng.choice(list(COLUMNS)), rng.randrange(4)
        key = (table, f"{PREFIX[table]}{number}")
        row = random_row(rng, table, number)
        if key not in rows:
            changes.append(("c", table, None, row))
            rows[key] = row
        elif rng.random() < 0.3:
            changes.append(("d", table, {"id": key[1]}, None))
            del rows[key]
        else:
            # An untouched TOAST column is not in the WAL: the row keeps what it had.
            hidden = {"tags": PLACEHOLDER} if table == "instance" and rng.random() < 0.3 else {}
            changes.append(("u", table, None, {**row, **hidden}))
            rows[key] = {**row, **({"tags": rows[key]["tags"]} if hidden else {})}
    return changes


def truth(rows: Rows) -> dict[tuple[str, str], State]:
    """What every aggregate of *rows* should be published as, worked out from scratch."""
    states = {}
    for (table, id_text), row in rows.items():
        after = {field: row[field] for field in FIELDS[table]}
        if "tags" in after:
            after["tags"] = json.loads(after["tags"])
        ancestors: dict[str, list[str] | None] = {}
        below, ids = (table, row), [id_text]
        while below is not None and below[0] in PARENTS:
            parent_table, column = PARENTS[below[0]]
            wanted = below[1][column] if ids else None
            found = rows.get((parent_table, wanted)) if wanted else None
            ids = [] if wanted is None else [wanted]
            ancestors[parent_table] = [wanted] if found else ([] if wanted is None else None)
            if found is None:
                rest = ["instance"] if parent_table == "holdings" else []
                ancestors |= dict.fromkeys(rest, [] if wanted is None else None)
                break
            below = (parent_table, found)
        states[table, id_text] = (after, ancestors)
    return states


def expected_events(history: list[tuple[int, Rows]]) -> list[tuple[str, str, int, str, Any]]:
    """(aggregate, id, LSN, kind, state) of every event that the history should give."""
    events = []
    before: dict[tuple[str, str], State] = {}
    for lsn, rows in history:
        after = truth(rows)
        order = {"instance": 0, "holdings": 1, "item": 2}
        for key in sorted({*before, *after}, key=lambda each: (order[each[0]], each[1])):
            if json.dumps(before.get(key), sort_keys=True) == json.dumps(after.get(key), sort_keys=True):
                continue
            kind = "created" if key not in before else "deleted" if key not in after else "updated"
            events.append((*key, lsn, kind, after.get(key, (None, None))[0]))
        before = after
    return events


def build_history(seed: int) -> tuple[ChangeLog, list[tuple[int, Rows]]]:
    rng, log, rows = random.Random(seed), ChangeLog(), {}
    history = []
    for _ in range(30):
        lsn = log.transaction(random_transaction(rng, rows))
        history.append((lsn, dict(rows)))
    return log, history


@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.parametrize("seed", range(40))
def test_events_are_what_the_model_says(seed: int) -> None:
    """Any batch boundaries give exactly the expected events, dense versions and true former values."""
    log, history = build_history(seed)
    events = [decode(*record) for record in run_with_crashes(build_mapping(), log, seed)]

    got = [(e.identity.aggregate, e.identity.id_text, e.position, str(e.kind), e.after) for e in events]
    assert got == expected_events(history)
    check_versions_and_before(events)


@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.parametrize("seed", range(40))
def test_crashes_and_batch_boundaries_never_change_a_byte(seed: int) -> None:
    """Repeated batches are recognised: the topics hold the same bytes as without any crash."""
    log, _ = build_history(seed)

    assert run_with_crashes(build_mapping(), log, seed + 1000, 0.4) == run_with_crashes(build_mapping(), log, seed)


def check_versions_and_before(events: list[DomainEvent]) -> None:
    states: dict[str, State | None] = defaultdict(lambda: None)
    versions: dict[str, int] = defaultdict(int)
    for event in events:
        name = event.identity.text
        assert event.version == versions[name] + 1
        versions[name] = event.version
        former = states[name]
        if event.kind == "updated":
            assert former is not None
            assert event.after is not None
            assert event.before is not None
            restored = {**event.after, **{k: v for k, v in event.before.items() if k != "ancestors"}}
            assert restored == former[0]
            assert event.before.get("ancestors", event.ancestors) == former[1]
        elif event.kind == "deleted":
            assert former is not None
            assert event.before == former[0]
        else:
            assert former is None
        states[name] = None if event.after is None else (dict(event.after), dict(event.ancestors))
