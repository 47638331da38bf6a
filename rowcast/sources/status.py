"""
The truth about sources: connector and task, slot, publication, tables, worker, lag, heartbeat.

The connector's own word is the weakest of these: it may say RUNNING and be dead. The heartbeat goes through
the whole path, so its age decides. Everything that is wrong is a problem with a stable code and a remedy.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import psycopg
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from psycopg.rows import dict_row

from rowcast.connect import ConnectClient
from rowcast.control.database import connect as connect_control
from rowcast.control.halts import read_halts
from rowcast.control.remedies import STEPS, recovery_command
from rowcast.errors import BrokerUnavailableError, ConfigurationError, ConnectUnavailableError, DatabaseUnavailableError
from rowcast.halt import Halt
from rowcast.settings import Settings
from rowcast.sources.connector import connector_name
from rowcast.sources.control_plan import knows_sources, pending_migrations
from rowcast.sources.database_status import HEARTBEAT_AGE_MAX_S, read_database
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.health import Position, Problem, SourceStatus
from rowcast.sources.source_file import FOLDER, SourceFile
from rowcast.sources.subject import Subject, read_applied, subject_of, subject_without_file
from rowcast.sources.topic_plan import TopicAdmin
from rowcast.topics import change_log_topic


def read_statuses(sources: Iterable[SourceFile], settings: Settings, names: Sequence[str] = ()) -> list[SourceStatus]:
    """
    The status of each source, as it is now; and of the applied ones that have no file: those in *names*, or all.

    Never raises because something is down: that is a problem.
    """
    applied: dict[str, SourceDefinition] = {}
    # When it cannot be asked, the files have to do; the status of each source says that it is down.
    with suppress(ConfigurationError, DatabaseUnavailableError, psycopg.Error):
        applied = read_applied(settings)
    subjects = [subject_of(source, applied) for source in sources]
    lost = applied.keys() - {each.source for each in subjects}
    subjects += [subject_without_file(applied[name], settings) for name in sorted(lost) if not names or name in names]
    return [_read(subject, settings) for subject in subjects]


def _read(subject: Subject, settings: Settings) -> SourceStatus:
    status = SourceStatus(source=subject.source)
    if not subject.has_file:
        message = f"it was applied and has no file {FOLDER}/{subject.source}.yaml; it goes on all the same"
        status.problems.append(Problem("FILE_MISSING", message, f"put the file back, or {subject.remove}"))
    told: list[Problem] = []
    # Each part is asked by itself: one that is down must not hide what the others say.
    for read in (_read_connect, read_database, _read_control, _read_kafka):
        try:
            for problem in read(status, subject, settings):
                status.problems.append(problem)
                told += [problem] if read is read_database else []
        except (ConfigurationError, DatabaseUnavailableError, ConnectUnavailableError, BrokerUnavailableError) as error:
            status.problems.append(Problem("UNREACHABLE", str(error), _reach(settings)))
        except psycopg.Error as error:
            status.problems.append(Problem("UNREACHABLE", str(error).strip(), "see the database's log"))
    if status.position is not None and status.position.status != "stopped":
        # The database tells of the same tables, with a remedy for a source that has to begin anew.
        halted = {each["code"] for each in status.position.halted}
        status.problems = [each for each in status.problems if each not in told or each.code not in halted]
    return status


def _reach(settings: Settings) -> str:
    if settings.has_stack:
        return "`rowcast up` starts the stack of this project, `rowcast status` shows its parts; or correct its address"
    return "start it, or correct its address in rowcast.toml or the environment"


def _read_connect(status: SourceStatus, subject: Subject, settings: Settings) -> Iterator[Problem]:
    name = connector_name(subject.source)
    with ConnectClient(settings.connect()) as connect:
        found = status.connector = connect.status(name)
    if found is None:
        yield Problem("CONNECTOR_MISSING", f"connector {name} does not exist", subject.apply)
    elif found.failed:
        trace = found.trace.strip() or "no trace"
        yield Problem("CONNECTOR_FAILED", f"connector {name}: {trace}", f"{found.remedy}, then {subject.apply}")
    elif not found.running:
        yield Problem(
            "CONNECTOR_NOT_RUNNING",
            f"connector {name} is {found.state}, its task {found.task_state or 'missing'}",
            "resume it, or wait until its workers have rebalanced",
        )


def _read_control(status: SourceStatus, subject: Subject, settings: Settings) -> Iterator[Problem]:
    with connect_control(settings.control().url, application="rowcast sources", autocommit=True) as connection:
        halts: list[Halt] = []
        row, known, pending = None, knows_sources(connection), pending_migrations(connection)
        if not pending:
            with connection.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(_POSITION, (subject.source,)).fetchone()
            halts = read_halts(connection, subject.source)
    if known and pending:
        message = f"the control database lacks migrations {', '.join(pending)}"
        yield Problem("NOT_APPLIED", message, subject.apply)
        return
    if row is None:
        lost = f"`rowcast sources rebuild {subject.source} --yes`"
        remedy = f"{subject.apply}; where it was applied before, and the control database was lost: {lost}"
        yield Problem("NOT_APPLIED", "the source is not in the control database", remedy)
        return
    if row.pop("removed"):
        yield Problem("NOT_APPLIED", "the source was removed", f"{subject.apply}: it takes a new snapshot")
        return
    beat = orjson.loads(row.pop("heartbeat_text")) if row["heartbeat_text"] else row.pop("heartbeat_text")
    position = status.position = Position(**row, heartbeat=beat, halted=list(map(_halted, halts)))
    if beat is not None and isinstance(beat.get("at"), str):
        status.applied_heartbeat_age_s = (datetime.now(UTC) - datetime.fromisoformat(beat["at"])).total_seconds()
    if position.status == "stopped":
        message = f"the worker stopped the source: {position.stopped_code}: {position.stopped_detail}"
        yield Problem(position.stopped_code or "STOPPED", message, _remedy(subject.source, position))
    elif not position.held:
        yield Problem("NO_WORKER", "no worker owns the source", "start one: `rowcast worker`")
    elif position.age_s is not None and position.age_s > HEARTBEAT_AGE_MAX_S:
        message = f"the worker's position has not moved for {position.age_s:.0f} s, though a beat comes each second"
        yield Problem("POSITION_OLD", message, "see the worker's log and the connector's state")
    elif (status.applied_heartbeat_age_s or 0.0) > HEARTBEAT_AGE_MAX_S:
        message = f"the newest heartbeat that came through to the worker is {status.applied_heartbeat_age_s:.0f} s old"
        yield Problem("HEARTBEAT_DELAYED", message, "it catches up, or see the connector's state and Connect's log")
    if position.status != "stopped":
        for halt in halts:
            yield Problem(halt.code, halt.told(), halt.remedy(subject.source))


def _halted(halt: Halt) -> dict[str, str]:
    return {name: getattr(halt, name) for name in ("aggregate", "cause", "code", "message", "since")}


def _remedy(source: str, position: Position) -> str:
    """What the worker said, and the command that does all of it, where there is one."""
    told = position.stopped_remedy or "see the worker's log"
    command = recovery_command(source, position.stopped_code or "")
    return told if position.stopped_code not in STEPS or command in told else f"{told}, or {command}"


def _read_kafka(status: SourceStatus, subject: Subject, settings: Settings) -> Iterator[Problem]:
    topic = change_log_topic(subject.source)
    with TopicAdmin(settings.kafka()) as admin:
        if topic not in admin.present([topic]):
            yield Problem("CHANGE_LOG_MISSING", f"topic {topic} does not exist", subject.apply)
            return
        partition = TopicPartition(topic, 0)
        with admin.errors():
            offsets = {
                name: admin.client.list_partition_offsets({partition: spec})[partition].offset
                for name, spec in (
                    ("start", OffsetSpec.EARLIEST),
                    ("end", OffsetSpec.LATEST),
                    ("young", round(time.time() * 1000 - subject.change_log_window_ms / 2)),
                )
            }
    status.change_log_end = offsets["end"]
    next_offset = status.position.next_offset if status.position else None
    status.lag_records = offsets["end"] - (next_offset if next_offset is not None else offsets["start"])
    if next_offset is not None and not offsets["start"] <= next_offset <= offsets["end"]:
        message = f"the worker's offset {next_offset} is outside {topic} ({offsets['start']} to {offsets['end']})"
        yield Problem("POSITION_OUTSIDE_LOG", message, f"`rowcast sources rebuild {subject.source} --yes`")
    elif next_offset is not None and _leaves_window(next_offset, offsets):
        message = f"the next change to process is older than half the window of {topic}, which will forget it"
        yield Problem("POSITION_LEAVES_WINDOW", message, "mend what keeps the worker, or widen windows.change_log")


def _leaves_window(next_offset: int, offsets: Mapping[str, int]) -> bool:
    # "young" is the first record of the window's younger half; -1: all records are older.
    young = offsets["end"] if offsets["young"] < 0 else offsets["young"]
    return next_offset < min(young, offsets["end"])


_POSITION = """
SELECT removed, status, stopped_code, stopped_detail, stopped_remedy, epoch, holder,
       holder IS NOT NULL AND coalesce(lease_until > clock_timestamp(), false) AS held,
       next_offset, commit_lsn, extract(epoch FROM clock_timestamp() - position_at)::float8 AS age_s,
       heartbeat AS heartbeat_text,
       (SELECT count(*) FROM rowcast.aggregate a WHERE a.source = s.source AND refused_reason IS NOT NULL)
       + (SELECT count(*) FROM rowcast.refused_statement r WHERE r.source = s.source) AS refused
  FROM rowcast.source s WHERE source = %s
"""
