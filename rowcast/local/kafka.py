"""Kafka of the embedded stack: one node that is broker and controller, on loopback."""

from __future__ import annotations

import socket
import threading
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from rowcast.local.jars import JarFolder
from rowcast.local.java import java_command
from rowcast.local.part import failure
from rowcast.local.processes import Command, run_to_end
from rowcast.local.site import LOOPBACK, Site
from rowcast.local.state import StackState, properties_text, write_private

_FORMAT_TIMEOUT_S = 180.0
_HEAP_MB = 320

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 5,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 5,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # After a kill the node can only come back when its former session has ended.
    "broker.session.timeout.ms": 5000,
    "broker.heartbeat.interval.ms": 1000,
    "group.initial.rebalance.delay.ms": 0,
    "log.cleaner.enable": "true",
    "log.cleaner.dedupe.buffer.size": 16 * 2**20,  # the default of 128 MiB is taken from the heap at once
    "num.network.threads": 2,
    "num.io.threads": 4,
}


class KafkaPart:
    """The Kafka node of one stack."""

    name = "kafka"
    ports = ("kafka", "kafka_controller")

    def __init__(self, state: StackState, jars: JarFolder, site: Site = LOOPBACK) -> None:
        self._state = state
        self._jars = jars
        self._site = site
        self.log = state.folder / "logs" / "kafka.log"

    @property
    def brokers(self) -> str:
        """The bootstrap address."""
        return f"{self._site.host(self.name)}:{self._state.get('port.kafka')}"

    def prepare(self, cancelled: threading.Event) -> None:
        """Write the configuration with the ports of now; format the storage once."""
        (self._state.folder / "kafka").mkdir(mode=0o700, exist_ok=True)
        write_private(self._configuration, properties_text(self.settings()))
        if (self._state.folder / "kafka" / "meta.properties").exists():
            return
        # A leading "-" would be read as an option.
        cluster_id = "R" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id]
        command = java_command(self._state, self._jars, "kafka", 96, [*tool, "-c", str(self._configuration)])
        if run_to_end(command, timeout_s=_FORMAT_TIMEOUT_S, cancelled=cancelled) != 0:
            raise failure(self, "storage could not be formatted")

    def command(self) -> Command:
        """The node."""
        return java_command(self._state, self._jars, "kafka", _HEAP_MB, ["kafka.Kafka", str(self._configuration)])

    def answers(self) -> bool:
        """Whether it sends metadata that names itself as a broker."""
        return broker_answers(self.brokers)

    @property
    def _configuration(self) -> Path:
        return self._state.folder / "kafka.properties"

    def settings(self) -> dict[str, object]:
        """All settings of the node."""
        port, controller = (self._state.get(f"port.{name}") for name in self.ports)
        voter = f"127.0.0.1:{controller}"  # nobody but the node itself
        listeners = {"PLAINTEXT": f"{self._site.listen}:{port}", "CONTROLLER": voter}
        advertised = {"PLAINTEXT": self.brokers}
        protocols = SETTINGS["listener.security.protocol.map"]
        published = self._site.published.get(self.name)
        if published is not None:
            # A client is told to which address it has to turn, so that each way in needs a listener of its own.
            listeners["PUBLISHED"] = f"{self._site.listen}:{published.rpartition(':')[2]}"
            advertised["PUBLISHED"] = published
            protocols = f"{protocols},PUBLISHED:PLAINTEXT"
        return SETTINGS | {
            "listeners": _listed(listeners),
            "advertised.listeners": _listed(advertised),
            "listener.security.protocol.map": protocols,
            "controller.quorum.voters": f"1@{voter}",
            "log.dirs": self._state.folder / "kafka",
        }


def _listed(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


def broker_answers(brokers: str, *, timeout_s: float = 3.0) -> bool:
    """Whether a broker at *brokers* (``host:port``) describes the cluster and is ready for clients."""
    host, port = brokers.rsplit(":", 1)
    try:
        # A client would dial a closed port again and again, and log each time.
        socket.create_connection((host, int(port)), timeout=timeout_s).close()
        milliseconds = int(timeout_s * 1000)
        with KafkaAdminClient(
            bootstrap_servers=brokers, bootstrap_timeout_ms=milliseconds, request_timeout_ms=milliseconds
        ) as client:
            return any(not broker.get("is_fenced", False) for broker in client.describe_cluster()["brokers"])
    except (OSError, KafkaError):
        return False
