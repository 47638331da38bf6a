"""
Settings of a project: where its brokers, Connect and databases are.

One place, typed. Order of precedence: ``ROWCAST_*`` environment variables, the project's ``rowcast.toml``,
then what ``rowcast up`` wrote into ``.rowcast/stack.json``. Unknown names are refused; secrets never printed.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rowcast.errors import ConfigurationError

STATE_FOLDER = ".rowcast"
CONTROL_DATABASE = "rowcast"
_TOP = {"brokers", "connect_url", "databases"}
_DATABASE = {"url", "connect_password"}
_ENVIRONMENT = {"ROWCAST_BROKERS": "brokers", "ROWCAST_CONNECT_URL": "connect_url"}
_DATABASE_PREFIX = "ROWCAST_DATABASE_"
# Read elsewhere, by the command line itself.
_OTHER_ENVIRONMENT = {
    "ROWCAST_PROJECT",
    "ROWCAST_CACHE",
    "ROWCAST_WEB_PORT",
    "ROWCAST_FAILPOINTS",
    "ROWCAST_TEST_DATA",
    "ROWCAST_TEST_STACK",
}


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """
    How to reach one PostgreSQL database.

    *url* is a libpq connection string or URI. *connect_password* is what the connector's configuration
    carries instead of the password: a reference that Connect's config providers resolve.
    """

    name: str
    url: str = field(repr=False)
    connect_password: str | None = field(default=None, repr=False)

    def parameters(self) -> dict[str, Any]:
        """The libpq parameters of the url, by keyword."""
        return dict(conninfo_to_dict(self.url))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything outside the source files: *project* folder, *brokers*, *connect_url*, *databases* by name."""

    project: Path
    brokers: str | None
    connect_url: str | None
    databases: Mapping[str, DatabaseSettings]
    stack_postgres: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def state_folder(self) -> Path:
        """Where the embedded stack keeps its state."""
        return self.project / STATE_FOLDER

    def need_brokers(self) -> str:
        """The bootstrap servers, or an error that says where to set them."""
        if self.brokers is None:
            raise ConfigurationError("no Kafka brokers are known", where="brokers", fix=_fix("ROWCAST_BROKERS"))
        return self.brokers

    def need_connect_url(self) -> str:
        """The REST address of Kafka Connect, or an error that says where to set it."""
        if self.connect_url is None:
            raise ConfigurationError(
                "no Kafka Connect address is known", where="connect_url", fix=_fix("ROWCAST_CONNECT_URL")
            )
        return self.connect_url

    def database(self, name: str) -> DatabaseSettings:
        """
        The database called *name*: declared, or of that name in the embedded stack's PostgreSQL.

        Raises:
            ConfigurationError: it is neither.

        """
        if name in self.databases:
            return self.databases[name]
        if self.stack_postgres is None:
            raise ConfigurationError(
                f"database {name!r} is not known", where=f"databases.{name}", fix=_fix(_DATABASE_PREFIX + name.upper())
            )
        server = self.stack_postgres
        url = make_conninfo(
            host=server["host"], port=server["port"], user=server["user"], password=server["password"], dbname=name
        )
        return DatabaseSettings(name, url, server.get("connect_password"))

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
    for variable, text in environ.items():
        if variable in _ENVIRONMENT:
            values[_ENVIRONMENT[variable]] = text
        elif variable.startswith(_DATABASE_PREFIX):
            name = variable.removeprefix(_DATABASE_PREFIX).lower()
            databases[name] = DatabaseSettings(name, text)
        elif variable.startswith("ROWCAST_") and variable not in _OTHER_ENVIRONMENT:
            known = sorted({*_ENVIRONMENT, _DATABASE_PREFIX + "<NAME>", *_OTHER_ENVIRONMENT})
            raise ConfigurationError("unknown setting", where=variable, fix="known: " + ", ".join(known))
    return Settings(project, values["brokers"], values["connect_url"], databases, stack.get("postgres"))


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


def _database(name: str, entry: Any) -> DatabaseSettings:
    where = f"rowcast.toml: databases.{name}"
    if not isinstance(entry, dict) or "url" not in entry:
        raise ConfigurationError("needs a url", where=where, fix='url = "postgresql://user@host/name"')
    _refuse_unknown(entry, _DATABASE, where)
    return DatabaseSettings(name, entry["url"], entry.get("connect_password"))


def _refuse_unknown(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in entry:
        if name not in known:
            raise ConfigurationError(f"unknown name {name!r}", where=where, fix="known: " + ", ".join(sorted(known)))
