"""PostgreSQL by TLS, passwords and client certificates: what works, and what is told when it does not."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from certificates import Authority
from psycopg.conninfo import make_conninfo
from secured_stack import DATABASE_PASSWORD, SecuredStack
from stack_fixture import random_name

from rowcast.brokers import Brokers
from rowcast.cli.main import main
from rowcast.control.database import connect as connect_control
from rowcast.database import connect
from rowcast.errors import ConfigurationError, DatabaseUnavailableError
from rowcast.settings import DatabaseSettings
from rowcast.sources.catalogue import connect_source
from stream_app.metrics import Metrics
from stream_app.supervisor import Supervisor

pytestmark = pytest.mark.slow


def refusal(url: str) -> str:
    """What a connection to the control database is refused with."""
    with pytest.raises(DatabaseUnavailableError) as refused:
        connect_control(url, application="test").close()
    assert DATABASE_PASSWORD not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def login(secured_stack: SecuredStack) -> str:
    """A login with a password, for one test."""
    name = random_name("login")
    secured_stack.create_login(name)
    return name


def test_each_fault_names_the_part_and_what_mends_it(secured_stack: SecuredStack, login: str, tmp_path: Path) -> None:
    """A password, an authority, a host name, TLS itself: one line each, with the setting."""
    good = secured_stack.url("postgres", login, DATABASE_PASSWORD)
    connect_control(good, application="test").close()
    stranger = Authority(tmp_path / "stranger")
    own = stranger.issue(login)
    own.key.chmod(0o600)
    for changes, words, fix in (
        ({"password": "wrong"}, "password authentication failed", "correct its user or password"),
        ({"sslrootcert": stranger.certificate}, "not from an authority that is trusted here", "sslrootcert"),
        ({"sslrootcert": tmp_path / "none.pem"}, "does not exist", "sslrootcert"),
        ({"host": "db.example", "hostaddr": "127.0.0.1"}, "does not match host name", "a host in its url"),
        ({"sslmode": "disable"}, "no encryption", "sslmode=verify-full"),
        ({"dbname": "none"}, 'database "none" does not exist', "create it, or correct its url"),
        ({"port": 1}, "Connection refused", "start it, or correct host and port"),
        ({"user": "certified"}, "requires a valid client certificate", "sslcert and sslkey"),
        ({"user": "certified", "sslcert": own.chain, "sslkey": own.key}, "unknown ca", "sslcert"),
    ):
        told = refusal(make_conninfo(good, **changes))
        assert told.startswith("control database (databases.rowcast): ")
        assert words in told
        assert fix in told.rpartition(" (")[2]
    source = DatabaseSettings("shop", make_conninfo(good, password="wrong"), where="rowcast.toml: databases.shop")
    with pytest.raises(
        ConfigurationError, match=r"database 'shop' \(rowcast.toml: databases.shop\): .*correct its user"
    ):
        connect_source(source)


def test_an_expired_certificate_is_told_as_such(secured_stack: SecuredStack, login: str) -> None:
    """It is the server's to mend, so a worker goes on trying; libpq says no more than that something is wrong."""
    url = secured_stack.url("postgres", login, DATABASE_PASSWORD)
    authority = secured_stack.kafka.authority
    with secured_stack.dba() as connection:
        (place,) = connection.execute("SHOW data_directory").fetchone() or ()
        kept = {name: (Path(place) / f"postgres.{name}").read_bytes() for name in ("crt", "key")}
        old = authority.issue("old", expired=True)
        _replace(connection, Path(place), {"crt": old.chain.read_bytes(), "key": old.key.read_bytes()})
        try:
            told = refusal(url)
        finally:
            _replace(connection, Path(place), kept)
    assert f"the certificate of 127.0.0.1:{secured_stack.port} has expired (a valid certificate on the server)" in told
    connect_control(url, application="test").close()


def _replace(connection: psycopg.Connection, folder: Path, files: dict[str, bytes]) -> None:
    owner = folder.stat()
    for name, content in files.items():
        path = folder / f"postgres.{name}"
        path.write_bytes(content)
        os.chown(path, owner.st_uid, owner.st_gid)
    connection.execute("SELECT pg_reload_conf()")
    # Reloaded when a new session says so: this one began before.
    loaded = "SELECT pg_conf_load_time() > now() - interval '1 minute'"
    assert connection.execute(loaded).fetchone() == (True,)


def test_a_client_certificate_logs_in(secured_stack: SecuredStack) -> None:
    """Without a password."""
    with secured_stack.dba() as connection:
        connection.execute("CREATE ROLE certified LOGIN")
    certificate = secured_stack.certified
    files = {"sslcert": certificate.chain, "sslkey": certificate.key}
    url = secured_stack.url("postgres", "certified", **files)
    with closing(connect_control(url, application="test", autocommit=True)) as connection:
        assert connection.execute("SELECT current_user::text").fetchone() == ("certified",)


def test_another_host_is_tried(secured_stack: SecuredStack, login: str) -> None:
    """As libpq has it: several hosts, the first that answers; when none does, each is told."""
    url = secured_stack.url("postgres", login, DATABASE_PASSWORD)
    both = {"host": "127.0.0.1,127.0.0.1", "port": f"1,{secured_stack.port}", "target_session_attrs": "read-write"}
    connect(make_conninfo(url, **both), application="test").close()
    told = refusal(make_conninfo(url, **{**both, "port": "1,2"}))
    assert "port 1" in told
    assert "2" in told


def test_a_connection_limit_is_told(secured_stack: SecuredStack) -> None:
    """It passes by itself when a connection ends, so it is waited for."""
    name = random_name("limited")
    secured_stack.create_login(name, limit=1)
    url = secured_stack.url("postgres", name, DATABASE_PASSWORD)
    with closing(connect(url, application="test")):
        told = refusal(url)
    assert "too many connections for role" in told
    assert "a higher CONNECTION LIMIT of the role" in told


def test_a_worker_waits_and_says_for_what(
    secured_stack: SecuredStack, login: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password at the control database ends no worker."""
    url = secured_stack.url("postgres", login, "wrong")
    supervisor = Supervisor((Brokers("127.0.0.1:1"), url, None), Metrics())
    supervisor.tick()
    supervisor.tick()
    supervisor.stop()
    (line,) = [record.getMessage() for record in caplog.records if "trying again" in record.getMessage()]
    assert "databases.rowcast" in line
    assert "correct its user or password" in line


def test_a_command_ends_with_exit_code_2(
    secured_stack: SecuredStack, login: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says one line, with no password in it."""
    url = secured_stack.url("none", login, DATABASE_PASSWORD)
    (tmp_path / "rowcast.toml").write_text(f"databases.rowcast.url = {url!r}\n")
    assert main(["--project", str(tmp_path), "refused", "list", "shop"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("rowcast: control database (databases.rowcast): ")
    assert told.count("\n") == 1
    assert DATABASE_PASSWORD not in told
