"""
The real stack that integration tests share, and throw-away projects on it.

`stack` starts PostgreSQL, Kafka and Connect once for the whole run; with ROWCAST_TEST_STACK set to a project
folder whose stack is up, it uses that one and leaves it running (quick local runs). Every project has names of
its own for database, control database, source, slot and topics, so that tests do not meet.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psycopg
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from psycopg import sql

from campaign.declaration import contract
from rowcast.connect import ConnectClient
from rowcast.local.stack import Stack
from rowcast.settings import DatabaseSettings, Settings, load_settings
from rowcast.sources.change import Change
from rowcast.sources.connector import connector_name, slot_name
from rowcast.sources.plan import apply, plan
from rowcast.sources.source_file import SourceFile, load_sources

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent
# Popped, because settings refuse ROWCAST_ names that they do not know.
_REUSED = os.environ.pop("ROWCAST_TEST_STACK", None)


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """The first true value of *condition*; fails after *timeout_s* with *what* was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:.0f} s: {what} (last: {value!r})")
        time.sleep(0.05)


def random_name(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}_{secrets.token_hex(4)}"


@dataclass
class SharedStack:
    """The running stack: *folder* is its project."""

    folder: Path
    settings: Settings
    stack: Stack

    @property
    def brokers(self) -> str:
        """Bootstrap servers."""
        return self.settings.need_brokers()

    @property
    def connect_url(self) -> str:
        """Connect's REST address."""
        return self.settings.need_connect_url()

    def new_database(self, prefix: str = "db") -> DatabaseSettings:
        """A fresh, empty database with a name of its own."""
        name = random_name(prefix)
        with psycopg.connect(self.settings.database("postgres").url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.settings.database(name)

    def new_project(self, folder: Path, **changes: str) -> TestProject:
        """
        A project in *folder* with a fresh source and control database: the demo source under names of its own.

        *changes* replace text in the source file: ``partitions="5"`` sets the number after ``partitions:``.
        """
        name = random_name("t")
        database, control = self.new_database("src"), self.new_database("ctl")
        (folder / "connectors").mkdir(parents=True)
        declared = "\n".join(
            f'[databases.{key}]\nurl = "{entry.url}"\nconnect_password = "{entry.connect_password}"\n'
            for key, entry in ((name, database), ("rowcast", control))
        )
        (folder / "rowcast.toml").write_text(
            f'brokers = "{self.brokers}"\nconnect_url = "{self.connect_url}"\n{declared}'
        )
        _copy_schemas(folder / "schemas" / name, name)
        project = TestProject(folder, name, self)
        project.write_source(**changes)
        project.execute((REPOSITORY / "examples/inventory/schema.sql").read_text())
        return project


def _copy_schemas(target: Path, domain: str) -> None:
    shutil.copytree(REPOSITORY / "schemas/inventory", target)
    for path in target.glob("*/*.json"):
        path.write_text(path.read_text().replace("schema:inventory.", f"schema:{domain}."))


@dataclass
class TestProject:
    """A throw-away project; *name* is its source, its domain and the name of its database in the settings."""

    __test__ = False  # not a class of tests, whatever it is called

    folder: Path
    name: str
    stack: SharedStack
    _connection: psycopg.Connection[Any] | None = field(default=None, repr=False)

    @property
    def settings(self) -> Settings:
        """The settings of the project."""
        return load_settings(self.folder, {})

    @property
    def source_path(self) -> Path:
        """The source file."""
        return self.folder / "connectors" / f"{self.name}.yaml"

    def write_source(self, **changes: str) -> None:
        """Write the demo's source file under this project's names, with other values for some fields."""
        lines = (REPOSITORY / "connectors/inventory.yaml").read_text()
        lines = lines.replace("source: inventory", f"source: {self.name}\ndomain: {self.name}")
        lines = lines.replace("database: inventory", f"database: {self.name}")
        lines = lines.replace("urn:rowcast:source:inventory", f"urn:rowcast:source:{self.name}")
        for key, value in changes.items():
            head, colon, tail = lines.partition(f"{key}: ")
            assert colon, f"the demo source file has no field {key}"
            rest = tail[min(tail.index(mark) for mark in ",}\n" if mark in tail) :]
            lines = f"{head}{colon}{value}{rest}"
        self.source_path.write_text(lines)

    def write_contract(self, aggregate: str, above: tuple[str, ...], properties: Mapping[str, Any]) -> None:
        """Commit v2.0 of a contract with *properties*, each a schema without description."""
        path = self.folder / "schemas" / self.name / aggregate / "v2.0.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(contract(self.name, aggregate, "2.0", above, properties)))

    def sources(self) -> tuple[SourceFile, ...]:
        """The declared sources."""
        return load_sources(self.folder)

    def plan(self) -> list[Change]:
        """What `rowcast sources plan` finds."""
        return plan(self.sources(), self.settings)

    def apply(self) -> list[Change]:
        """What `rowcast sources apply` does."""
        return apply(self.sources(), self.settings)

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """An autocommit connection to the source database."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.settings.database(self.name).url, autocommit=True)
        return self._connection

    def execute(self, statement: str, *parameters: object) -> psycopg.Cursor[Any]:
        """Run a statement in the source database, committed at once."""
        return self.connection.execute(statement.encode(), parameters or None)

    def control(self) -> psycopg.Connection[Any]:
        """A new autocommit connection to the control database."""
        return psycopg.connect(self.settings.control().url, autocommit=True)

    def admin(self) -> KafkaAdminClient:
        """A Kafka administration client; close it."""
        return KafkaAdminClient(bootstrap_servers=self.stack.brokers)

    def change_log(self, done: Callable[[list[dict[str, Any]]], object], timeout_s: float = 30.0) -> list[Any]:
        """The values of the change log from its beginning, read until *done* is content with them."""
        partition = TopicPartition(f"{self.name}.changes", 0)
        consumer = KafkaConsumer(bootstrap_servers=self.stack.brokers, isolation_level="read_committed", group_id=None)
        values: list[dict[str, Any]] = []
        try:
            consumer.assign([partition])
            consumer.seek(partition, 0)

            def read() -> object:
                for records in consumer.poll(200).values():
                    values.extend(orjson.loads(record.value) for record in records if record.value is not None)
                return done(values)

            wait_until(read, f"records of {partition.topic}", timeout_s)
        finally:
            consumer.close()
        return values

    def close(self) -> None:
        """Delete the connector and drop the slot, so that the shared stack stays light."""
        with ConnectClient(self.stack.connect_url) as connect:
            connect.delete(connector_name(self.name))
        wait_until(self._drop_slot, "the slot is free")
        self.connection.close()

    def _drop_slot(self) -> bool:
        query = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
        try:
            self.execute(query, slot_name(self.name))
        except psycopg.errors.ObjectInUse:
            return False  # a task that was about to start when its connector was deleted holds it for a moment
        return True


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """The running stack, shared by all tests of a run."""
    folder = Path(_REUSED).resolve() if _REUSED else tmp_path_factory.mktemp("stack")
    shared = Stack(folder)
    shared.up()
    try:
        yield SharedStack(folder, load_settings(folder, {}), shared)
    finally:
        if not _REUSED:
            shared.down(wipe=True)


@pytest.fixture
def project(stack: SharedStack, tmp_path: Path) -> Iterator[TestProject]:
    """A throw-away project on the shared stack; nothing is applied yet."""
    made = stack.new_project(tmp_path / "project")
    try:
        yield made
    finally:
        made.close()
