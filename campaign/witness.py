"""
The witness: a second replication slot on the source, which tells what PostgreSQL committed, and in which order.

It shares nothing with the connector but the server. Its messages are those of pgoutput, protocol version 1
(PostgreSQL documentation, "Logical Replication Message Formats").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from campaign.errors import NoVerdictError
from campaign.journal import Attempt
from campaign.random_schema import Row, Type
from campaign.rows import RowKey, canonical, key_of, last_images

SLOT = PUBLICATION = "campaign_witness"
_EPOCH_US = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
UNCHANGED = object()  # a large value that the WAL does not repeat


@dataclass
class WitnessedTransaction:
    """
    A transaction that was committed at *moment_us* (Unix time); *lsn* is the end of its commit record, as in events.

    *images* are the last states of the rows that it touched, None for those that are gone.
    A value may be `UNCHANGED`. *truncated* names tables of which all rows went at some time during it.
    """

    xid: int
    lsn: int
    moment_us: int = 0
    images: dict[RowKey, Row | None] = field(default_factory=dict)
    truncated: set[str] = field(default_factory=set)


class Witness:
    """The slot in the database at *url*; *types* are its tables."""

    def __init__(self, url: str, name: str, types: Sequence[Type]) -> None:
        self._url, self._name, self._types = url, f"{SLOT}_{name}", types

    def begin(self) -> None:
        """Make the slot: every later commit is recorded."""
        tables = ", ".join(each.name for each in self._types)
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {tables}".encode())
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self._name,))

    def read(self) -> list[WitnessedTransaction]:
        """Everything since `begin`, in the order of the commits; it can be read once only."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL,"
                " 'proto_version', '1', 'publication_names', %s)",
                (self._name, PUBLICATION),
            ).fetchall()
            self.end(connection)
        return decode(self._types, (bytes(row[0]) for row in rows))

    def end(self, connection: psycopg.Connection[Any]) -> None:
        """Drop the slot, which would keep the server's WAL."""
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active",
            (self._name,),
        )


def decode(types: Sequence[Type], messages: Iterable[bytes]) -> list[WitnessedTransaction]:
    """The transactions that the slot's *messages* tell."""
    return _Decoder(types).decode(messages)


def compare(types: Sequence[Type], witnessed: Iterable[WitnessedTransaction], committed: Mapping[int, Attempt]) -> None:
    """
    See that the generator and the server tell the same transactions with the same rows.

    Raises:
        NoVerdictError: they do not, so that nobody knows what was to be published.

    """
    tables = {each.name: each for each in types}
    left = dict(committed)
    for seen in witnessed:
        attempt = left.pop(seen.xid, None)
        if attempt is None and not seen.images:
            continue  # a TRUNCATE of a table without rows
        if attempt is None:
            raise NoVerdictError(f"transaction {seen.xid} was committed, and the generator does not know of it")
        told = last_images(attempt.changes, tables)
        for key in told.keys() | seen.images.keys():
            if key not in seen.images and key[0] in seen.truncated and told[key] is None:
                continue
            if key not in told or key not in seen.images or not _same(tables[key[0]], told[key], seen.images[key]):
                found = (told.get(key, "nothing"), seen.images.get(key, "nothing"))
                raise NoVerdictError(f"transaction {seen.xid}, {key}: the generator says {found[0]}, WAL {found[1]}")
    if left:
        raise NoVerdictError(f"transactions {sorted(left)[:5]} are committed, and the slot never showed them")


def _same(made: Type, told: Row | None, seen: Row | None) -> bool:
    if told is None or seen is None:
        return told is seen
    mine, other = canonical(made, told), canonical(made, seen)
    return all(other[name] is UNCHANGED or other[name] == value for name, value in mine.items())


class _Decoder:
    def __init__(self, types: Sequence[Type]) -> None:
        self._types = {each.name: each for each in types}
        self._relations: dict[int, tuple[Type, list[str]]] = {}

    def decode(self, messages: Iterable[bytes]) -> list[WitnessedTransaction]:
        found: list[WitnessedTransaction] = []
        for message in messages:
            kind, body = message[:1], message[1:]
            if kind == b"B":
                found.append(WitnessedTransaction(struct.unpack(">QqI", body)[2], 0))
            elif kind == b"C":
                _, found[-1].lsn, since_us = struct.unpack(">xQQq", body)
                found[-1].moment_us = _EPOCH_US + since_us
            elif kind == b"R":
                self._relation(body)
            elif kind in (b"I", b"U", b"D"):
                self._row(found[-1], body)
            elif kind == b"T":
                self._truncate(found[-1], body)
        return [each for each in found if each.images or each.truncated]

    def _relation(self, body: bytes) -> None:
        oid = int.from_bytes(body[:4])
        _, name, rest = body[4:].split(b"\0", 2)
        count, rest = int.from_bytes(rest[1:3]), rest[3:]
        columns = []
        for _ in range(count):
            column, rest = rest[1:].split(b"\0", 1)
            columns.append(column.decode())
            rest = rest[8:]
        self._relations[oid] = self._types[name.decode()], columns

    def _row(self, transaction: WitnessedTransaction, body: bytes) -> None:
        made, columns = self._relations[int.from_bytes(body[:4])]
        at, old, new = 4, None, None
        while at < len(body):
            mark = body[at : at + 1]
            values, at = _tuple(made, columns, body, at + 1)
            if mark == b"N":
                new = values
            else:
                old = values
        images = transaction.images
        if old is not None and (new is None or key_of(made, old) != key_of(made, new)):
            images[made.name, key_of(made, old)] = None
        if new is not None:
            images[made.name, key_of(made, new)] = new

    def _truncate(self, transaction: WitnessedTransaction, body: bytes) -> None:
        for number in range(int.from_bytes(body[:4])):
            oid = int.from_bytes(body[5 + 4 * number : 9 + 4 * number])
            name = self._relations[oid][0].name
            transaction.truncated.add(name)
            for key in [key for key in transaction.images if key[0] == name]:
                transaction.images[key] = None


def _tuple(made: Type, columns: Sequence[str], body: bytes, at: int) -> tuple[Row, int]:
    row: Row = {}
    count, at = int.from_bytes(body[at : at + 2]), at + 2
    for name in columns[:count]:
        mark, at = body[at : at + 1], at + 1
        if mark == b"t":
            length, at = int.from_bytes(body[at : at + 4]), at + 4
            row[name] = _value(made.columns[name], body[at : at + length].decode())
            at += length
        else:
            row[name] = UNCHANGED if mark == b"u" else None
    return row, at


def _value(type_: str, text: str) -> Any:
    if type_ == "integer":
        return int(text)
    return text == "t" if type_ == "boolean" else text
