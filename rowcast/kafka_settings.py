"""The section ``kafka`` of the settings: what it may say, and what clients are told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rowcast.brokers import FILES, MECHANISMS, PROTOCOLS, SECRETS, SECURITY, Brokers
from rowcast.declared_text import DeclaredText, declared, from_environment
from rowcast.errors import ConfigurationError
from rowcast.tls import TlsFilesError, client_context

PREFIX = "ROWCAST_KAFKA_"
WHERE = "rowcast.toml: kafka"
VARIABLES = {PREFIX + name.upper(): name for name in SECURITY}
# What a fault of the TLS files is about, as the settings call it.
ABOUT = {"authority": "ssl_cafile", "certificate": "ssl_certfile", "key": "ssl_keyfile", "password": "ssl_password"}


def read_security(entry: Any, environ: Mapping[str, str], project: Path) -> dict[str, DeclaredText]:
    """
    The settings by name: those of the section *entry*, and over them those of the environment.

    Raises:
        ConfigurationError: something is unknown, missing or without effect.

    """
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ConfigurationError("not a section of texts", where=WHERE, fix='security_protocol = "SASL_SSL"')
    for name in entry:
        if name not in SECURITY:
            known = ", ".join(sorted(SECURITY))
            raise ConfigurationError(f"unknown name {name!r}", where=WHERE, fix=f"known: {known}")
    security = declared(entry, WHERE, project) | from_environment(VARIABLES, environ)
    _refuse_unusable(security)
    return security


def _refuse_unusable(security: Mapping[str, DeclaredText]) -> None:
    for name, accepted in (("security_protocol", PROTOCOLS), ("sasl_mechanism", MECHANISMS)):
        if name in security and security[name].text not in accepted:
            message = f"{security[name].text!r} is not accepted"
            raise ConfigurationError(message, where=security[name].where, fix=", ".join(accepted))
    protocol = security["security_protocol"].text if "security_protocol" in security else PROTOCOLS[0]
    needed = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password") if "SASL" in protocol else ()
    for name in needed:
        if name not in security:
            raise ConfigurationError("is missing", where=f"{WHERE}.{name}", fix=f"{protocol} needs {', '.join(needed)}")
    for name, text in security.items():
        unused = name.startswith("ssl_") and not protocol.endswith("SSL")
        unused = unused or (name.startswith("sasl_") and not protocol.startswith("SASL"))
        if unused:
            other = "SSL or SASL_SSL" if name.startswith("ssl_") else "SASL_SSL"
            raise ConfigurationError(
                f"has no effect with {protocol}", where=text.where, fix=f"{other}, or leave it out"
            )


def resolve_brokers(servers: str, security: Mapping[str, DeclaredText]) -> Brokers:
    """
    How to reach the brokers at *servers*: passwords looked up, files found and readable.

    Raises:
        ConfigurationError: a reference or a file leads nowhere, or a file cannot be used.

    """
    values = {}
    for name, text in security.items():
        if name in SECRETS:
            values[name] = text.secret()
        elif name in FILES:
            values[name] = text.file("a PEM file")
        else:
            values[name] = text.text
    brokers = Brokers(servers, values)
    if FILES & values.keys():
        try:
            client_context(brokers.tls())
        except TlsFilesError as error:
            where = f"{WHERE}.{ABOUT[error.fault.about]}"
            raise ConfigurationError(error.fault.message, where=where, fix="correct the file or the setting") from error
    return brokers
