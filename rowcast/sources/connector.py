"""
The connector of a source: its name, slot and publication, and every setting of its configuration.

Pure. Each setting is set explicitly where the default would lose data, leak it or stall; the reason stands
beside it. docs/reference/settings.md lists them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rowcast.annotation import CONTEXT_PREFIX, STATED_PREFIX
from rowcast.contracts.personal_data import MASK, Handling, together
from rowcast.errors import ConfigurationError
from rowcast.settings import DatabaseSettings
from rowcast.sources.column_type import UNAVAILABLE
from rowcast.sources.definition import SourceDefinition, TableDefinition
from rowcast.sources.heartbeat import HEARTBEAT_PREFIX, heartbeat_query, qualified, quoted
from rowcast.sources.shielded_column import all_rules
from rowcast.sources.tenant import TenantPattern, is_pattern

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
HEARTBEAT_INTERVAL_MS = 1_000
NOTIFICATIONS_SUFFIX = "notifications"
_QUEUE_BYTES_MAX = 64 * 1024 * 1024
_JSON = "org.apache.kafka.connect.json.JsonConverter"
_TEXT = re.compile(r"text|character varying(\([0-9]+\))?")
_SSL = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_SECRETS = ("password", "sslpassword")
_REFERENCE = re.compile(r"\$\{[^{}:]+:[^{}]+\}")
_REFERENCE_FIX = (
    "declare the database in rowcast.toml with connect_password, a reference for Connect's config providers such as"
    " ${file:/etc/connect/secrets.properties:password}"
)


def connector_name(source: str) -> str:
    """The connector's name in Kafka Connect."""
    return f"rowcast-{source}"


def slot_name(source: str) -> str:
    """The replication slot; one for each source, never shared."""
    return f"rowcast_{source}"


def publication_name(source: str) -> str:
    """The publication in the source database."""
    return f"rowcast_{source}"


def worker_group(source: str) -> str:
    """The group that a worker names to the brokers; nothing is committed to it, the lease decides who works."""
    return f"rowcast-{source}"


def transactional_id(source: str) -> str:
    """The transactional id with which workers write the domain topics of *source*: a new owner fences the former."""
    return f"rowcast.{source}"


def connector_configuration(
    definition: SourceDefinition, database: DatabaseSettings, *, server_version: int
) -> dict[str, str]:
    """
    The whole configuration, as Kafka Connect keeps it.

    Raises:
        ConfigurationError: the database's url cannot be given to a connector, or would put a password there.

    """
    source = definition.source
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        **_database(database),
        **_position(source, server_version),
        **_capture(definition),
        **_snapshot(definition),
        **_keys(definition),
        **_forms(),
        **_masks(definition),
        **_delivery(definition),
        "heartbeat.interval.ms": str(HEARTBEAT_INTERVAL_MS),
        "heartbeat.action.query": heartbeat_query(definition, publication_name(source)),
        # A restarting database comes back by itself within 3 minutes; after that the task fails, visibly.
        "errors.max.retries": "60",
        "retriable.restart.connector.wait.ms": "3000",
        "event.converting.failure.handling.mode": "fail",  # the default turns what it cannot convert into null
        "event.processing.failure.handling.mode": "fail",
    }


def _database(database: DatabaseSettings) -> dict[str, str]:
    parameters = {name: str(value) for name, value in database.connect_parameters().items()}
    where = database.where or f"database {database.name!r}"
    host = parameters.get("hostaddr") or parameters.get("host", "")
    if not host or host.startswith("/") or "," in host or "," in parameters.get("port", ""):
        raise ConfigurationError(
            "its url names no single TCP host, and a connector needs one",
            where=where,
            fix='connect_url = "host=… port=…" with the name that always leads to the primary',
        )
    if "dbname" not in parameters or "user" not in parameters:
        raise ConfigurationError("its url names no user or database", where=where, fix="postgresql://user@host/name")
    entry = {
        "database.hostname": host,
        "database.port": parameters.get("port", "5432"),
        "database.user": parameters["user"],
        "database.dbname": parameters["dbname"],
    }
    if database.connect_password is not None:
        parameters["password"] = database.connect_password
    elif "password" not in parameters and database.has_password:
        # Connect shows a configuration to whoever asks, and keeps it in a topic.
        raise ConfigurationError("its password would stand in plain text in Connect", where=where, fix=_REFERENCE_FIX)
    for name in _SECRETS:
        if name in parameters:
            if not _REFERENCE.fullmatch(parameters[name]):
                setting = "connect_password" if name == "password" else f"connect_url: {name}"
                message = "is no reference, and would stand in plain text in Connect"
                raise ConfigurationError(message, where=f"{where}.{setting}", fix=_REFERENCE_FIX)
            entry[f"database.{name}"] = parameters[name]
    if parameters.get("sslrootcert") == "system":
        del parameters["sslrootcert"]
        entry["database.sslfactory"] = "org.postgresql.ssl.DefaultJavaSSLFactory"  # whom Java trusts
    for name in _SSL:
        if name in parameters:
            entry[f"database.{name}"] = parameters[name]
    return entry


def _position(source: str, server_version: int) -> dict[str, str]:
    return {
        "plugin.name": "pgoutput",
        "slot.name": slot_name(source),
        "slot.drop.on.stop": "false",  # a dropped slot is a hole in the log
        # A promoted standby then has the slot; earlier servers cannot keep it, and a resync is needed.
        "slot.failover": "true" if server_version >= 170_000 else "false",
        "publication.name": publication_name(source),
        "publication.autocreate.mode": "disabled",  # ours, made before the slot
        "offset.mismatch.strategy": "trust_offset",  # a slot that is ahead was recreated: fail, never skip
        "lsn.flush.mode": "connector",  # nothing but delivered records moves the slot
        "status.update.interval.ms": "5000",  # well below a wal_sender_timeout of 10 s
        "snapshot.mode": "initial",
    }


def _capture(definition: SourceDefinition) -> dict[str, str]:
    tables = [_pattern(table.name) for table in definition.tables]
    columns = [_pattern(f"{table.name}.{column.name}") for table in definition.tables for column in table.columns]
    return {
        "table.include.list": ",".join(tables),
        # What no contract names never reaches the change log.
        "column.include.list": ",".join(columns),
        "skipped.operations": "none",  # the default leaves TRUNCATE out
        "message.prefix.include.list": ",".join(map(re.escape, (HEARTBEAT_PREFIX, CONTEXT_PREFIX, STATED_PREFIX))),
        "provide.transaction.metadata": "true",
        "tombstones.on.delete": "false",  # the change log is not compacted
        "extended.headers.enabled": "false",
        "include.unknown.datatypes": "true",  # nothing is left out silently
        "notification.enabled.channels": "sink",
        "notification.sink.topic.name": f"{definition.source}.{NOTIFICATIONS_SUFFIX}",
    }


def _pattern(name: str) -> str:
    """
    *name* as a regular expression in a list: Debezium splits at commas and strips blanks.

    What stands for a tenant is as the database has it: Debezium itself would not tell upper from lower case.
    """
    schema, dot, rest = name.partition(".")
    if is_pattern(schema):
        table, column_dot, column = rest.partition(".")
        pattern = TenantPattern.read(f"{schema}{dot}{table}").expression
        return f"(?-i){pattern}" + _pattern(column_dot + column)
    return re.sub(r"\\?([\s,])", lambda found: f"\\x{{{ord(found[1]):x}}}", re.escape(name))


_OVERRIDES = "snapshot.select.statement.overrides"


def _snapshot(definition: SourceDefinition) -> dict[str, str]:
    """
    What a first snapshot reads of tables with dates: dates as days since 1970.

    As dates they would come through a calendar that takes those before 1582-10-15 for others, and has no BC.
    """
    dated = [table for table in definition.tables if any(column.type == "date" for column in table.columns)]
    if not dated:
        return {}
    return {
        _OVERRIDES: ",".join(table.name for table in dated),
        **{f"{_OVERRIDES}.{table.name}": _snapshot_query(table) for table in dated},
    }


def _keys(definition: SourceDefinition) -> dict[str, str]:
    """
    Where an index is the replica identity, its columns are the key, so that another value is a deletion and an insert.

    The primary key may not be in the WAL of changes there.
    """
    indexed = [table for table in definition.tables if table.replica_identity == "i"]
    keys = ";".join(f"{re.escape(table.name)}:{','.join(table.key)}" for table in indexed)
    return {"message.key.columns": keys} if keys else {}


def _snapshot_query(table: TableDefinition) -> str:
    columns = ", ".join(
        f"CASE {quoted(column.name)} WHEN 'infinity' THEN 2147483647 WHEN '-infinity' THEN -2147483648"
        f" ELSE {quoted(column.name)} - date '1970-01-01' END::bigint AS {quoted(column.name)}"
        if column.type == "date"
        else quoted(column.name)
        for column in table.columns
    )
    return f"SELECT {columns} FROM {qualified(table.name)}"


def _forms() -> dict[str, str]:
    return {
        "key.converter": _JSON,
        "key.converter.schemas.enable": "false",
        "value.converter": _JSON,
        "value.converter.schemas.enable": "false",
        # The default turns a NULL into the column's default.
        "value.converter.replace.null.with.default": "false",
        "time.precision.mode": "isostring",
        "decimal.handling.mode": "string",  # exact
        "interval.handling.mode": "string",  # the default is an inexact number
        # JSON has them as base64 all the same, and only so a binary value that is not in the WAL is said to be missing.
        "binary.handling.mode": "bytes",
        "hstore.handling.mode": "json",
        # The default may well stand in a column, where somebody keeps what a connector wrote.
        "unavailable.value.placeholder": UNAVAILABLE,
    }


def _masks(definition: SourceDefinition) -> dict[str, str]:
    """
    Masked texts are masked here already, so that the change log does not have them.

    The connector masks NULL too, which has to stay null, and knows no other way to hash than with a key that Connect
    shows: the rest is the worker's.
    """
    tables = {table.name: {column.name: column for column in table.columns} for table in definition.tables}
    masked = [
        _pattern(f"{rules.table}.{name}")
        for aggregate in definition.aggregates
        for rules in all_rules(aggregate)
        for name, treatment in rules.shielded().items()
        if (column := tables[rules.table].get(name)) is not None
        and together([treatment])[1] is Handling.MASK
        and not column.nullable
        and _TEXT.fullmatch(column.type)
    ]
    return {f"column.mask.with.{len(MASK)}.chars": ",".join(masked)} if masked else {}


def _delivery(definition: SourceDefinition) -> dict[str, str]:
    return {
        "topic.prefix": definition.source,
        "transforms": "route",
        "transforms.route.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.route.regex": ".*",
        "transforms.route.replacement": definition.change_log,
        "exactly.once.support": "required",
        "transaction.boundary": "poll",
        # Debezium gathers for this long, then writes one Kafka transaction: 5 ms asks twice as
        # often while nothing happens; the default of 500 is half a second of delay.
        "poll.interval.ms": "10",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "max.queue.size.in.bytes": str(_QUEUE_BYTES_MAX),  # the default has no limit
        "producer.override.acks": "all",
        "producer.override.compression.type": "lz4",
        "producer.override.batch.size": "262144",
        "producer.override.max.request.size": str(MESSAGE_BYTES_MAX),
        "producer.override.delivery.timeout.ms": "120000",
        "producer.override.request.timeout.ms": "10000",  # a silent broker is dialled anew, not after 30 s
        # A task whose producer failed waits for its own open transaction before it says FAILED; the default of
        # 60 s would let it look like RUNNING that long.
        "producer.override.transaction.timeout.ms": "20000",
    }


def changed_settings(wanted: Mapping[str, str], present: Mapping[str, Any]) -> list[str]:
    """The names of the settings that differ; Connect adds ``name`` by itself."""
    names = wanted.keys() | (present.keys() - {"name"})
    return sorted(name for name in names if wanted.get(name) != present.get(name))
