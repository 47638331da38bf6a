"""
What the control database knows of a source made anew, after it was lost or restored from an older copy.

Versions and what was published last come from the domain topics, rows from a new snapshot. The source is taken out of
the hands of every worker before the topics are read to their end, and given back when all stands there: whoever owned
it can neither publish nor commit any more. Each step may be repeated; a call that died is mended by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
import psycopg

from rowcast.brokers import Brokers
from rowcast.connect import ConnectClient
from rowcast.control.database import connect, migrate
from rowcast.errors import ConfigurationError, MalformedEventError
from rowcast.failpoint import failpoint
from rowcast.settings import Settings
from rowcast.sources.catalogue import connect_source, read_catalogue
from rowcast.sources.connector import connector_name
from rowcast.sources.declared_contract import contracts_of
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.left_topic import left_topics
from rowcast.sources.plan import admit, apply, translated, with_hash_key
from rowcast.sources.removal import remove_capture
from rowcast.sources.source_file import SourceFile
from rowcast.sources.topic_plan import TopicAdmin, plan_topics
from rowcast.topics import PROGRESS_TOPIC
from stream_app.last_event import LastEvents
from stream_app.progress import told_epoch
from stream_app.publisher import Publisher
from stream_app.transport import read_ends, read_extent, read_settled_ends, read_topics

# Whoever rebuilds a source holds this lock, with the hash of the source's name.
_LOCK = 0x5265_6264
_LSN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
_FORMER = "SELECT epoch, end_offsets, definition FROM rowcast.source WHERE source = %s"
_WITHDRAW = """
INSERT INTO rowcast.source (source, definition, revision, removed, epoch) VALUES (%s, %s, %s, true, 1)
ON CONFLICT (source) DO UPDATE SET removed = true, epoch = source.epoch + 1, holder = NULL, lease_until = NULL
RETURNING epoch
"""
_HOLD = "SELECT 1 FROM rowcast.source WHERE source = %s AND epoch = %s AND removed FOR UPDATE"
# What follows from rows, or from the place in the change log. Refused stated events stay until somebody dismisses them.
_EMPTIED = (
    "row_state",
    "processed_transaction",
    "generation",
    "pending",
    "staged_change",
    "moved_row",
    "statement",
    "reread_row",
    "deleted_row",
    "halted_type",
)
_CLOSE_COMMANDS = """
UPDATE rowcast.command SET done_at = clock_timestamp(), outcome = 'not done, because the source was rebuilt: ask again'
WHERE source = %s AND done_at IS NULL
"""
_PLACE = """
UPDATE rowcast.source SET
    definition = %(definition)s, revision = %(revision)s, epoch = greatest(epoch, %(epoch)s),
    position_epoch = greatest(epoch, %(epoch)s),
    change_log_topic_id = %(topic_id)s, next_offset = %(next_offset)s, commit_lsn = %(commit_lsn)s,
    sub_position = NULL, position_revision = %(revision)s, end_offsets = %(end_offsets)s, schema_fingerprint = NULL,
    heartbeat = NULL, position_at = clock_timestamp(), snapshot_from = NULL, partitions_from = NULL,
    live_majors = %(live_majors)s, opening = NULL, resumed_at = clock_timestamp(),
    status = 'running', stopped_code = NULL, stopped_detail = NULL, stopped_remedy = NULL, stopped_since = NULL,
    failed_offset = NULL, failed_tries = 0, failed_detail = NULL
WHERE source = %(source)s
"""

Ends = Mapping[str, Mapping[str, int]]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeFound:
    """What the topics have of one aggregate type: how many that are *there*, and how many are *deleted*."""

    aggregate: str
    there: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """
    What was found of *source*, and whether it was *done*.

    *events* were read; *epoch* is the highest that was ever told or claimed, as far as it is known.
    """

    source: str
    events: int
    epoch: int
    aggregates: list[TypeFound]
    done: bool = False

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """As text."""
        yield f"{self.source}: {self.events} events on the domain topics, highest epoch {self.epoch}"
        for each in self.aggregates:
            yield f"  {each.aggregate}: {each.there} there, {each.deleted} deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """
    What is asked for: *file* of the source; *really* do it, or only say what there is.

    *same_hash_key*: somebody says that the settings have the key with which the source was applied before.
    """

    file: SourceFile
    settings: Settings
    really: bool
    same_hash_key: bool = False
    progress: Progress = field(default=print)

    @property
    def brokers(self) -> Brokers:
        """Kafka."""
        return self.settings.kafka()


def rebuild(asked: Rebuilding) -> Rebuilt:
    """
    Make what the control database knows of a source anew.

    Raises:
        ConfigurationError: the topics or the control database do not allow it; what was begun is gone on with by the
            next call.
        TransientError: a part is not reachable; likewise.

    """
    source, settings = asked.file.source, asked.settings
    definition = declared(asked)
    # Aggregates are taken over in one statement, however many there are.
    with (
        translated(),
        connect(
            settings.control().url,
            application="rowcast sources rebuild",
            autocommit=True,
            settings="-c statement_timeout=0",
        ) as control,
    ):
        migrate(control)
        hold_lock(control, _LOCK, source)
        topics = _written_topics(definition, settings)
        epoch, former_ends = _known(control, definition, asked)
        last = LastEvents(definition, control)
        ends = read_ends(asked.brokers, topics)
        _refuse_cut(former_ends, ends)
        events = _read(last, asked, topics, {})
        found = _found(last, definition, events, max(epoch, told_epoch(asked.brokers, source)))
        if not asked.really:
            return found
        with ConnectClient(settings.connect()) as connect_api:
            connect_api.configuration(connector_name(source))  # it answers, before anything is touched
        withdrawn = _withdraw(control, definition)
        failpoint("rebuild.withdrawn")
        remove_capture(asked.file, settings, asked.progress)
        # Every older producer is fenced, and what it had begun ends: the topics cannot grow any more.
        Publisher(asked.brokers, source).close()
        failpoint("rebuild.fenced")
        settled = read_settled_ends(asked.brokers, source, topics)
        events += _read(last, asked, topics, ends)
        place = _place(asked, definition, settled)
        with _held(control, source, withdrawn):
            _take_over(control, last, place)
        failpoint("rebuild.taken_over")
        found = _found(last, definition, events, max(withdrawn, place["epoch"]))
    asked.progress("versions and last states are taken over from the domain topics")
    for change in apply([asked.file], settings):
        asked.progress(f"{change.action} {change.object}")
    return replace(found, done=True)


def declared(asked: Rebuilding) -> SourceDefinition:
    """The definition that `apply` would store, after everything that forbids it was refused."""
    file, settings = asked.file, asked.settings
    with translated(), connect_source(settings.database(file.database)) as connection:
        catalogue = read_catalogue(connection, file.tables)
        definition = with_hash_key(admit(file, contracts_of(file, settings), catalogue), settings)
        if connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
            where = f"database of source {file.source}"
            raise ConfigurationError("is a standby, which may be behind", where=where, fix="give the primary's address")
    return definition


def hold_lock(control: psycopg.Connection, lock: int, source: str) -> None:
    """
    Keep others who want the same *lock* for *source* out until the connection ends.

    Raises:
        ConfigurationError: somebody else has it.

    """
    row = control.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (lock, source)).fetchone()
    if row != (True,):
        raise ConfigurationError("is being recovered by somebody else", where=f"source {source}", fix="wait for it")


def _written_topics(definition: SourceDefinition, settings: Settings) -> dict[str, int]:
    """
    The topics that have events of the source, with their partitions: also those of majors that ended.

    Raises:
        ConfigurationError: one that is declared is not there, or is not as it is declared.

    """
    with TopicAdmin(settings.kafka()) as admin:
        plan_topics(definition, admin)  # refuses
        declared = (*definition.topics, PROGRESS_TOPIC)
        missing = sorted(set(declared) - admin.present(declared).keys())
        if missing:
            raise ConfigurationError(
                "is not there: it is the only one that tells what was published",
                where=f"topic {missing[0]}",
                fix="restore it; what was never published is taken out of the source file until the source is rebuilt",
            )
        names = [*definition.topics, *(each.topic for each in left_topics(definition, admin))]
        return {name: each.partitions for name, each in admin.present(names).items()}


def _known(control: psycopg.Connection, definition: SourceDefinition, asked: Rebuilding) -> tuple[int, Ends]:
    """
    What the control database says: the epoch, and the ends of the domain partitions; 0 and nothing where it is empty.

    Raises:
        ConfigurationError: personal data was hashed with another key, or nobody knows with which.

    """
    row = control.execute(_FORMER, (definition.source,)).fetchone()
    epoch, ends, applied = (0, None, None) if row is None else row
    # An `apply` to the empty database knows no more than the settings do.
    key = SourceDefinition.from_json(applied).hash_key_id if applied and ends else ""
    where = f"source {definition.source}"
    if key and definition.hash_key_id not in ("", key):
        raise ConfigurationError(
            "hashes personal data, and was applied with another key: every hash would be another one",
            where=where,
            fix="give the key with which it was applied; to change it, `rowcast sources remove`, then `apply`",
        )
    if definition.hash_key_id and not key and not asked.same_hash_key:
        raise ConfigurationError(
            "hashes personal data, and the control database does not know any more with which key",
            where=where,
            fix="make sure that the settings have the former key, then repeat with --same-hash-key",
        )
    return epoch, orjson.loads(ends) if ends else {}


def _refuse_cut(former: Ends, ends: Ends) -> None:
    """A topic that ends before what was written to it lacks versions, which would be used again."""
    for topic, offsets in former.items():
        for number, offset in offsets.items():
            if topic in ends and offset > ends[topic].get(number, 0):
                raise ConfigurationError(
                    f"was written up to offset {offset}, and ends before that: it lacks events",
                    where=f"topic {topic}/{number}",
                    fix="restore it, or start anew: docs/reference/stops.md",
                )


def _read(last: LastEvents, asked: Rebuilding, topics: Mapping[str, int], starts: Ends) -> int:
    """Take in what the topics have from *starts* on; how many events."""
    source = asked.file.source
    try:
        count = last.read(read_topics(asked.brokers, source, topics, starts))
    except MalformedEventError as error:
        raise ConfigurationError(
            f"a domain topic holds what the owner did not write: {error}",
            where=f"source {source}",
            fix="find the writer; a record without value deletes what tells the version of its key",
        ) from error
    lacking = last.lacking()
    if lacking is not None:
        raise ConfigurationError(
            f"version {lacking.known} was published, and the topics have {lacking.told or 'none'}",
            where=f"{source} {lacking.aggregate} {lacking.id_text}",
            fix="restore the domain topic, or start anew: docs/reference/stops.md",
        )
    return count


def _found(last: LastEvents, definition: SourceDefinition, events: int, epoch: int) -> Rebuilt:
    counts = last.counts()
    types = [
        TypeFound(aggregate=each.name, there=there, deleted=deleted)
        for each in definition.aggregates
        for there, deleted in [counts.get(each.name, (0, 0))]
    ]
    return Rebuilt(source=definition.source, events=events, epoch=epoch, aggregates=types)


def _withdraw(control: psycopg.Connection, definition: SourceDefinition) -> int:
    """Take the source out of the hands of whoever owns it, until it is applied: nobody claims it. Its epoch now."""
    document = definition.to_json().decode()
    row = control.execute(_WITHDRAW, (definition.source, document, definition.revision)).fetchone()
    assert row is not None, "a written row is returned"
    return int(row[0])


def _place(asked: Rebuilding, definition: SourceDefinition, ends: Ends) -> dict[str, Any]:
    """From where the new snapshot is read; the connector is gone, so the end of the change log does not move."""
    with TopicAdmin(asked.brokers) as admin:
        for step in plan_topics(definition, admin):  # the change log may be gone
            step.run()
    extent = read_extent(asked.brokers, definition.change_log)
    with connect_source(asked.settings.database(asked.file.database)) as connection:
        (lsn,) = connection.execute(_LSN).fetchone() or (0,)
    return {
        "source": definition.source,
        "definition": definition.to_json().decode(),
        "revision": definition.revision,
        # Claims count on from there, so nobody takes what comes for older than what was told.
        "epoch": told_epoch(asked.brokers, definition.source),
        "topic_id": extent.topic_id,
        "next_offset": extent.end,
        "commit_lsn": int(lsn),
        "end_offsets": orjson.dumps(
            {topic: ends[topic] for topic in definition.topics}, option=orjson.OPT_SORT_KEYS
        ).decode(),
        "live_majors": orjson.dumps({each.name: each.majors for each in definition.aggregates}).decode(),
    }


@contextmanager
def _held(control: psycopg.Connection, source: str, epoch: int) -> Iterator[None]:
    """A transaction in which the source is nobody's, as it was left."""
    with control.transaction():
        if control.execute(_HOLD, (source, epoch)).fetchone() is None:
            raise ConfigurationError("was applied meanwhile", where=f"source {source}", fix="rebuild it again")
        yield


def _take_over(control: psycopg.Connection, last: LastEvents, place: dict[str, Any]) -> None:
    for table in _EMPTIED:
        control.execute(f"DELETE FROM rowcast.{table} WHERE source = %s".encode(), (place["source"],))
    control.execute(_CLOSE_COMMANDS, (place["source"],))
    last.take_over()
    control.execute(_PLACE, place)
