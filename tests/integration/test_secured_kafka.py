"""Every kind of client that Rowcast has reaches a Kafka that asks for TLS and SCRAM, by the settings alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from consumer_fixture import Service, make_event, note, running
from consumer_fixture import wait_until as wait_for
from secured_kafka import PASSWORD, USER, SecuredKafka
from stack_fixture import wait_until

from rowcast.brokers import Brokers
from rowcast.cli.main import main
from rowcast.consumer import Consumer
from rowcast.errors import BrokerUnavailableError
from rowcast.kafka_fault import why_unreachable
from rowcast.settings import Settings, load_settings
from rowcast.sources.capture import change_log_end
from rowcast.sources.topic_plan import Topic, TopicAdmin
from stream_app.publisher import Publisher
from stream_app.transport import ChangeLogReader, read_ends, read_extent

pytestmark = pytest.mark.slow


def settings(kafka: SecuredKafka, folder: Path, **changes: str) -> Settings:
    """The settings of a project in *folder* that reaches *kafka*."""
    security = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": USER,
        "sasl_plain_password": "${env:KAFKA_PASSWORD}",
        "ssl_cafile": str(kafka.ca),
        **changes,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in security.items() if value]
    (folder / "rowcast.toml").write_text("\n".join([f'brokers = "{kafka.brokers}"', "[kafka]", *lines]))
    return load_settings(folder, {})


def test_all_clients_pass_tls_and_scram(
    secured_kafka: SecuredKafka,
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Administration, the worker's producer and readers, the SDK and the command line; a password is never shown."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    known = settings(secured_kafka, tmp_path)
    kafka = known.kafka()
    assert PASSWORD not in f"{known!r} {kafka!r} {kafka}"

    with TopicAdmin(kafka) as admin:
        for name in ("shop.item.v1", "shop.changes"):
            admin.create(Topic(name, 1, 1, {"message.timestamp.type": "LogAppendTime"}))
    records = [make_event("shop", "1", version).encode() for version in (1, 2)]
    publisher = Publisher(kafka, "shop")
    assert publisher.publish(records) == {"shop.item.v1": {"0": 2}}
    publisher.publish([records[0]._replace(topic="shop.changes")])
    assert read_extent(kafka, "shop.changes").end >= 1
    assert read_ends(kafka, {"shop.item.v1": 1})["shop.item.v1"]["0"] >= 2
    assert change_log_end(kafka, "shop") >= 1
    reader = ChangeLogReader(kafka, "shop", "shop.changes", 0)
    try:
        assert len(reader.read(1, 20, lambda: False)) == 1
    finally:
        reader.close()

    consumer = Consumer("secured", service.url, known.need_brokers(), security=dict(kafka.security))
    consumer.on("shop.item", major=1)(note)
    with running(consumer):
        wait_for(lambda: service.effect_count() == 2)
    assert main(["--project", str(tmp_path), "events", "tail", "shop.item", "--last", "9", "--json"]) == 0
    assert [json.loads(line)["version"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sasl_plain_username": "nobody"}, "refuses the login of User:nobody (kafka.sasl_plain_username and"),
        ({"ssl_cafile": "none.pem"}, "kafka.ssl_cafile: there is no file "),
        ({"ssl_cafile": "stranger/ca.pem"}, "is not from an authority that is trusted here (kafka.ssl_cafile"),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "no login by SCRAM-SHA-256, but by SCRAM-SHA-512 (kafka.sasl_mechanism)"),
        ({"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": ""}, "speaks TLS, and SASL_PLAINTEXT is set"),
    ],
)
def test_a_refused_client_ends_and_shows_no_password(
    secured_kafka: SecuredKafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: dict[str, str],
    message: str,
) -> None:
    """Exit code 2 within seconds, what went wrong, and the setting that mends it."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    Authority(tmp_path / "stranger")
    settings(secured_kafka, tmp_path, **wrong)
    assert main(["--project", str(tmp_path), "events", "tail", "shop.item", "--last", "1"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert PASSWORD not in told


def test_a_client_certificate_logs_in(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    """With rights for its subject; without them, or without a certificate, it is told what is missing."""
    issued = secured_kafka.authority.issue("worker")
    own = {"ssl_certfile": str(issued.chain), "ssl_keyfile": str(issued.key)}
    plain = dict.fromkeys(("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"), "")

    def kafka(**changes: str) -> Brokers:
        return settings(secured_kafka, tmp_path, security_protocol="SSL", **plain, **changes).kafka()

    certified, bare = (replace(each, servers=secured_kafka.mutual) for each in (kafka(**own), kafka()))
    assert "asks for a client certificate (kafka.ssl_certfile" in str(why_unreachable(bare))
    with TopicAdmin(Brokers(secured_kafka.inner)) as admin:
        admin.create(Topic("certified.item.v1", 1, 1, {}))
    with pytest.raises(BrokerUnavailableError, match="does not let the subject of the client certificate use"):
        Publisher(certified, "certified")
    command = (
        "kafka-acls.sh --bootstrap-server b --command-config c --add --allow-principal User:CN=worker --operation Write"
    )
    secured_kafka.allow([f"{command} --topic certified.item.v1 --transactional-id rowcast.certified"])
    publisher = wait_until(lambda: _publisher(certified), "a publisher")
    assert publisher.publish([make_event("certified", "1", 1).encode()]) == {"certified.item.v1": {"0": 1}}
    publisher.close()
    assert read_ends(certified, {"certified.item.v1": 1})["certified.item.v1"]["0"] >= 1


def _publisher(kafka: Brokers) -> Publisher | None:
    try:
        return Publisher(kafka, "certified")
    except BrokerUnavailableError:
        return None  # the brokers learn of rights a little later
