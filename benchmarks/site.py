"""
A source of its own for one measurement: databases, declarations, topics and connector under a name nobody else has.

It is the demo source (`connectors/inventory.yaml`) under another name, on the stack whose settings it is given.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError
from psycopg import sql

from benchmarks.child import REPOSITORY, Child
from benchmarks.errors import MeasureError
from benchmarks.local_web import call
from benchmarks.nesting import nest
from benchmarks.topic_watch import TopicWatch, read_all
from benchmarks.workload import Workload
from examples.inventory.catalogue import create_schema
from rowcast.connect import ConnectClient
from rowcast.control.database import connect as connect_control
from rowcast.errors import BrokerUnavailableError, RowcastError
from rowcast.settings import Settings, load_settings
from rowcast.sources.connector import connector_name
from rowcast.sources.control_plan import plan_definition, plan_migrations
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.plan import apply
from rowcast.sources.removal import remove
from rowcast.sources.source_file import load_sources
from rowcast.sources.topic_plan import Topic, TopicAdmin, wanted_topics
from rowcast.topics import PROGRESS_TOPIC, change_log_topic, domain_topic

AGGREGATES = ("instance", "holdings", "item")
_TIMEOUT_S = 60.0
_PAUSE_S = 0.05
# A slower snapshot is none.
_SNAPSHOT_ROWS_PER_S = 1_000
_HEARTBEAT_RECORDS = 10


class Site:
    """The source *name* in *folder*, on the stack that *stack* describes. `create` or an earlier run made it."""

    def __init__(self, folder: Path, stack: Settings) -> None:
        self.folder, self._stack = folder, stack
        self.name = folder.name

    @classmethod
    def create(cls, parent: Path, stack: Settings, workload: Workload | None = None) -> Site:
        """
        A new one for *workload*, applied and streaming; whatever goes wrong on the way, nothing of it is left.

        An initial workload is committed, and stands in the change log.
        """
        site = cls(parent / f"bench_{secrets.token_hex(4)}", stack)
        try:
            site._build(workload)
        except BaseException:
            with suppress(RowcastError, psycopg.Error, OSError):
                site.drop()
            raise
        return site

    @property
    def settings(self) -> Settings:
        """As any command in its folder would find them."""
        return load_settings(self.folder)

    @property
    def brokers(self) -> str:
        """Bootstrap servers."""
        return self._stack.need_brokers()

    @property
    def database_url(self) -> str:
        """The source database."""
        return self._stack.database(self.name).url

    @property
    def control_url(self) -> str:
        """The control database."""
        return self._stack.database(self._control_name).url

    def domain_topic(self, aggregate: str) -> str:
        """Where the events of *aggregate* are."""
        return domain_topic(self.name, aggregate, 1)

    @property
    def _control_name(self) -> str:
        return f"{self.name}_control"

    @property
    def _definition_file(self) -> Path:
        """The control database is made anew for every run of the sequencer, so the definition is kept beside it."""
        return self.folder / "definition.json"

    def definition(self) -> SourceDefinition:
        """As it was applied."""
        return SourceDefinition.from_json(self._definition_file.read_bytes())

    def new_consumer_database(self) -> str:
        """The url of an empty database for a consumer; one at a time."""
        name = f"{self.name}_consumer"
        self._drop_database(name)
        self._create_database(name)
        return self._stack.database(name).url

    def stop_capture(self) -> None:
        """Stop the connector; the slot keeps what is committed meanwhile."""
        with ConnectClient(self._stack.need_connect_url()) as connect:
            connect.stop(connector_name(self.name))
            connect.wait_stopped(connector_name(self.name), _TIMEOUT_S)

    def resume_capture(self) -> None:
        """Start the connector again; returns at once."""
        url = f"{self._stack.need_connect_url()}/connectors/{connector_name(self.name)}/resume"
        call(url, "PUT")

    def connector_settings(self) -> dict[str, str]:
        """The configuration of the connector, as Kafka Connect has it."""
        with ConnectClient(self._stack.need_connect_url()) as connect:
            return connect.configuration(connector_name(self.name)) or {}

    def forget_sequencing(self) -> None:
        """Make the control database and the domain topics new and empty; the change log stays."""
        definition = self.definition()
        self._drop_database(self._control_name)
        self._create_database(self._control_name)
        with connect_control(self.control_url, application="bench", autocommit=True) as control:
            for plan in (plan_migrations(self.name, control), plan_definition(definition, control)):
                for step in plan:
                    step.run()
        keep = {definition.change_log, PROGRESS_TOPIC}
        with TopicAdmin(self.settings.kafka()) as admin:
            self._renew_topics(admin, [each for each in wanted_topics(definition) if each.name not in keep])

    def worker(self, port: int = 0, name: str = "worker") -> Child:
        """A worker process for this source, with its web pages on *port*, or on any; it logs under *name*."""
        arguments = ["-m", "rowcast.cli.main", "--project", str(self.folder), "worker", "--web-port", str(port)]
        return Child(name, arguments, self.folder, {})

    def drop(self) -> None:
        """Delete everything that it has on the stack, and its folder."""
        try:
            for source in load_sources(self.folder):
                remove(source, self.settings, lambda _line: None)
        finally:
            with TopicAdmin(self.settings.kafka()) as admin:
                topics = [change_log_topic(self.name), *map(self.domain_topic, AGGREGATES)]
                if present := admin.present(topics):
                    admin.delete(list(present))
            for name in (self.name, self._control_name, f"{self.name}_consumer"):
                self._drop_database(name)
            shutil.rmtree(self.folder)

    def _build(self, workload: Workload | None) -> None:
        self._declare()
        if workload is not None and workload.nested:
            nest(self.folder / "connectors" / f"{self.name}.yaml", self.folder / "schemas" / self.name)
        self._create_database(self.name)
        self._create_database(self._control_name)
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            create_schema(connection)
        if workload is not None and workload.initial:
            workload.commit(self.database_url)
        apply(load_sources(self.folder), self.settings)
        with psycopg.connect(self.control_url) as control:
            row = control.execute("SELECT definition FROM rowcast.source WHERE source = %s", (self.name,)).fetchone()
        assert row is not None, "an applied source has its row"
        self._definition_file.write_text(row[0])
        if workload is not None and workload.initial:
            self._wait_snapshot(workload.rows)
        else:
            self._wait_streaming()

    def _declare(self) -> None:
        (self.folder / "connectors").mkdir(parents=True)
        text = (REPOSITORY / "connectors/inventory.yaml").read_text()
        for old, new in (
            ("source: inventory", f"source: {self.name}\ndomain: {self.name}"),
            ("database: inventory", f"database: {self.name}"),
            ("urn:rowcast:source:inventory", f"urn:rowcast:source:{self.name}"),
        ):
            text = text.replace(old, new)
        (self.folder / "connectors" / f"{self.name}.yaml").write_text(text)
        shutil.copytree(REPOSITORY / "schemas/inventory", self.folder / "schemas" / self.name)
        for path in (self.folder / "schemas").glob("*/*/*.json"):
            path.write_text(path.read_text().replace("schema:inventory.", f"schema:{self.name}."))
        self._write_settings()

    def _write_settings(self) -> None:
        entries = {self.name: self._stack.database(self.name), "rowcast": self._stack.database(self._control_name)}
        lines = [f'brokers = "{self.brokers}"', f'connect_url = "{self._stack.need_connect_url()}"']
        for name, entry in entries.items():
            lines += [f"[databases.{name}]", f'url = "{entry.url}"', f'connect_password = "{entry.connect_password}"']
        target = self.folder / "rowcast.toml"
        target.touch(mode=0o600)
        target.write_text("\n".join(lines) + "\n")

    def _create_database(self, name: str) -> None:
        self._administer(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _drop_database(self, name: str) -> None:
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._stack.database("postgres").url, autocommit=True) as connection:
            connection.execute(statement)

    def _wait_streaming(self) -> None:
        """Wait for the first heartbeat in the log: the snapshot of the empty tables is over."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        log = [change_log_topic(self.name)]
        while not any(b'"status":"END"' in (each.value or b"") for each in read_all(self.brokers, log)):
            if time.monotonic() > deadline_s:
                raise MeasureError(f"the connector of {self.name} does not stream after {_TIMEOUT_S:.0f} s")
            time.sleep(_PAUSE_S)

    def _wait_snapshot(self, rows: int) -> None:
        """Wait until so much stands behind a snapshot of *rows* that it can only be heartbeats: then it is over."""
        timeout_s = _TIMEOUT_S + rows / _SNAPSHOT_ROWS_PER_S
        deadline_s = time.monotonic() + timeout_s
        place = change_log_topic(self.name), 0
        watch = TopicWatch(self.brokers, [place])
        while watch.ends()[place] < rows + _HEARTBEAT_RECORDS:
            if time.monotonic() > deadline_s:
                raise MeasureError(f"the snapshot of {self.name} is not over after {timeout_s:.0f} s")
            time.sleep(_PAUSE_S)

    def _renew_topics(self, admin: TopicAdmin, topics: Sequence[Topic]) -> None:
        present = admin.present([each.name for each in topics])
        if present:
            admin.delete(list(present))
        for topic in topics:
            self._create_again(admin, topic)

    def _create_again(self, admin: TopicAdmin, topic: Topic) -> None:
        """A name is free again a moment after its topic was deleted."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                return admin.create(topic)
            except BrokerUnavailableError as error:
                busy = isinstance(error.__cause__, (TopicAlreadyExistsError, UnknownTopicOrPartitionError))
                if not busy or time.monotonic() > deadline_s:
                    raise
                time.sleep(_PAUSE_S)
