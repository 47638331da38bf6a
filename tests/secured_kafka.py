"""A Kafka node of its own that lets nobody in without TLS and SCRAM; the jars are those of the embedded stack."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from stack_fixture import wait_until

from rowcast.local.jars import ensure_jars
from rowcast.local.java import bundled_java
from rowcast.local.kafka import SETTINGS
from rowcast.local.ports import choose_port
from rowcast.local.processes import Command, run_to_end
from rowcast.secret_file import properties_text

USER, PASSWORD = "rowcast", "s3cret w=th:odd#characters"
_CERTIFICATE_DAYS = "2"


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """*brokers* speak SASL_SSL; *ca* is the certificate to trust."""

    brokers: str
    ca: Path


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The node, while the tests run."""
    folder = tmp_path_factory.mktemp("secured-kafka")
    ca = make_certificate(folder)
    ports: list[int] = []
    for _listener in range(3):
        ports.append(choose_port(None, frozenset(ports)))
    configuration = folder / "kafka.properties"
    configuration.write_text(properties_text(_settings(folder, ports)))
    scram = f'SCRAM-SHA-512=[name={USER},password="{PASSWORD}"]'
    cluster_id = "R" + urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(configuration), "--add-scram", scram]
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
        yield SecuredKafka(f"127.0.0.1:{ports[0]}", ca)
    finally:
        process.terminate()
        process.wait(60)


def _java(*arguments: str) -> list[str]:
    options = ["-Xmx320m", "-XX:+UseSerialGC", "-Djava.net.preferIPv4Stack=true"]
    jars = ensure_jars(lambda _line: None)
    return [str(bundled_java().executable("java")), *options, "-cp", jars.classpath, *arguments]


def _settings(folder: Path, ports: list[int]) -> dict[str, object]:
    outer, inner, controller = ports
    return SETTINGS | {
        "listeners": f"OUTER://127.0.0.1:{outer},INNER://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"OUTER://127.0.0.1:{outer},INNER://127.0.0.1:{inner}",
        "listener.security.protocol.map": "OUTER:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INNER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": folder / "data",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.outer.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "server.pem",
    }


def make_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority: *folder*/ca.pem, and with its key server.pem."""
    if shutil.which("openssl") is None:
        pytest.fail("openssl is needed to make a certificate; on Debian: apt-get install openssl")
    key, certificate = folder / "server.key", folder / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", _CERTIFICATE_DAYS]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    (folder / "server.pem").write_text(key.read_text() + certificate.read_text())
    return certificate
