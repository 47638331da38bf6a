"""The second slot's messages, and what the campaign says when the observers of a source disagree."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from campaign.errors import NoVerdictError
from campaign.journal import COMMITTED, Attempt
from campaign.random_schema import Type
from campaign.rows import RowChange
from campaign.witness import UNCHANGED, compare, decode

COLUMNS = {"k0": "integer", "c0": "text", "c1": "boolean", "c2": "jsonb"}
TYPES = [Type("thing", 0, COLUMNS, ("k0",), None, (), {})]
OID = struct.pack(">I", 77)


def begin(xid: int, lsn: int) -> bytes:
    return b"B" + struct.pack(">QqI", lsn, 0, xid)


def commit(lsn: int) -> bytes:
    return b"C\0" + struct.pack(">QQq", lsn, lsn + 8, 0)


def relation() -> bytes:
    columns = b"".join(b"\0" + name.encode() + b"\0" + bytes(8) for name in COLUMNS)
    return b"R" + OID + b"public\0thing\0d" + struct.pack(">H", len(COLUMNS)) + columns


def values(*texts: str | None) -> bytes:
    """A tuple: ``?`` stands for a large value that did not change."""
    parts = [struct.pack(">H", len(texts))]
    for text in texts:
        raw = (text or "").encode()
        parts.append(b"n" if text is None else b"u" if text == "?" else b"t" + struct.pack(">I", len(raw)) + raw)
    return b"".join(parts)


def messages() -> list[bytes]:
    """An insert, a change that does not repeat a large value, a moved key, a deletion, a TRUNCATE."""
    return [
        begin(5, 100),
        relation(),
        b"I" + OID + b"N" + values("1", "a", "t", '{"x": 1}'),
        b"U" + OID + b"N" + values("1", "b", "f", "?"),
        b"U" + OID + b"K" + values("2", None, None, None) + b"N" + values("3", None, None, None),
        b"D" + OID + b"K" + values("4", None, None, None),
        commit(100),
        begin(6, 200),
        b"T" + struct.pack(">IB", 1, 0) + OID,
        commit(200),
    ]


def attempt(changes: Sequence[RowChange]) -> Attempt:
    return Attempt(0, "small", 0.0, 5, list(changes), COMMITTED, 1.0)


def told() -> dict[int, Attempt]:
    """What the generator notes of the same transactions."""
    row = {"k0": 1, "c0": "b", "c1": False, "c2": '{"x":1}'}
    moved = {"k0": 3, "c0": None, "c1": None, "c2": None}
    changes = [RowChange("thing", None, row), RowChange("thing", (2,), moved), RowChange("thing", (4,), None)]
    return {5: attempt(changes), 6: attempt([RowChange("thing", (1,), None), RowChange("thing", (9,), None)])}


def test_messages_are_read() -> None:
    """By transaction, with the end of its commit record and the last state of each row."""
    first, second = decode(TYPES, messages())
    assert (first.xid, first.lsn, second.lsn) == (5, 108, 208)
    assert first.images == {
        ("thing", (1,)): {"k0": 1, "c0": "b", "c1": False, "c2": UNCHANGED},
        ("thing", (2,)): None,
        ("thing", (3,)): {"k0": 3, "c0": None, "c1": None, "c2": None},
        ("thing", (4,)): None,
    }
    assert second.truncated == {"thing"}


def test_observers_that_agree_are_believed() -> None:
    """Also where a document is spelt otherwise, and where only the table of a deleted row is told."""
    compare(TYPES, decode(TYPES, messages()), told())


def test_a_truncate_of_no_rows_is_no_change() -> None:
    """The server tells of it, and the generator has nothing to note."""
    noted = told()
    del noted[6]
    compare(TYPES, decode(TYPES, messages()), noted)


@pytest.mark.parametrize("kind", ["unknown", "unseen", "missing row", "other value", "row that nobody noted"])
def test_observers_that_disagree_give_no_verdict(kind: str) -> None:
    """Nobody knows then what was to be published."""
    noted = told()
    if kind == "unknown":
        del noted[5]
    elif kind == "unseen":
        noted[7] = attempt([RowChange("thing", (8,), None)])
    elif kind == "missing row":
        noted[5].changes.append(RowChange("thing", (8,), None))
    elif kind == "other value":
        noted[5].changes[0] = RowChange("thing", None, {"k0": 1, "c0": "c", "c1": False, "c2": None})
    else:
        del noted[5].changes[2]
    with pytest.raises(NoVerdictError):
        compare(TYPES, decode(TYPES, messages()), noted)
