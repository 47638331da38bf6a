"""Every kind of client that Rowcast has reaches a Kafka that asks for TLS and SCRAM, by the settings alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from consumer_fixture import Service, make_event, note, running, wait_until
from secured_kafka import PASSWORD, USER, SecuredKafka

from rowcast.cli.main import main
from rowcast.consumer import Consumer
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
    lines = [f"{name} = {json.dumps(value)}" for name, value in security.items()]
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
        wait_until(lambda: service.effect_count() == 2)
    assert main(["--project", str(tmp_path), "events", "tail", "shop.item", "--last", "9", "--json"]) == 0
    assert [json.loads(line)["version"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sasl_plain_username": "nobody"}, "listing topics: "),
        ({"ssl_cafile": "none.pem"}, "kafka.ssl_cafile: there is no file "),
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "listing topics: "),
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
    """Exit code 2 within seconds, and what went wrong."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    settings(secured_kafka, tmp_path, **wrong)
    assert main(["--project", str(tmp_path), "events", "tail", "shop.item", "--last", "1"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert PASSWORD not in told
