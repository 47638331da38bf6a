"""
Refused aggregates and stated events: what could not be mapped or validated, as operators see and retry it.

A refusal takes no version and blocks nothing else; the next valid change closes it, or a retry after the
cause is mended. A stated event that was refused stays listed until somebody dismisses it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import psycopg

from rowcast.control.command import ask

_COLUMNS = "source, aggregate, id_text, version, refused_reason, refused_since, refused_lsn, refused_record"


@dataclass(frozen=True, slots=True)
class RefusedAggregate:
    """One refused aggregate; *version* is its last published version, *record* the raw row."""

    source: str
    aggregate: str
    id_text: str
    version: int
    reason: str
    since: str
    lsn: int
    record: str

    def to_dict(self, *, with_record: bool) -> dict[str, object]:
        """As JSON output has it; the record only where it was asked for, because it holds row data."""
        fields: dict[str, object] = {
            "source": self.source,
            "aggregate": self.aggregate,
            "id": self.id_text,
            "version": self.version,
            "reason": self.reason,
            "since": self.since,
            "position": f"{self.lsn:020d}",
        }
        return {**fields, "record": json.loads(self.record)} if with_record else fields


def list_refusals(connection: psycopg.Connection, source: str | None = None) -> list[RefusedAggregate]:
    """All refused aggregates, of *source* or of all, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM rowcast.aggregate WHERE refused_reason IS NOT NULL"
        " AND (%(source)s::text IS NULL OR source = %(source)s) ORDER BY refused_since, aggregate, id_text",
        {"source": source},
    )
    return [_refused(row) for row in rows]


def find_refusal(connection: psycopg.Connection, source: str, aggregate: str, id_text: str) -> RefusedAggregate | None:
    """One refused aggregate; None when it is not refused."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM rowcast.aggregate WHERE refused_reason IS NOT NULL"
        " AND source = %s AND aggregate = %s AND id_text = %s",
        (source, aggregate, id_text),
    ).fetchone()
    return None if row is None else _refused(row)


def _refused(row: tuple[object, ...]) -> RefusedAggregate:
    source, aggregate, id_text, version, reason, since, lsn, record = row
    instant = since.isoformat() if hasattr(since, "isoformat") else str(since)
    return RefusedAggregate(
        str(source), str(aggregate), str(id_text), int(str(version)), str(reason), instant, int(str(lsn)), str(record)
    )


@dataclass(frozen=True, slots=True)
class RefusedStatement:
    """
    One refused stated event: number *order* of the transaction with this commit *lsn*.

    Aggregate, id and event are empty where the message does not tell them; *record* is the message.
    """

    source: str
    aggregate: str
    id_text: str
    event: str
    reason: str
    since: str
    lsn: int
    order: int
    record: str

    @property
    def place(self) -> str:
        """What names it: ``<position>.<number in its transaction>``."""
        return f"{self.lsn}.{self.order}"

    def to_dict(self, *, with_record: bool) -> dict[str, object]:
        """As JSON output has it; the record only where it was asked for, because it holds the message's data."""
        fields: dict[str, object] = {
            "source": self.source,
            "aggregate": self.aggregate,
            "id": self.id_text,
            "event": self.event,
            "reason": self.reason,
            "since": self.since,
            "position": f"{self.lsn:020d}",
            "place": self.place,
        }
        return {**fields, "record": json.loads(self.record)} if with_record else fields


def list_statements(connection: psycopg.Connection, source: str | None = None) -> list[RefusedStatement]:
    """All refused stated events, of *source* or of all, oldest first."""
    rows = connection.execute(
        "SELECT source, aggregate, id_text, event, reason, since, lsn, ord, record FROM rowcast.refused_statement"
        " WHERE %(source)s::text IS NULL OR source = %(source)s ORDER BY since, source, lsn, ord",
        {"source": source},
    )
    return [
        RefusedStatement(source_, aggregate, id_text, event, reason, since.isoformat(), lsn, order, record)
        for source_, aggregate, id_text, event, reason, since, lsn, order, record in rows
    ]


def dismiss_statements(connection: psycopg.Connection, source: str, place: str | None = None) -> int:
    """Forget the refused stated event at *place* (``<position>.<number>``), or all of *source*; how many there were."""
    lsn, _dot, order = ("", "", "") if place is None else place.partition(".")
    return connection.execute(
        "DELETE FROM rowcast.refused_statement WHERE source = %s AND (%s OR (lsn::text = %s AND ord::text = %s))",
        (source, place is None, lsn, order),
    ).rowcount


def ask_retry(connection: psycopg.Connection, source: str, aggregate: str, id_text: str) -> int:
    """Ask the owner of *source* to map the aggregate's current state again; returns the command's number."""
    return ask(connection, source, "retry", {"aggregate": aggregate, "id_text": id_text})
