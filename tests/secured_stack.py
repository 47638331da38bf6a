"""
A whole stack that Rowcast did not start: PostgreSQL by TLS, the secured Kafka, and Kafka Connect between them.

Roles, databases and rights are made by a DBA and a Kafka administrator, out of what `rowcast sources plan` prints.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from certificates import Certificate
from program_fixture import unpack_postgres
from psycopg import sql
from psycopg.conninfo import make_conninfo
from secured_kafka import PASSWORD, SecuredKafka
from stack_fixture import wait_until

from rowcast.connect import ConnectClient
from rowcast.connect_address import ConnectAddress
from rowcast.errors import ConnectUnavailableError
from rowcast.local.connect import SETTINGS
from rowcast.local.jars import ensure_jars
from rowcast.local.java import bundled_java, java_command
from rowcast.local.ports import choose_port
from rowcast.local.postgres import PostgresPart
from rowcast.local.processes import Command, RunningProcess, log_tail, start_detached
from rowcast.local.program import POSTGRES, SYSTEM, examine
from rowcast.local.state import StackState
from rowcast.secret_file import properties_text
from rowcast.tls import TlsFiles

DATABASE_PASSWORD = "pl@in to see=never#"
CONNECT_GROUP = "connect-cluster"
_CONNECTOR = "io.debezium.connector.postgresql.PostgresConnector"
# Whoever is called so proves it by a certificate; everybody else by a password. Nobody comes without TLS.
_HBA = """
hostssl all certified 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 scram-sha-256
"""


@dataclass
class SecuredStack:
    """*kafka*, a PostgreSQL server at *port*, and a Connect worker that `start_connect` starts."""

    kafka: SecuredKafka
    folder: Path
    port: int
    certified: Certificate
    connect_port: int
    state: StackState = field(repr=False)
    _connect: RunningProcess | None = field(default=None, repr=False)

    @property
    def connect(self) -> ConnectAddress:
        """Connect's REST interface."""
        return ConnectAddress(f"https://127.0.0.1:{self.connect_port}", tls=TlsFiles(str(self.kafka.ca)))

    @property
    def logs(self) -> list[Path]:
        """Everything that the servers wrote."""
        return sorted((self.state.folder / "logs").iterdir())

    def url(self, database: str, user: str, password: str | None = None, **more: object) -> str:
        """How *user* reaches *database*, with everything checked; without password in it unless one is given."""
        parameters = {
            "host": "127.0.0.1",
            "port": self.port,
            "dbname": database,
            "user": user,
            "password": password,
            "sslmode": "verify-full",
            "sslrootcert": self.kafka.ca,
            **more,
        }
        return make_conninfo(**{name: str(value) for name, value in parameters.items() if value is not None})

    def dba(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the superuser."""
        return psycopg.connect(self.url(database, "postgres", self.state.password), autocommit=True)

    def create_login(self, name: str, limit: int = -1) -> None:
        """A login that may do nothing yet."""
        form = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}")
        with self.dba() as connection:
            connection.execute(form.format(sql.Identifier(name), sql.Literal(DATABASE_PASSWORD), sql.Literal(limit)))

    def create_database(self, name: str, owner: str, *others: str) -> None:
        """A database that *owner* alone may use, and *others* connect to."""
        database = sql.Identifier(name)
        with self.dba() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, sql.Identifier(owner)))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
            for other in others:
                form = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
                connection.execute(form.format(database, sql.Identifier(other)))
        with self.dba(name) as connection:
            connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")

    def start_connect(self, **settings: object) -> None:
        """Start Kafka Connect, or start it again with other *settings*, and wait until it answers."""
        self.stop_connect()
        configuration = self.state.folder / "connect.properties"
        configuration.write_text(properties_text(self._connect_settings() | settings))
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        jars = ensure_jars(lambda _line: None)
        self._connect = start_detached(java_command(self.state, jars, "connect", 384, [main, str(configuration)]))
        wait_until(self._connect_answers, "Connect answers", 90)

    def stop_connect(self) -> None:
        """End Kafka Connect, if it runs."""
        if self._connect is not None:
            self._connect.stop(signal.SIGTERM, timeout_s=20)
            self._connect = None

    def _connect_answers(self) -> bool:
        assert self._connect is not None
        assert self._connect.alive(), "\n".join(log_tail(self.state.folder / "logs/connect.log", 40))
        with ConnectClient(self.connect, 5) as client:
            try:
                return client.plugin_version(_CONNECTOR) is not None
            except ConnectUnavailableError:
                return False

    def _connect_settings(self) -> dict[str, object]:
        login = "org.apache.kafka.common.security.scram.ScramLoginModule"
        client = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.jaas.config": f'{login} required username="connect" password="{PASSWORD}";',
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.kafka.ca,
        }
        roles = ("", "producer.", "consumer.", "admin.")
        store = {"location": self._key_store(), "type": "PKCS12", "password": "changeit"}
        return SETTINGS | {
            **{f"{role}{name}": value for role in roles for name, value in client.items()},
            **{f"listeners.https.ssl.keystore.{name}": value for name, value in store.items()},
            "listeners.https.ssl.key.password": "changeit",
            "bootstrap.servers": self.kafka.brokers,
            "group.id": CONNECT_GROUP,
            "config.storage.topic": "connect-configs",
            "offset.storage.topic": "connect-offsets",
            "status.storage.topic": "connect-status",
            "listeners": f"https://127.0.0.1:{self.connect_port}",
            "rest.advertised.host.name": "127.0.0.1",
            "rest.advertised.port": self.connect_port,
            "plugin.path": ensure_jars(lambda _line: None).plugins,
            "config.providers.file.param.allowed.paths": self.folder,
        }

    def _key_store(self) -> Path:
        path = self.folder / "connect.p12"
        if not path.exists():
            issued = self.kafka.authority.issue("connect")
            command = ["openssl", "pkcs12", "-export", "-in", issued.chain, "-inkey", issued.key, "-out", path]
            subprocess.run([*map(str, command), "-passout", "pass:changeit"], check=True, capture_output=True)
        return path


@pytest.fixture(scope="session")
def secured_stack(
    secured_kafka: SecuredKafka, reachable: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecuredStack]:
    """The stack, while the tests run; Connect is not started yet."""
    folder = tmp_path_factory.mktemp("secured-stack")
    state = StackState(folder / "state")
    state.create()
    state.put("port.postgres", choose_port(None, frozenset()))
    # The bundled one was built without TLS.
    state.put_program("postgres", examine(POSTGRES, unpack_postgres("18", reachable), SYSTEM))
    state.put_program("connect", bundled_java())
    part = PostgresPart(state)
    part.prepare(threading.Event())
    command = _with_tls(part, secured_kafka)
    process = start_detached(command)
    connect_port = choose_port(None, frozenset({part.port}))
    certified = secured_kafka.authority.issue("certified")
    stack = SecuredStack(secured_kafka, folder, part.port, certified, connect_port, state)
    stack.certified.key.chmod(0o600)
    try:
        wait_until(part.answers, f"PostgreSQL answers; {part.log}", 60)
        yield stack
    finally:
        stack.stop_connect()
        process.stop(signal.SIGINT, timeout_s=20)
        part.end_orphans()
        part.wipe()


def _with_tls(part: PostgresPart, kafka: SecuredKafka) -> Command:
    data, issued = part.home / "data", kafka.authority.issue("postgres")
    (data / "pg_hba.conf").write_text(_HBA)
    files = {"ssl_cert_file": issued.chain, "ssl_key_file": issued.key, "ssl_ca_file": kafka.ca}
    account, options = part.runner(), ["-c", "ssl=on"]
    for name, source in files.items():
        shutil.copyfile(source, data / source.name)
        (data / source.name).chmod(0o600)
        options += ["-c", f"{name}={source.name}"]
        if account is not None:
            os.chown(data / source.name, account.uid, account.gid)
    command = part.command()
    return replace(command, arguments=[*command.arguments, *options])
