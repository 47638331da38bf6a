"""
Settings of a project: where its brokers, Connect and databases are.

One place, typed. Order of precedence: ``ROWCAST_*`` environment variables, the project's ``rowcast.toml``,
then what ``rowcast up`` wrote into ``.rowcast/stack.json``. Unknown names are refused; secrets never printed.

What the embedded stack is made of is declared here too, and read by ``rowcast up`` alone.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowcast.acl_settings import AclSettings, read_acl
from rowcast.brokers import Brokers
from rowcast.connect_address import VARIABLES as CONNECT_VARIABLES
from rowcast.connect_address import ConnectAddress, read_connect, resolve_connect
from rowcast.database_settings import PREFIX as DATABASE_PREFIX
from rowcast.database_settings import DatabaseSettings, read_databases
from rowcast.declared_text import DeclaredText
from rowcast.errors import ConfigurationError
from rowcast.hash_key import HashKey, hash_key
from rowcast.kafka_settings import VARIABLES as KAFKA_VARIABLES
from rowcast.kafka_settings import read_security, resolve_brokers
from rowcast.secret_file import read_secret

__all__ = ["DatabaseSettings", "PartsSettings", "Settings", "load_parts_settings", "load_settings", "parts_settings"]

STATE_FOLDER = ".rowcast"
CONTROL_DATABASE = "rowcast"
PARTS_CHOICES = ("bundled", "system", "auto")
_PARTS = ("parts", "postgres_bin", "java_home")
_TOP = {"acl", "brokers", "connect", "connect_url", "databases", "hash_key", "kafka", *_PARTS}
_ENVIRONMENT = {"ROWCAST_BROKERS": "brokers", "ROWCAST_CONNECT_URL": "connect_url"}
_PARTS_ENVIRONMENT = {f"ROWCAST_{name.upper()}": name for name in _PARTS}
_HASH_KEY = "ROWCAST_HASH_KEY"
# Read elsewhere, by the command line itself.
_OTHER_ENVIRONMENT = {
    "ROWCAST_PROJECT",
    "ROWCAST_CACHE",
    "ROWCAST_WEB_PORT",
    "ROWCAST_FAILPOINTS",
    "ROWCAST_LIMITS",
    "ROWCAST_TEST_STACK",
    "ROWCAST_TEST_DATA",
}


@dataclass(frozen=True, slots=True)
class PartsSettings:
    """
    What the embedded stack is made of; None where nothing is said.

    *parts* is one of `PARTS_CHOICES`. *postgres_bin* and *java_home* are absolute paths: the folder with
    ``postgres`` and ``initdb``, and the one with ``bin/java``.
    """

    parts: str | None = None
    postgres_bin: str | None = None
    java_home: str | None = None

    def over(self, lower: PartsSettings) -> PartsSettings:
        """These settings, and those of *lower* where they say nothing; "bundled" takes over no folders."""
        if self.parts == "bundled":
            return self
        return PartsSettings(
            self.parts or lower.parts, self.postgres_bin or lower.postgres_bin, self.java_home or lower.java_home
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Everything outside the source files: *project* folder, *brokers*, *connect_url*, *databases* by name.

    *security* and *connect_login* are the sections ``kafka`` and ``connect`` as they stand. *declared_key* is the key
    of hashed fields with the place where it stands: a reference, unless it is from the environment.
    """

    project: Path
    brokers: str | None
    connect_url: str | None
    databases: Mapping[str, DatabaseSettings]
    stack_postgres: Mapping[str, Any] | None = field(default=None, repr=False)
    security: Mapping[str, DeclaredText] = field(default_factory=dict, repr=False)
    declared_key: tuple[str, str] | None = field(default=None, repr=False)
    connect_login: Mapping[str, DeclaredText] = field(default_factory=dict, repr=False)
    acl: AclSettings = field(default_factory=AclSettings)

    @property
    def state_folder(self) -> Path:
        """Where the embedded stack keeps its state."""
        return self.project / STATE_FOLDER

    @property
    def has_stack(self) -> bool:
        """Whether the project has an embedded stack, running or not."""
        return (self.state_folder / "state.json").exists()

    def need_brokers(self) -> str:
        """The bootstrap servers, or an error that says where to set them."""
        if self.brokers is None:
            raise ConfigurationError("no Kafka brokers are known", where="brokers", fix=_fix("ROWCAST_BROKERS"))
        return self.brokers

    def kafka(self) -> Brokers:
        """
        How to reach Kafka.

        Raises:
            ConfigurationError: no brokers are known, a reference to a password or a file leads nowhere, or a file is
                not what it has to be.

        """
        return resolve_brokers(self.need_brokers(), self.security)

    def hash_key(self) -> HashKey | None:
        """
        The key of hashed fields; None when there is none.

        Raises:
            ConfigurationError: it is too short, or the reference to it leads nowhere.

        """
        if self.declared_key is None:
            return None
        text, where = self.declared_key
        return hash_key(text if where == _HASH_KEY else read_secret(text, self.project, where), where)

    def need_connect_url(self) -> str:
        """The REST address of Kafka Connect, or an error that says where to set it."""
        if self.connect_url is None:
            raise ConfigurationError(
                "no Kafka Connect address is known", where="connect_url", fix=_fix("ROWCAST_CONNECT_URL")
            )
        return self.connect_url

    def connect(self) -> ConnectAddress:
        """
        Where Kafka Connect's REST interface is, and how to log in there.

        Raises:
            ConfigurationError: it is not known, or a reference to the password or a file leads nowhere.

        """
        return resolve_connect(self.need_connect_url(), self.connect_login)

    def database(self, name: str) -> DatabaseSettings:
        """
        The database called *name*: declared, or of that name in the embedded stack's PostgreSQL. Its url is complete.

        Raises:
            ConfigurationError: it is neither, or the reference to its password leads nowhere.

        """
        if name in self.databases:
            return self.databases[name].resolved()
        if self.stack_postgres is None:
            raise ConfigurationError(
                f"database {name!r} is not known", where=f"databases.{name}", fix=_fix(DATABASE_PREFIX + name.upper())
            )
        from psycopg.conninfo import make_conninfo  # here, because what needs no database starts quicker without

        server = self.stack_postgres
        url = make_conninfo(
            host=server["host"], port=server["port"], user=server["user"], password=server["password"], dbname=name
        )
        return DatabaseSettings(name, url, server.get("connect_password"), where="the stack of `rowcast up`")

    def control(self) -> DatabaseSettings:
        """The control database."""
        return self.database(CONTROL_DATABASE)


def _fix(variable: str) -> str:
    return f"run `rowcast up`, set it in rowcast.toml, or set {variable}"


def load_settings(project: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """
    The settings of the project folder *project*.

    Raises:
        ConfigurationError: a file cannot be read, or it or the environment names something unknown.

    """
    environ = os.environ if environ is None else environ
    declared = _read_toml(project / "rowcast.toml")
    stack = _read_stack(project / STATE_FOLDER / "stack.json")
    values: dict[str, str | None] = {name: declared.get(name, stack.get(name)) for name in ("brokers", "connect_url")}
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise ConfigurationError("not a text", where=f"rowcast.toml: {name}", fix=f'{name} = "…"')
    _refuse_unknown_variables(environ)
    for variable, text in environ.items():
        if variable in _ENVIRONMENT:
            values[_ENVIRONMENT[variable]] = text
    return Settings(
        project,
        values["brokers"],
        values["connect_url"],
        read_databases(declared.get("databases", {}), environ, project),
        stack.get("postgres"),
        read_security(declared.get("kafka", {}), environ, project),
        _declared_key(declared, environ),
        read_connect(declared.get("connect", {}), environ, project),
        read_acl(declared.get("acl", {})),
    )


def load_parts_settings(project: Path, environ: Mapping[str, str] | None = None) -> PartsSettings:
    """
    What the embedded stack of the project folder *project* is declared to be made of.

    A relative folder counts from *project* in ``rowcast.toml``, from the current folder in the environment.

    Raises:
        ConfigurationError: ``rowcast.toml`` cannot be read, or it or the environment says something unknown.

    """
    environ = os.environ if environ is None else environ
    _refuse_unknown_variables(environ)
    path = project / "rowcast.toml"
    declared = {name: value for name, value in _read_toml(path).items() if name in _PARTS}
    for name, value in declared.items():
        if not isinstance(value, str) or not value:
            raise ConfigurationError("not a text", where=f"{path}: {name}", fix=f'{name} = "…"')
    variables = {name: environ[variable] for variable, name in _PARTS_ENVIRONMENT.items() if variable in environ}
    for where, values in ((str(path), declared), ("environment", variables)):
        if values.get("parts", PARTS_CHOICES[0]) not in PARTS_CHOICES:
            fix = "one of " + ", ".join(PARTS_CHOICES)
            raise ConfigurationError(f"unknown parts {values['parts']!r}", where=where, fix=fix)
    return parts_settings(variables, Path.cwd()).over(parts_settings(declared, project))


def parts_settings(values: Mapping[str, str | None], folder: Path) -> PartsSettings:
    """The settings with these *values* by name; relative folders count from *folder*."""
    places = [values.get(name) for name in _PARTS[1:]]
    return PartsSettings(
        values.get("parts"), *(os.path.normpath(folder.resolve() / place) if place else None for place in places)
    )


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        declared = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(str(error), where=str(path), fix="correct the file") from error
    _refuse_unknown(declared, _TOP, str(path))
    return declared


def _read_stack(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        stack = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            str(error), where=str(path), fix="run `rowcast down --wipe`, then `rowcast up`"
        ) from error
    if not isinstance(stack, dict):
        raise ConfigurationError(
            "not a JSON object", where=str(path), fix="run `rowcast down --wipe`, then `rowcast up`"
        )
    return stack


def _declared_key(declared: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str] | None:
    if _HASH_KEY in environ:
        return environ[_HASH_KEY], _HASH_KEY
    if "hash_key" not in declared:
        return None
    where = "rowcast.toml: hash_key"
    if not isinstance(declared["hash_key"], str):
        raise ConfigurationError("not a text", where=where, fix='hash_key = "${env:VARIABLE}"')
    return declared["hash_key"], where


def known_variables() -> frozenset[str]:
    """The names of all ``ROWCAST_*`` variables but for those that name a database."""
    sections = (_ENVIRONMENT, _PARTS_ENVIRONMENT, _OTHER_ENVIRONMENT, KAFKA_VARIABLES, CONNECT_VARIABLES)
    return frozenset({_HASH_KEY}.union(*sections))


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = known_variables()
    for variable in environ:
        if variable.startswith("ROWCAST_") and not variable.startswith(DATABASE_PREFIX) and variable not in known:
            fix = "known: " + ", ".join(sorted({*known, DATABASE_PREFIX + "<NAME>"}))
            raise ConfigurationError("unknown setting", where=variable, fix=fix)


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in entry:
        if name not in known:
            raise ConfigurationError(f"unknown name {name!r}", where=where, fix="known: " + ", ".join(sorted(known)))
