"""
A Kafka node of its own that lets nobody in without TLS and a login, and nobody do what it was not given.

The jars are those of the embedded stack.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import threading
import uuid
from argparse import ArgumentParser
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Authority
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from stack_fixture import wait_until

from rowcast.local.jars import ensure_jars
from rowcast.local.java import bundled_java
from rowcast.local.kafka import SETTINGS
from rowcast.local.ports import choose_port
from rowcast.local.processes import Command, run_to_end
from rowcast.secret_file import properties_text

# May do everything. All users have the password.
USER, PASSWORD = "admin", "s3cret w=th:odd#characters"
USERS = (USER, "rowcast", "rowcast-worker", "connect", "orders", "lacking")
_LISTENERS = {"OUTER": "SASL_SSL", "MUTUAL": "SSL", "INNER": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """
    *brokers* want TLS and SCRAM, *mutual* wants TLS with a client certificate of *authority*.

    *inner* asks for nothing and is for tests alone: whoever comes that way may do everything.
    """

    brokers: str
    mutual: str
    inner: str
    authority: Authority

    @property
    def ca(self) -> Path:
        """The certificate to trust."""
        return self.authority.certificate

    def allow(self, lines: Iterable[str]) -> list[AclBinding]:
        """Do what calls of ``kafka-acls.sh`` say; returns what they allow."""
        bindings = [binding for line in lines for binding in read_acl_command(line)]
        self.restore(*bindings)
        return bindings

    def restore(self, *bindings: AclBinding) -> None:
        """Allow it again."""
        admin = self._admin()
        for future in admin.create_acls(list(bindings)).values():
            future.result()

    def forbid(self, *bindings: AclBinding) -> None:
        """Take back what was allowed."""
        filters = [
            AclBindingFilter(
                each.restype,
                each.name,
                each.resource_pattern_type,
                each.principal,
                each.host,
                each.operation,
                each.permission_type,
            )
            for each in bindings
        ]
        admin = self._admin()
        for future in admin.delete_acls(filters).values():
            future.result()

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.inner})


def read_acl_command(line: str) -> list[AclBinding]:
    """What a call of ``kafka-acls.sh`` allows; fails on any option that the program does not have."""
    if not line or line.startswith("#"):
        return []
    parser = ArgumentParser(prog="kafka-acls.sh", allow_abbrev=False)
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--command-config", required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True)
    kinds = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }
    for kind in kinds:
        parser.add_argument(f"--{kind}", action="append", default=[])
    program, *arguments = shlex.split(line)
    assert program == "kafka-acls.sh"
    found = vars(parser.parse_args(arguments))
    return [
        AclBinding(
            restype,
            name,
            ResourcePatternType.LITERAL,
            found["allow_principal"],
            "*",
            _OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for kind, restype in kinds.items()
        for name in found[kind.replace("-", "_")]
        for operation in found["operation"]
    ]


_OPERATIONS = {
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
}


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The node, while the tests run."""
    folder = tmp_path_factory.mktemp("secured-kafka")
    authority = Authority(folder / "authority")
    ports: list[int] = []
    for _listener in _LISTENERS:
        ports.append(choose_port(None, frozenset(ports)))
    outer, mutual, inner, _controller = (f"127.0.0.1:{port}" for port in ports)
    configuration = folder / "kafka.properties"
    configuration.write_text(properties_text(_settings(folder, ports, authority)))
    cluster_id = "R" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(configuration)]
    for user in USERS:
        tool += ["--add-scram", f'SCRAM-SHA-512=[name={user},password="{PASSWORD}"]']
    log = folder / "kafka.log"
    formatted = run_to_end(Command(_java(*tool), log), timeout_s=180, cancelled=threading.Event())
    assert formatted == 0, log.read_text()
    with log.open("ab") as output:
        process = subprocess.Popen(_java("kafka.Kafka", str(configuration)), stdout=output, stderr=subprocess.STDOUT)
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", ports[0])) == 0

        wait_until(listens, "Kafka listens", 120)
        yield SecuredKafka(outer, mutual, inner, authority)
    finally:
        process.terminate()
        process.wait(60)


def _java(*arguments: str) -> list[str]:
    options = ["-Xmx320m", "-XX:+UseSerialGC", "-Djava.net.preferIPv4Stack=true"]
    jars = ensure_jars(lambda _line: None)
    return [str(bundled_java().executable("java")), *options, "-cp", jars.classpath, *arguments]


def _settings(folder: Path, ports: list[int], authority: Authority) -> dict[str, object]:
    places = {name: f"{name}://127.0.0.1:{port}" for name, port in zip(_LISTENERS, ports, strict=True)}
    return SETTINGS | {
        "listeners": ",".join(places.values()),
        "advertised.listeners": ",".join(place for name, place in places.items() if name != "CONTROLLER"),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in _LISTENERS.items()),
        "inter.broker.listener.name": "INNER",
        "controller.quorum.voters": f"1@127.0.0.1:{ports[-1]}",
        "log.dirs": folder / "data",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.outer.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": authority.issue("broker").both,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority.certificate,
        "listener.name.mutual.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{USER};User:ANONYMOUS",
    }
