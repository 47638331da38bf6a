"""
The last event of every aggregate, as the domain topics have it: what the control database has to know of what was
published.

Topics are compacted, so the last record of each key is always there, and it carries the key's highest version. What is
read stands in a temporary table, so its size is not that of this process, and a process that dies leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import psycopg

from rowcast.errors import MalformedEventError
from rowcast.event import Record, decode
from rowcast.sources.definition import SourceDefinition
from stream_app.copying import NULL, copy_lines, copy_text
from stream_app.core.state import Published, publish

_RECORDS = 5_000
_TABLES = """
CREATE TEMPORARY TABLE last_event (
    aggregate text COLLATE "C", id_text text COLLATE "C", major integer, version bigint, published text,
    PRIMARY KEY (aggregate, id_text, major)
);
CREATE TEMPORARY TABLE read_event (LIKE last_event);
CREATE TEMPORARY TABLE known_aggregate (
    aggregate text COLLATE "C", id_text text COLLATE "C", version bigint, there boolean
)
"""
# Before the topics are read: what is committed was published before, so they have it.
_NOTE_KNOWN = """
INSERT INTO pg_temp.known_aggregate SELECT aggregate, id_text, version, published IS NOT NULL
FROM rowcast.aggregate WHERE source = %s AND aggregate = ANY (%s) AND version > 0
"""
_COPY = "COPY pg_temp.read_event FROM STDIN"
_KEEP = """
INSERT INTO pg_temp.last_event AS l SELECT * FROM pg_temp.read_event
ON CONFLICT (aggregate, id_text, major) DO UPDATE SET version = excluded.version, published = excluded.published
WHERE excluded.version >= l.version
"""
# One row an aggregate: its highest version, the majors in which that went out, and its state in the newest of them.
_LAST = """
SELECT l.aggregate, l.id_text, l.version, (array_agg(l.published ORDER BY l.major DESC))[1] AS published,
       string_agg(l.major::text, ',' ORDER BY l.major DESC) AS majors
FROM (SELECT *, max(version) OVER (PARTITION BY aggregate, id_text) AS highest FROM pg_temp.last_event) AS l
WHERE l.version = l.highest GROUP BY l.aggregate, l.id_text, l.version
"""
# A version that the control database, older as it may be, knows of. One that is told nowhere any more may be gone with
# the topic of a major that ended, where the aggregate was deleted before the next one opened.
_LACKING = """
SELECT k.aggregate, k.id_text, k.version, coalesce(l.version, 0)
FROM pg_temp.known_aggregate k LEFT JOIN pg_temp.last_state l USING (aggregate, id_text)
WHERE k.version > coalesce(l.version, 0) AND (k.there OR l.version IS NOT NULL)
ORDER BY k.aggregate, k.id_text LIMIT 1
"""
_COUNT = """
SELECT aggregate, count(*) FILTER (WHERE published IS NOT NULL), count(*) FILTER (WHERE published IS NULL)
FROM pg_temp.last_state GROUP BY aggregate
"""
# What topics do not tell of is kept, as far as it has a version: it is not used again.
_TAKE_OVER = (
    """
DELETE FROM rowcast.aggregate a WHERE a.source = %(source)s AND (a.version = 0 OR EXISTS (
    SELECT FROM pg_temp.last_state l WHERE l.aggregate = a.aggregate AND l.id_text = a.id_text))
""",
    """
UPDATE rowcast.aggregate SET present = false, parent_id_text = NULL, refused_reason = NULL, refused_record = NULL,
    refused_since = NULL, refused_lsn = NULL
WHERE source = %(source)s
""",
    """
INSERT INTO rowcast.aggregate (source, aggregate, id_text, version, present, published, majors)
SELECT %(source)s, l.aggregate, l.id_text, l.version, false, l.published,
       CASE WHEN (l.aggregate, l.majors) NOT IN (SELECT * FROM unnest(%(types)s::text[], %(covered)s::text[]))
            THEN l.majors END
FROM pg_temp.last_state l
""",
)


class LastEvent(NamedTuple):
    """What the last event of an aggregate in one major says; *published* None: it is deleted."""

    aggregate: str
    id_text: str
    major: int
    version: int
    published: Published | None


class Lacking(NamedTuple):
    """An aggregate with a *known* version that the topics lack: they have *told* at most."""

    aggregate: str
    id_text: str
    known: int
    told: int


class LastEvents:
    """
    The last events of the source of *definition*, staged in a session of the *control* database.

    Made before the topics are read: what is known until then they have to have.
    """

    def __init__(self, definition: SourceDefinition, control: psycopg.Connection) -> None:
        self._definition = definition
        self._control = control
        control.execute(_TABLES)
        names = [each.name for each in definition.aggregates]
        control.execute(_NOTE_KNOWN, (definition.source, names))

    def read(self, records: Iterable[Record]) -> int:
        """
        Take in *records*, each partition in order; how many there were.

        Raises:
            MalformedEventError: one of them is no event of the source.

        """
        count, left = 0, iter(records)
        while some := list(islice(left, _RECORDS)):
            count += len(some)
            with self._control.transaction():
                self._control.execute("TRUNCATE pg_temp.read_event")
                copy_lines(self._control, _COPY, _lines(last_of(some, self._definition.source)))
                self._control.execute(_KEEP)
        with self._control.transaction():
            self._control.execute("DROP TABLE IF EXISTS pg_temp.last_state")
            self._control.execute(f"CREATE TEMPORARY TABLE last_state AS {_LAST}")
            self._control.execute("CREATE UNIQUE INDEX ON pg_temp.last_state (aggregate, id_text)")
            self._control.execute("ANALYZE pg_temp.last_state")
        return count

    def counts(self) -> dict[str, tuple[int, int]]:
        """How many aggregates of each type are there, and how many are deleted."""
        return {name: (there, gone) for name, there, gone in self._control.execute(_COUNT)}

    def lacking(self) -> Lacking | None:
        """An aggregate of which the control database knew a version that the topics lack; None: they have all."""
        row = self._control.execute(_LACKING).fetchone()
        return None if row is None else Lacking(*row)

    def take_over(self) -> None:
        """Make the aggregates of the source what the topics tell, without rows; in the transaction that is open."""
        found = self._control.execute("SELECT DISTINCT aggregate, majors FROM pg_temp.last_state").fetchall()
        covered = list(covered_by(self._definition, [(name, majors) for name, majors in found]))
        parameters = {
            "source": self._definition.source,
            "types": [name for name, _ in covered],
            "covered": [majors for _, majors in covered],
        }
        for statement in _TAKE_OVER:
            self._control.execute(statement, parameters)


def last_of(records: Sequence[Record], source: str) -> list[LastEvent]:
    """
    The last event of each aggregate and major among *records*.

    Raises:
        MalformedEventError: one of them is no event of *source*.

    """
    last: dict[tuple[str, bytes], Record] = {}
    for record in records:
        last[record.topic, record.key] = record
    return [_last_event(record, source) for record in last.values()]


def _last_event(record: Record, source: str) -> LastEvent:
    event = decode(*record)
    identity = event.identity
    if identity.source != source:
        raise MalformedEventError(f"{record.topic}: {event.id} is an event of another source, {identity.source}")
    state = None if event.after is None else publish(event.after, event.ancestors)
    return LastEvent(identity.aggregate, identity.id_text, event.major, event.version, state)


def _lines(events: Iterable[LastEvent]) -> Iterator[bytes]:
    for each in events:
        state = NULL if each.published is None else copy_text(each.published)
        texts = copy_text(each.aggregate), copy_text(each.id_text)
        yield b"%b\t%b\t%d\t%d\t%b\n" % (*texts, each.major, each.version, state)


def covered_by(definition: SourceDefinition, found: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Those of the *found* types and majors ("2,1") with which readers of all live majors know the version."""
    by_name = {each.name: each for each in definition.aggregates}
    for name, majors in found:
        if by_name[name].is_covered(tuple(map(int, majors.split(",")))):
            yield name, majors
