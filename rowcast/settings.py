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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rowcast.brokers import FILES, MECHANISMS, PROTOCOLS, SECRETS, SECURITY, Brokers
from rowcast.errors import ConfigurationError
from rowcast.hash_key import HashKey, hash_key
from rowcast.secret_file import read_secret

STATE_FOLDER = ".rowcast"
CONTROL_DATABASE = "rowcast"
PARTS_CHOICES = ("bundled", "system", "auto")
_PARTS = ("parts", "postgres_bin", "java_home")
_TOP = {"brokers", "connect_url", "databases", "hash_key", "kafka", *_PARTS}
_DATABASE = {"url", "password", "connect_password"}
_ENVIRONMENT = {"ROWCAST_BROKERS": "brokers", "ROWCAST_CONNECT_URL": "connect_url"}
_PARTS_ENVIRONMENT = {f"ROWCAST_{name.upper()}": name for name in _PARTS}
_DATABASE_PREFIX = "ROWCAST_DATABASE_"
_HASH_KEY = "ROWCAST_HASH_KEY"
# Read elsewhere, by the command line itself.
_OTHER_ENVIRONMENT = {
    "ROWCAST_PROJECT",
    "ROWCAST_CACHE",
    "ROWCAST_WEB_PORT",
    "ROWCAST_FAILPOINTS",
    "ROWCAST_TEST_STACK",
    "ROWCAST_TEST_DATA",
}


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """
    How to reach one PostgreSQL database.

    *url* is a libpq connection string or URI. *password* refers to the password, where it is not in the url.
    *connect_password* is what the connector's configuration carries instead of the password: a reference that Connect's
    config providers resolve.
    """

    name: str
    url: str = field(repr=False)
    connect_password: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def parameters(self) -> dict[str, Any]:
        """The libpq parameters of the url, by keyword."""
        from psycopg.conninfo import conninfo_to_dict  # here, because what needs no database starts quicker without

        return dict(conninfo_to_dict(self.url))


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

    *security* is the section ``kafka`` as it stands: passwords are references. *declared_key* is the key of hashed
    fields with the place where it stands: a reference, unless it is from the environment.
    """

    project: Path
    brokers: str | None
    connect_url: str | None
    databases: Mapping[str, DatabaseSettings]
    stack_postgres: Mapping[str, Any] | None = field(default=None, repr=False)
    security: Mapping[str, str] = field(default_factory=dict, repr=False)
    declared_key: tuple[str, str] | None = field(default=None, repr=False)

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
            ConfigurationError: no brokers are known, or a reference to a password or a file leads nowhere.

        """
        servers = self.need_brokers()
        security = {}
        for name, text in self.security.items():
            if name in SECRETS:
                security[name] = read_secret(text, self.project, f"rowcast.toml: kafka.{name}")
            elif name in FILES:
                security[name] = str(self.project / text)
                if not (self.project / text).is_file():
                    raise ConfigurationError(
                        f"there is no file {security[name]}", where=f"rowcast.toml: kafka.{name}", fix="a PEM file"
                    )
            else:
                security[name] = text
        return Brokers(servers, security)

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

    def database(self, name: str) -> DatabaseSettings:
        """
        The database called *name*: declared, or of that name in the embedded stack's PostgreSQL. Its url is complete.

        Raises:
            ConfigurationError: it is neither, or the reference to its password leads nowhere.

        """
        if name in self.databases:
            return self._with_password(self.databases[name])
        if self.stack_postgres is None:
            raise ConfigurationError(
                f"database {name!r} is not known", where=f"databases.{name}", fix=_fix(_DATABASE_PREFIX + name.upper())
            )
        from psycopg.conninfo import make_conninfo  # as above

        server = self.stack_postgres
        url = make_conninfo(
            host=server["host"], port=server["port"], user=server["user"], password=server["password"], dbname=name
        )
        return DatabaseSettings(name, url, server.get("connect_password"))

    def _with_password(self, database: DatabaseSettings) -> DatabaseSettings:
        if database.password is None:
            return database
        from psycopg.conninfo import make_conninfo  # as above

        where = f"rowcast.toml: databases.{database.name}.password"
        password = read_secret(database.password, self.project, where)
        return replace(database, url=make_conninfo(database.url, password=password))

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
    databases = {name: _database(name, entry) for name, entry in declared.get("databases", {}).items()}
    values: dict[str, str | None] = {name: declared.get(name, stack.get(name)) for name in ("brokers", "connect_url")}
    _refuse_unknown_variables(environ)
    for variable, text in environ.items():
        if variable in _ENVIRONMENT:
            values[_ENVIRONMENT[variable]] = text
        elif variable.startswith(_DATABASE_PREFIX):
            name = variable.removeprefix(_DATABASE_PREFIX).lower()
            databases[name] = DatabaseSettings(name, text)
    return Settings(
        project,
        values["brokers"],
        values["connect_url"],
        databases,
        stack.get("postgres"),
        _security(declared.get("kafka", {})),
        _declared_key(declared, environ),
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


def _security(entry: Any) -> dict[str, str]:
    where = "rowcast.toml: kafka"
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ConfigurationError("not a section of texts", where=where, fix='security_protocol = "SASL_SSL"')
    _refuse_unknown(entry, set(SECURITY), where)
    for name, accepted in (("security_protocol", PROTOCOLS), ("sasl_mechanism", MECHANISMS)):
        if name in entry and entry[name] not in accepted:
            raise ConfigurationError(
                f"{entry[name]!r} is not accepted", where=f"{where}.{name}", fix=", ".join(accepted)
            )
    protocol = entry.get("security_protocol", PROTOCOLS[0])
    needed = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password") if "SASL" in protocol else ()
    for name in needed:
        if name not in entry:
            raise ConfigurationError("is missing", where=f"{where}.{name}", fix=f"{protocol} needs {', '.join(needed)}")
    for name in entry:
        if protocol == "PLAINTEXT" or ("SSL" not in protocol.split("_")[-1] and name.startswith("ssl_")):
            raise ConfigurationError(
                f"has no effect with {protocol}", where=f"{where}.{name}", fix="SSL or SASL_SSL, or leave it out"
            )
    return dict(entry)


def _declared_key(declared: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str] | None:
    if _HASH_KEY in environ:
        return environ[_HASH_KEY], _HASH_KEY
    if "hash_key" not in declared:
        return None
    where = "rowcast.toml: hash_key"
    if not isinstance(declared["hash_key"], str):
        raise ConfigurationError("not a text", where=where, fix='hash_key = "${env:VARIABLE}"')
    return declared["hash_key"], where


def _database(name: str, entry: Any) -> DatabaseSettings:
    where = f"rowcast.toml: databases.{name}"
    if not isinstance(entry, dict) or "url" not in entry:
        raise ConfigurationError("needs a url", where=where, fix='url = "postgresql://user@host/name"')
    _refuse_unknown(entry, _DATABASE, where)
    return DatabaseSettings(name, entry["url"], entry.get("connect_password"), entry.get("password"))


def known_variables() -> frozenset[str]:
    """The names of all ``ROWCAST_*`` variables but for those that name a database."""
    return frozenset({*_ENVIRONMENT, *_PARTS_ENVIRONMENT, *_OTHER_ENVIRONMENT, _HASH_KEY})


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = known_variables()
    for variable in environ:
        if variable.startswith("ROWCAST_") and not variable.startswith(_DATABASE_PREFIX) and variable not in known:
            fix = "known: " + ", ".join(sorted({*known, _DATABASE_PREFIX + "<NAME>"}))
            raise ConfigurationError("unknown setting", where=variable, fix=fix)


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in entry:
        if name not in known:
            raise ConfigurationError(f"unknown name {name!r}", where=where, fix="known: " + ", ".join(sorted(known)))
