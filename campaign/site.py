"""What one round has for itself in the standing stack: databases, source, topics, connector, worker and consumer."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import requests
from psycopg import sql

from benchmarks.local_web import call
from campaign import applier
from campaign.declaration import contract, properties, source_file, table_statements
from campaign.process import Role
from campaign.random_schema import Type
from campaign.roads import (
    CONNECT_KAFKA,
    CONNECT_SOURCE,
    CONSUMER_DATABASE,
    CONSUMER_KAFKA,
    WORKER_CONNECT,
    WORKER_CONTROL,
    WORKER_KAFKA,
    Roads,
)
from campaign.stand import CONTROL, SOURCE, Stand
from rowcast.connect import ConnectClient
from rowcast.errors import RowcastError
from rowcast.settings import Settings, load_settings
from rowcast.sources import plan
from rowcast.sources.connector import NOTIFICATIONS_SUFFIX, connector_name
from rowcast.sources.source_file import load_sources
from rowcast.sources.topic_plan import TopicAdmin
from rowcast.topics import change_log_topic, domain_topic

_SLOT_TIMEOUT_S = 30.0
_PAUSE_S = 0.1
_EXACTLY_ONCE = ("exactly.once.support", "transaction.boundary")


class Site:
    """A source called like its *folder*, with *types*; `create` makes it, `drop` leaves nothing of it."""

    def __init__(self, folder: Path, stand: Stand, types: Sequence[Type]) -> None:
        self.folder, self._stand, self.types = folder, stand, types
        self._aggregates = [each for each in types if each.is_aggregate]
        self.name = folder.name
        self._databases = {"": SOURCE, "_control": CONTROL, "_consumer": CONTROL}
        self.roads = Roads(
            source_url=self.source_url,
            control_url=self._url("_control"),
            brokers=self.brokers,
            connect_url=stand.settings.need_connect_url(),
        )

    @classmethod
    def create(cls, parent: Path, stand: Stand, types: Sequence[Type]) -> Site:
        """A new one with empty tables; nothing captures them yet."""
        folder = parent / f"c_{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        site = cls(folder, stand, types)
        try:
            for suffix in site._databases:
                site._administer(suffix, "CREATE DATABASE {}")
            with psycopg.connect(site.consumer_url, autocommit=True) as connection:
                connection.execute(applier.TABLES)
            site._declare()
        except BaseException:
            site.drop()
            raise
        return site

    @property
    def brokers(self) -> str:
        """Bootstrap servers, reached directly."""
        return self._stand.settings.need_brokers()

    @property
    def source_url(self) -> str:
        """The source's database, reached directly."""
        return self._url("")

    @property
    def consumer_url(self) -> str:
        """The consumer's database, reached directly."""
        return self._url("_consumer")

    @property
    def topics(self) -> list[str]:
        """The domain topics."""
        return [domain_topic(self.name, each.name, 1) for each in self._aggregates]

    @property
    def _offsets(self) -> str:
        return f"{self.name}.offsets"

    @property
    def connector(self) -> str:
        """The name of its connector."""
        return connector_name(self.name)

    def connect(self) -> ConnectClient:
        """A client of Connect, reached directly."""
        return ConnectClient(self._stand.settings.need_connect_url())

    def create_tables(self, rng: random.Random, constrained: frozenset[str]) -> None:
        """The source's tables, with foreign keys that are checked at COMMIT where they are *constrained*."""
        with psycopg.connect(self.source_url, autocommit=True) as connection:
            for statement in table_statements(rng, self.types):
                connection.execute(statement.encode())
            for made in self.types:
                if made.name in constrained and made.parent is not None:
                    link, key = ", ".join(made.link), ", ".join(made.parent.key)
                    connection.execute(
                        f"ALTER TABLE {made.name} ADD FOREIGN KEY ({link}) REFERENCES {made.parent.name} ({key})"
                        " DEFERRABLE INITIALLY DEFERRED".encode()
                    )

    def apply(self, *, exactly_once: bool, roads: bool) -> None:
        """
        What `rowcast sources apply` does, with every road of the connector through its proxy.

        Not through *roads* where a command is to set it up anew, which knows of none.
        """
        if not roads:
            plan.apply(load_sources(self.folder), self.settings)
            return
        source = self.settings.database(self.name)
        through = replace(source, url=self.roads.through(CONNECT_SOURCE, source.url))
        settings = replace(self.settings, databases={**self.settings.databases, self.name: through})
        with self._connector_settings(exactly_once=exactly_once):
            plan.apply(load_sources(self.folder), settings)

    @property
    def settings(self) -> Settings:
        """As any command in its folder finds them."""
        return load_settings(self.folder, {})

    def worker(self, name: str, limits: str) -> Role:
        """A worker that is not started yet, with *limits* of its own (empty: the usual ones)."""
        environment = {
            "ROWCAST_LIMITS": limits,
            "ROWCAST_BROKERS": self.roads[WORKER_KAFKA].address,
            "ROWCAST_CONNECT_URL": f"http://{self.roads[WORKER_CONNECT].address}",
            "ROWCAST_DATABASE_ROWCAST": self.roads.through(WORKER_CONTROL, self._url("_control")),
        }
        arguments = ["-m", "rowcast.cli.main", "--project", str(self.folder), "worker", "--web-port", "0"]
        return Role(name, arguments, self.folder, environment)

    def consumer(self, name: str, how: str, failing: float) -> Role:
        """A live consumer that is not started yet; such a share of its handlers' calls fails."""
        environment = {
            applier.FAILING: str(failing),
            applier.BROKERS: self.roads[CONSUMER_KAFKA].address,
            applier.DATABASE: self.roads.through(CONSUMER_DATABASE, self.consumer_url),
        }
        arguments = ["-m", "campaign.applier", how, self.name, *(each.name for each in self._aggregates)]
        return Role(name, arguments, self.folder, environment)

    def place_is_stored(self) -> bool:
        """Whether Connect knows a place of the connector behind its snapshot: until then its death is that of this."""
        url = self._stand.settings.need_connect_url()
        with suppress(requests.RequestException):
            offsets = call(f"{url}/connectors/{self.connector}/offsets").json()["offsets"]
            return bool(offsets) and all("snapshot" not in each["offset"] for each in offsets)
        return False

    def rewind_consumer(self) -> None:
        """As the SDK's documentation has it for whoever wants to read again."""
        with psycopg.connect(self.consumer_url, connect_timeout=5) as connection:
            connection.execute("UPDATE rowcast_inbox.offset_position SET next_offset = 0, generation = generation + 1")

    def stop_code(self) -> str | None:
        """Why the source is stopped, as the pipeline says it; None: it is not. For no check."""
        with psycopg.connect(self._url("_control"), connect_timeout=5) as connection:
            query = "SELECT stopped_code FROM rowcast.source WHERE source = %s AND status = 'stopped'"
            row = connection.execute(query, (self.name,)).fetchone()
        return None if row is None else str(row[0])

    def lose_control(self) -> None:
        """An empty control database stands where it was."""
        with self._closed_control() as administer:
            administer("DROP DATABASE {control}")
            administer("CREATE DATABASE {control}")

    def copy_control(self) -> None:
        """Keep the control database as it is now."""
        with self._closed_control() as administer:
            administer("DROP DATABASE IF EXISTS {copy}")
            administer("CREATE DATABASE {copy} TEMPLATE {control}")

    def restore_control(self) -> None:
        """The control database goes back to the copy."""
        with self._closed_control() as administer:
            administer("DROP DATABASE {control}")
            administer("CREATE DATABASE {control} TEMPLATE {copy}")

    @contextmanager
    def _closed_control(self) -> Iterator[Callable[[str], object]]:
        """What administers the server of the control database, from which everybody is kept out meanwhile."""
        control = f"{self.name}_control"
        names = {"control": sql.Identifier(control), "copy": sql.Identifier(f"{self.name}_copy")}
        url = self._stand.database_url(CONTROL, "postgres")
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as server:
            there = server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (control,)).fetchone()
            if there is None:  # a former call was interrupted
                server.execute(sql.SQL("CREATE DATABASE {control}").format(**names))
            server.execute(sql.SQL("ALTER DATABASE {control} ALLOW_CONNECTIONS false").format(**names))
            server.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (control,)
            )
            yield lambda statement: server.execute(sql.SQL(statement).format(**names))
            server.execute(sql.SQL("ALTER DATABASE {control} ALLOW_CONNECTIONS true").format(**names))

    def drop(self) -> None:
        """Delete everything that it has in the stack; its folder with the logs stays."""
        with suppress(RowcastError), self.connect() as connect:
            connect.delete(self.connector)
        with suppress(psycopg.Error), psycopg.connect(self.source_url, autocommit=True) as connection:
            self._drop_slots(connection)
        self.roads.close()
        with suppress(RowcastError), TopicAdmin(self.settings.kafka()) as admin:
            names = [change_log_topic(self.name), f"{self.name}.{NOTIFICATIONS_SUFFIX}", self._offsets, *self.topics]
            if present := admin.present(names):
                admin.delete(list(present))
        self._databases["_copy"] = CONTROL  # if there is one
        for suffix in self._databases:
            self._administer(suffix, "DROP DATABASE IF EXISTS {} WITH (FORCE)")

    def forget(self) -> None:
        """Delete the folder too."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drop_slots(self, connection: psycopg.Connection[Any]) -> None:
        """Its connector is deleted, and its task may not have noticed yet."""
        deadline_s = time.monotonic() + _SLOT_TIMEOUT_S
        query = "FROM pg_replication_slots WHERE database = current_database()"
        while connection.execute(f"SELECT 1 {query}").fetchone() and time.monotonic() < deadline_s:
            connection.execute(f"SELECT pg_terminate_backend(active_pid) {query} AND active")
            with suppress(psycopg.errors.ObjectInUse):
                connection.execute(f"SELECT pg_drop_replication_slot(slot_name) {query} AND NOT active")
            time.sleep(_PAUSE_S)

    def _url(self, suffix: str) -> str:
        return self._stand.database_url(self._databases[suffix], f"{self.name}{suffix}")

    def _administer(self, suffix: str, statement: str) -> None:
        name = sql.Identifier(f"{self.name}{suffix}")
        with psycopg.connect(
            self._stand.database_url(self._databases[suffix], "postgres"), autocommit=True
        ) as connection:
            connection.execute(sql.SQL(statement).format(name))

    def _declare(self) -> None:
        (self.folder / "connectors").mkdir()
        path = self.folder / "connectors" / f"{self.name}.yaml"
        path.write_text(json.dumps(source_file(self.name, self.types)))
        for made in self._aggregates:
            folder = self.folder / "schemas" / self.name / made.name
            folder.mkdir(parents=True)
            text = json.dumps(contract(self.name, made.name, "1.0", made.above, properties(made)))
            (folder / "v1.0.json").write_text(text)
        secret = self._stand.settings.database(self.name).connect_password
        lines = [f'brokers = "{self.brokers}"', f'connect_url = "{self._stand.settings.need_connect_url()}"']
        for name, url in ((self.name, self.source_url), ("rowcast", self._url("_control"))):
            lines += [f"[databases.{name}]", f'url = "{url}"', f'connect_password = "{secret}"']
        target = self.folder / "rowcast.toml"
        target.touch(mode=0o600)
        target.write_text("\n".join(lines) + "\n")

    @contextmanager
    def _connector_settings(self, *, exactly_once: bool) -> Iterator[None]:
        """
        What a connector is told besides: its producer's road, and nothing of Kafka transactions where there are none.

        Both stand for what the operator of a Connect cluster decides, so the product has no setting for them.
        """
        module: Any = sys.modules[plan.__name__]
        derive = module.connector_configuration

        def changed(*arguments: Any, **options: Any) -> dict[str, str]:
            derived = derive(*arguments, **options)
            derived["producer.override.bootstrap.servers"] = self.roads[CONNECT_KAFKA].address
            # Else Connect, which takes the topic of its own address for another one, notes the offsets of transactions
            # in it before they are committed.
            derived["offsets.storage.topic"] = self._offsets
            return {name: value for name, value in derived.items() if exactly_once or name not in _EXACTLY_ONCE}

        module.connector_configuration = changed
        try:
            yield
        finally:
            module.connector_configuration = derive
