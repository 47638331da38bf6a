"""Kafka Connect of the embedded stack: one distributed worker with Debezium's PostgreSQL connector, on loopback."""

from __future__ import annotations

import threading
from pathlib import Path

import requests

from rowcast.local.jars import JarFolder
from rowcast.local.java import java_command
from rowcast.local.processes import Command
from rowcast.local.site import LOOPBACK, Site
from rowcast.local.state import StackState, properties_text, write_private

_HEAP_MB = 384
_SECRETS, _PASSWORD = "secrets.properties", "postgres_password"
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

    def __init__(self, state: StackState, jars: JarFolder, site: Site = LOOPBACK) -> None:
        self._state = state
        self._jars = jars
        self._site = site
        self.log = state.folder / "logs" / "connect.log"

    @property
    def url(self) -> str:
        """The REST address."""
        return f"http://{self._site.host(self.name)}:{self._state.get('port.connect')}"

    def prepare(self, cancelled: threading.Event) -> None:
        """Write the configuration with the ports of now, and the file with the password beside it."""
        del cancelled  # nothing here takes long
        write_private(self._secrets, properties_text({_PASSWORD: self._state.password}))
        write_private(self._configuration, properties_text(self.settings()))

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
        return self._state.folder / _SECRETS

    def settings(self) -> dict[str, object]:
        """All settings of the worker."""
        port, site = self._state.get("port.connect"), self._site
        return SETTINGS | {
            "bootstrap.servers": f"{site.host('kafka')}:{self._state.get('port.kafka')}",
            "group.id": f"rowcast-connect-{site.identity or self._state.stack_id}",
            "listeners": f"http://{site.listen}:{port}",
            "rest.advertised.host.name": site.host(self.name),
            "rest.advertised.port": port,
            "plugin.path": self._jars.plugins,
            "config.providers.file.param.allowed.paths": ",".join([str(self._state.folder), *site.secrets]),
        }


def password_reference(folder: Path) -> str:
    """What a connector's configuration carries instead of PostgreSQL's password, where Connect's state is *folder*."""
    return f"${{file:{folder / _SECRETS}:{_PASSWORD}}}"


def worker_answers(url: str, *, timeout_s: float = 3.0) -> bool:
    """Whether the Connect worker at *url* reports itself healthy."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between us and loopback
            return session.get(f"{url}/health", timeout=timeout_s).ok
    except requests.RequestException:
        return False
