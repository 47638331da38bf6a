"""Settings of secured parts: by file, environment and secret files; what is wrong is named, and no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Authority

from rowcast.connect_address import ConnectAddress
from rowcast.errors import ConfigurationError
from rowcast.settings import load_settings

TOML = """
brokers = "a:1"
connect_url = "https://connect:8083"
[kafka]
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_plain_username = "u"
sasl_plain_password = "${dir:secrets:kafka}"
[connect]
user = "ann"
password = "${file:secrets/connect.properties:password}"
[databases.shop]
url = "host=a,b port=1 dbname=shop user=reader sslmode=verify-full sslrootcert=/ca.pem"
password = "${env:SHOP_PASSWORD}"
connect_password = "${file:/etc/connect.properties:shop}"
connect_url = "host=db.internal sslrootcert=/etc/connect/ca.pem sslkey=/etc/key.pk8 sslpassword=${dir:/etc/secrets:key}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with secrets in all places."""
    (tmp_path / "rowcast.toml").write_text(TOML)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/kafka").write_text("geheim 1\n")
    (tmp_path / "secrets/connect.properties").write_text("password=geheim\\ 2\n")
    monkeypatch.setenv("SHOP_PASSWORD", "geheim 3")
    return tmp_path


def test_secrets_come_from_files_and_the_environment(project: Path) -> None:
    """Each reference leads to its secret, and nothing that is printed has one."""
    settings = load_settings(project, {})
    kafka, connect, shop = settings.kafka(), settings.connect(), settings.database("shop")
    assert kafka.security["sasl_plain_password"] == "geheim 1"
    assert (connect.url, connect.user, connect.password) == ("https://connect:8083", "ann", "geheim 2")
    assert shop.parameters()["password"] == "geheim 3"
    assert "geheim" not in f"{settings!r} {kafka!r} {connect!r} {shop!r}"


def test_the_environment_replaces_single_keys(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret may stand there itself, or as a reference; a relative path counts from the current folder."""
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    authority = Authority(elsewhere / "authority")
    monkeypatch.chdir(elsewhere)
    environ = {
        "ROWCAST_KAFKA_SASL_PLAIN_PASSWORD": "another",
        "ROWCAST_KAFKA_SSL_CAFILE": "authority/ca.pem",
        "ROWCAST_CONNECT_PASSWORD": "${env:SHOP_PASSWORD}",
        "ROWCAST_DATABASE_SHOP__PASSWORD": "it's = new",
        "ROWCAST_DATABASE_SHOP__CONNECT_URL": "host=c",
    }
    settings = load_settings(project, environ)
    assert settings.kafka().security["sasl_plain_password"] == "another"
    assert settings.kafka().tls().authority == str(authority.certificate)
    assert settings.connect().password == "geheim 3"
    assert settings.database("shop").parameters()["password"] == "it's = new"
    assert settings.database("shop").connect_parameters()["host"] == "c"
    replaced = load_settings(project, {"ROWCAST_DATABASE_SHOP": "host=x dbname=y user=z"}).database("shop")
    assert (replaced.connect_password, replaced.password, replaced.connect_url) == (None, None, None)


def test_the_connector_gets_its_own_parameters(project: Path) -> None:
    """Those of the url, others in their place, and no password of ours."""
    parameters = load_settings(project, {}).database("shop").connect_parameters()
    assert (parameters["host"], parameters["port"], parameters["sslmode"]) == ("db.internal", "1", "verify-full")
    assert (parameters["sslrootcert"], parameters["sslpassword"]) == ("/etc/connect/ca.pem", "${dir:/etc/secrets:key}")
    assert "password" not in parameters


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ROWCAST_KAFKA_RETRIES": "1"}, "ROWCAST_KAFKA_RETRIES: unknown setting"),
        ({"ROWCAST_KAFKA_SASL_MECHANISM": "MD5"}, "ROWCAST_KAFKA_SASL_MECHANISM: 'MD5' is not accepted"),
        ({"ROWCAST_KAFKA_SECURITY_PROTOCOL": "SSL"}, "kafka.sasl_mechanism: has no effect with SSL"),
        ({"ROWCAST_DATABASE_SHOP__PASWORD": "geheim"}, "ROWCAST_DATABASE_SHOP__PASWORD: unknown setting"),
        ({"ROWCAST_DATABASE_NEW__PASSWORD": "geheim"}, "databases.new: needs a url"),
        ({"ROWCAST_KAFKA_SSL_CAFILE": "none.pem"}, "ROWCAST_KAFKA_SSL_CAFILE: there is no file"),
        ({"ROWCAST_KAFKA_SASL_PLAIN_PASSWORD": "${dir:secrets:none}"}, "secrets/none cannot be read: No such file"),
        ({"ROWCAST_CONNECT_URL": "connect:8083"}, "connect_url: is no address of Kafka Connect"),
        ({"ROWCAST_CONNECT_URL": "http://c:1", "ROWCAST_CONNECT_SSL_CAFILE": __file__}, "has no effect with http"),
        ({"ROWCAST_DATABASE_SHOP": "postgresql://u:geheim word@h/d"}, "ROWCAST_DATABASE_SHOP: is no connection string"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Path, environ: dict[str, str], message: str) -> None:
    """The message names the variable, and has no secret in it."""
    with pytest.raises(ConfigurationError) as refused:
        use(project, environ)
    assert message in str(refused.value)
    assert "geheim" not in str(refused.value)


def use(project: Path, environ: dict[str, str]) -> None:
    """Read everything that is looked up late."""
    settings = load_settings(project, environ)
    settings.kafka()
    settings.connect()
    settings.database("shop").parameters()


def test_a_client_certificate_is_tried_before_it_is_used(tmp_path: Path) -> None:
    """A key that is another's, protected or no key is named, and nobody is asked for a password."""
    authority = Authority(tmp_path / "authority")
    own, other = authority.issue("own"), authority.issue("other")
    text = 'brokers = "a:1"\n[kafka]\nsecurity_protocol = "SSL"\nssl_certfile = "{}"\nssl_keyfile = "{}"\n'

    def read(*files: Path) -> None:
        (tmp_path / "rowcast.toml").write_text(text.format(*files))
        load_settings(tmp_path, {}).kafka()

    read(own.chain, own.key)
    with pytest.raises(ConfigurationError, match=r"kafka.ssl_keyfile: the key in .* is not that of the certificate"):
        read(own.chain, other.key)
    with pytest.raises(ConfigurationError, match=r"kafka.ssl_certfile: .* are no certificate with its key"):
        read(Path(__file__), own.key)
    locked = authority.locked(own)
    with pytest.raises(ConfigurationError, match=r"kafka.ssl_password: .* the password is missing"):
        read(own.chain, locked)


def test_a_login_in_the_address_is_taken_out_of_it() -> None:
    """What is shown of an address has no login."""
    address = ConnectAddress.parse("https://ann:p%40ss@connect:8083/")
    assert (address.url, address.user, address.password) == ("https://connect:8083", "ann", "p@ss")
    assert "p@ss" not in repr(address)
