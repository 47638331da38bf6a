"""Where Kafka Connect's REST interface is, who logs in there, and the section ``connect`` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from rowcast.declared_text import DeclaredText, declared, from_environment
from rowcast.errors import ConfigurationError
from rowcast.tls import TlsFiles, TlsFilesError, client_context

WHERE = "rowcast.toml: connect"
FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
NAMES = ("user", "password", *FILES)
VARIABLES = {f"ROWCAST_CONNECT_{name.upper()}": name for name in NAMES}


@dataclass(frozen=True, slots=True)
class ConnectAddress:
    """*url* has no login in it; *tls* is for ``https``."""

    url: str
    user: str | None = None
    password: str = field(default="", repr=False)
    tls: TlsFiles = field(default_factory=TlsFiles)

    @classmethod
    def parse(cls, url: str) -> ConnectAddress:
        """
        The address of *url*, which may have a login in it: ``https://user:password@host``.

        Raises:
            ConfigurationError: it is no such url.

        """
        try:
            parts = urlsplit(url.rstrip("/"))
            usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
        except ValueError:
            usable = False
        if not usable:  # not shown: it may hold a password
            raise ConfigurationError(
                "is no address of Kafka Connect", where="connect_url", fix="http://host:8083, or https://host:8083"
            )
        plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        user = None if parts.username is None else unquote(parts.username)
        return cls(plain, user, unquote(parts.password or ""))


def read_connect(entry: Any, environ: Mapping[str, str], project: Path) -> dict[str, DeclaredText]:
    """
    The settings by name: those of the section *entry*, and over them those of the environment.

    Raises:
        ConfigurationError: something is unknown or missing.

    """
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ConfigurationError("not a section of texts", where=WHERE, fix='user = "rowcast"')
    for name in entry:
        if name not in NAMES:
            known = ", ".join(sorted(NAMES))
            raise ConfigurationError(f"unknown name {name!r}", where=WHERE, fix=f"known: {known}")
    found = declared(entry, WHERE, project) | from_environment(VARIABLES, environ)
    for one, other in (("user", "password"), ("password", "user"), ("ssl_keyfile", "ssl_certfile")):
        if one in found and other not in found:
            raise ConfigurationError("is missing", where=f"{WHERE}.{other}", fix=f"{one} needs {other}")
    return found


def resolve_connect(url: str, found: Mapping[str, DeclaredText]) -> ConnectAddress:
    """
    The address with everything looked up.

    Raises:
        ConfigurationError: *url* is none, a reference or file leads nowhere, or something has no effect.

    """
    address = ConnectAddress.parse(url)
    files = {name: found[name].file("a PEM file") for name in FILES if name in found}
    if files and not address.url.startswith("https:"):
        where = found[next(iter(files))].where
        raise ConfigurationError("has no effect with http", where=where, fix="connect_url = https://…, or leave it out")
    tls = TlsFiles(files.get("ssl_cafile"), files.get("ssl_certfile"), files.get("ssl_keyfile"))
    if files:
        try:
            client_context(tls)
        except TlsFilesError as error:
            raise ConfigurationError(error.fault.message, where=WHERE, fix="correct the file or the setting") from error
    if "user" not in found:
        return ConnectAddress(address.url, address.user, address.password, tls)
    return ConnectAddress(address.url, found["user"].text, found["password"].secret(), tls)
