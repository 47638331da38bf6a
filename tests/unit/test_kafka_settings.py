"""The section `kafka` of `rowcast.toml`: what it accepts, and what each client library is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority

from rowcast.errors import ConfigurationError
from rowcast.settings import load_settings

SCRAM = 'sasl_mechanism = "SCRAM-SHA-512"\nsasl_plain_username = "u"\nsasl_plain_password = "${env:KAFKA_PASSWORD}"\n'


def write(folder: Path, text: str) -> Path:
    """A project whose section `kafka` is *text*."""
    (folder / "rowcast.toml").write_text(f'brokers = "a:1,b:2"\n[kafka]\n{text}')
    return folder


def test_every_client_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """References are looked up, paths count from the project folder, and no password is shown."""
    monkeypatch.setenv("KAFKA_PASSWORD", "geheim")
    (tmp_path / "ca.pem").write_bytes(Authority(tmp_path / "authority").certificate.read_bytes())
    settings = load_settings(write(tmp_path, f'security_protocol = "SASL_SSL"\nssl_cafile = "ca.pem"\n{SCRAM}'), {})
    brokers = settings.kafka()
    assert brokers.kafka_python() == {
        "bootstrap_servers": "a:1,b:2",
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(tmp_path / "ca.pem"),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "geheim",
    }
    assert brokers.librdkafka() == {
        "bootstrap.servers": "a:1,b:2",
        "log_level": 4,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "u",
        "sasl.password": "geheim",
    }
    assert "geheim" not in f"{settings!r} {brokers!r} {brokers}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('security_protocol = "TLS"', "'TLS' is not accepted (PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL)"),
        ('security_protocol = "SASL_SSL"', "kafka.sasl_mechanism: is missing"),
        ('security_protocol = "SASL_SSL"\nsasl_mechanism = "GSSAPI"', "'GSSAPI' is not accepted"),
        ('ssl_cafile = "ca.pem"', "has no effect with PLAINTEXT"),
        (f'security_protocol = "SASL_PLAINTEXT"\nssl_cafile = "ca.pem"\n{SCRAM}', "has no effect with SASL_PLAINTEXT"),
        ('retries = "3"', "unknown name 'retries'"),
        ("security_protocol = 1", "not a section of texts"),
        ('security_protocol = "SSL"\nssl_cafile = "none.pem"', "there is no file"),
        (f'security_protocol = "SASL_SSL"\n{SCRAM}', "kafka.sasl_plain_password: KAFKA_PASSWORD is not set"),
        (
            f'security_protocol = "SASL_SSL"\n{SCRAM}'.replace("${env:KAFKA_PASSWORD}", "geheim"),
            "kafka.sasl_plain_password: is no reference to a secret",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message names key and accepted values, and shows no password."""
    with pytest.raises(ConfigurationError) as refused:
        load_settings(write(tmp_path, text), {}).kafka()
    assert message in str(refused.value)
    assert "geheim" not in str(refused.value)
