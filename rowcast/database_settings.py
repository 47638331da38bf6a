"""How to reach one PostgreSQL database, and the sections ``databases.<name>`` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rowcast.declared_text import DeclaredText, from_environment
from rowcast.errors import ConfigurationError

PREFIX = "ROWCAST_DATABASE_"
WHERE = "rowcast.toml: databases"
KEYS = ("url", "password", "connect_password", "connect_url")
_SEPARATOR = "__"


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """
    How to reach one PostgreSQL database.

    *url* is a libpq connection string or URI. *password* leads to the password, where it is not in the url.
    *connect_password* is what the connector's configuration carries instead of the password: a reference that Connect's
    config providers resolve. *connect_url* has libpq parameters that are others for the connector than those of *url*.
    *where* the entry stands.
    """

    name: str
    url: str = field(repr=False)
    connect_password: str | None = field(default=None, repr=False)
    password: DeclaredText | None = field(default=None, repr=False)
    connect_url: str | None = field(default=None, repr=False)
    where: str = ""

    def parameters(self) -> dict[str, Any]:
        """
        The libpq parameters of the url, by keyword.

        Raises:
            ConfigurationError: it is no connection string.

        """
        return _parameters(self.url, self.where or f"database {self.name!r}")

    def connect_parameters(self) -> dict[str, Any]:
        """
        Those that the connector gets: of *url*, and over them of *connect_url*. No password of *url* is among them.

        Raises:
            ConfigurationError: one of them is no connection string.

        """
        shared = {name: value for name, value in self.parameters().items() if name not in {"password", "sslpassword"}}
        if self.connect_url is None:
            return shared
        return {**shared, **_parameters(self.connect_url, f"{self.where}.connect_url")}

    @property
    def has_password(self) -> bool:
        """Whether a password is known here."""
        return self.password is not None or "password" in self.parameters()

    def resolved(self) -> DatabaseSettings:
        """
        The same with a complete url.

        Raises:
            ConfigurationError: the reference to the password leads nowhere, or the url is no connection string.

        """
        parameters = self.parameters()
        if self.password is None:
            return self
        from psycopg.conninfo import make_conninfo  # here, because what needs no database starts quicker without

        return replace(self, url=make_conninfo(**{**parameters, "password": self.password.secret()}))


def _parameters(url: str, where: str) -> dict[str, Any]:
    import psycopg  # as above
    from psycopg.conninfo import conninfo_to_dict

    try:
        return dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        # libpq would quote it, password and all.
        raise ConfigurationError(
            "is no connection string", where=where, fix="postgresql://user@host:5432/name, or host=… dbname=… user=…"
        ) from None


def read_databases(section: Any, environ: Mapping[str, str], project: Path) -> dict[str, DatabaseSettings]:
    """
    The databases by name: those of the *section*, and over them those of the environment.

    Raises:
        ConfigurationError: an entry has no url, or says something unknown.

    """
    if not isinstance(section, dict):
        raise ConfigurationError("not a section", where=WHERE, fix="[databases.<name>]")
    entries = {name: _declared(name, entry, project) for name, entry in section.items()}
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            name, separator, key = variable.removeprefix(PREFIX).lower().partition(_SEPARATOR)
            if separator and key not in KEYS[1:]:
                known = ", ".join(f"{PREFIX}<NAME>{_SEPARATOR}{each.upper()}" for each in KEYS[1:])
                raise ConfigurationError("unknown setting", where=variable, fix=f"known: {known}")
            found = from_environment({variable: key or "url"}, environ)
            entries[name] = {**entries.get(name, {}), **found} if separator else found
    return {name: _database(name, entry) for name, entry in entries.items()}


def _declared(name: str, entry: Any, project: Path) -> dict[str, DeclaredText]:
    where = f"{WHERE}.{name}"
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ConfigurationError("not a section of texts", where=where, fix='url = "postgresql://user@host/name"')
    for key in entry:
        if key not in KEYS:
            known = ", ".join(sorted(KEYS))
            raise ConfigurationError(f"unknown name {key!r}", where=where, fix=f"known: {known}")
    return {key: DeclaredText(f"{where}.{key}", text, project) for key, text in entry.items()}


def _database(name: str, entry: Mapping[str, DeclaredText]) -> DatabaseSettings:
    if "url" not in entry:
        fix = 'url = "postgresql://user@host/name"'
        raise ConfigurationError("needs a url", where=f"{WHERE}.{name}", fix=fix)
    texts = {key: each.text for key, each in entry.items() if key != "password"}
    where = entry["url"].where.removesuffix(".url")
    return DatabaseSettings(name=name, password=entry.get("password"), where=where, **texts)
