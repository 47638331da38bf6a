"""Kafka Connect of the embedded stack: one distributed worker with Debezium's PostgreSQL connector, on loopback."""

from __future__ import annotations

import threading
from pathlib import Path

import requests

from rowcast.local.jars import JarFolder
from rowcast.local.java import java_command
from rowcast.local.processes import Command
from rowcast.local.state import StackState, properties_text, write_private

_HEAP_MB = 384
_JSON = "org.apache.kafka.connect.json.JsonConverter"

SETTINGS = {
    "key.converter": _JSON,
    "key.converter.schemas.enable": "false",
    "value.converter": _JSON,
    "value.converter.schemas.enable": "false",
    "config.storage.topic": "rowcast.connect.configs",
    "config.storage.replication.factor": 1,
    "offset.storage.topic": "rowcast.connect.offsets",
    "offset.storage.replication.factor": 1,
    "offset.storage.partitions": 1,
    "status.storage.topic": "rowcast.connect.status",
    "status.storage.replication.factor": 1,
    "status.storage.partitions": 1,
    "exactly.once.source.support": "enabled",
    "connector.client.config.override.policy": "All",
    # It starts together with Kafka and would otherwise give up after 60 s on a busy machine.
    "default.api.timeout.ms": 180_000,
    # Until a connector without exactly-once support has flushed its first offset, its death is that of its snapshot.
    "offset.flush.interval.ms": 1000,
    "scheduled.rebalance.max.delay.ms": 10000,  # the default of 300 s is the whole promise of freshness
    "plugin.discovery": "service_load",
    "config.providers": "file",
    "config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
}


class ConnectPart:
    """The Connect worker of one stack."""

    name = "connect"
    ports = ("connect",)

    def __init__(self, state: StackState, jars: JarFolder) -> None:
        self._state = state
        self._jars = jars
        self.log = state.folder / "logs" / "connect.log"

    @property
    def url(self) -> str:
        """The REST address."""
        return f"http://127.0.0.1:{self._state.get('port.connect')}"

    @property
    def password_reference(self) -> str:
        """What a connector's configuration carries instead of PostgreSQL's password."""
        return f"${{file:{self._secrets}:postgres_password}}"

    def prepare(self, cancelled: threading.Event) -> None:
        """Write the configuration with the ports of now, and the file with the password beside it."""
        del cancelled  # nothing here takes long
        write_private(self._secrets, properties_text({"postgres_password": self._state.password}))
        write_private(self._configuration, properties_text(self._settings()))

    def command(self) -> Command:
        """The worker."""
        main_class = "org.apache.kafka.connect.cli.ConnectDistributed"
        return java_command(self._state, self._jars, "connect", _HEAP_MB, [main_class, str(self._configuration)])

    def answers(self) -> bool:
        """Whether the worker has joined its group and serves requests."""
        return worker_answers(self.url)

    @property
    def _configuration(self) -> Path:
        return self._state.folder / "connect.properties"

    @property
    def _secrets(self) -> Path:
        return self._state.folder / "secrets.properties"

    def _settings(self) -> dict[str, object]:
        port = self._state.get("port.connect")
        return SETTINGS | {
            "bootstrap.servers": f"127.0.0.1:{self._state.get('port.kafka')}",
            "group.id": f"rowcast-connect-{self._state.stack_id}",
            "listeners": f"http://127.0.0.1:{port}",
            "rest.advertised.host.name": "127.0.0.1",
            "rest.advertised.port": port,
            "plugin.path": self._jars.plugins,
            "config.providers.file.param.allowed.paths": self._state.folder,
        }


def worker_answers(url: str, *, timeout_s: float = 3.0) -> bool:
    """Whether the Connect worker at *url* reports itself healthy."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between us and loopback
            return session.get(f"{url}/health", timeout=timeout_s).ok
    except requests.RequestException:
        return False
