"""
TLS as every client of Rowcast uses it: its files, whether they can be used, and why a server was not trusted.

Client libraries say that a connection failed, and seldom why. So the handshake is made once more, by itself, where a
connection by TLS did not come about: its outcome is what a person can mend.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_TIMEOUT_S = 3.0
# OpenSSL's numbers of why a certificate is not accepted.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_NAME_MISMATCH = frozenset({62, 64})
_REFUSAL_S = 0.3
# What OpenSSL says during a handshake, what that is about, and what the server does.
_HANDSHAKE = (
    ("wrong version number", "server", "does not speak TLS"),
    ("record layer failure", "server", "does not speak TLS"),
    ("alert certificate required", "certificate", "asks for a client certificate"),
    ("alert bad certificate", "certificate", "does not accept the client certificate"),
    ("alert certificate expired", "certificate", "says that the client certificate has expired"),
    ("alert certificate unknown", "certificate", "does not accept the client certificate"),
    ("alert unknown ca", "certificate", "does not trust who issued the client certificate"),
)
_POSTGRES_TLS = struct.pack("!ii", 8, 80_877_103)  # SSLRequest


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    PEM files: *authority* is whom to trust (None: whom this machine trusts), *certificate* and *key* are the client's.

    Without *key* it stands in *certificate*; *password* opens it.
    """

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TlsFault:
    """What is wrong, in words; *about* says where: the server, its name, or one of the client's files."""

    about: str
    message: str


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """
    What a client with these *files* uses.

    Raises:
        TlsFilesError: one of them cannot be used.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if files.authority is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise TlsFilesError(TlsFault("authority", f"{files.authority} has no certificates in PEM form")) from error
    if files.certificate is not None:
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(files.certificate, files.key, lambda: files.password or "")
        except (OSError, ssl.SSLError) as error:
            raise TlsFilesError(_own_fault(files, error)) from error
    return context


class TlsFilesError(Exception):
    """A client's own file cannot be used: *fault*."""

    def __init__(self, fault: TlsFault) -> None:
        self.fault = fault
        super().__init__(fault.message)


def _own_fault(files: TlsFiles, error: OSError) -> TlsFault:
    key = files.key or str(files.certificate)
    if "MISMATCH" in (getattr(error, "reason", None) or ""):
        return TlsFault("key", f"the key in {key} is not that of the certificate {files.certificate}")
    try:
        protected = b"ENCRYPTED" in Path(key).read_bytes()
    except OSError:
        return TlsFault("key", f"{key} may not be read")
    if protected:
        wrong = "is missing" if files.password is None else "does not open it"
        return TlsFault("password", f"{key} is protected by a password, and the password {wrong}")
    return TlsFault("certificate", f"{files.certificate} and {key} are no certificate with its key in PEM form")


def why_not_trusted(
    host: str, port: int, files: TlsFiles, begin: Callable[[socket.socket], TlsFault | None] | None = None
) -> TlsFault | None:
    """
    What keeps a client with *files* from TLS with the server at *host* and *port*; None where nothing does.

    *begin* is what the protocol says before TLS. Takes some seconds at most.
    """
    try:
        context = client_context(files)
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as plain:
            fault = begin(plain) if begin is not None else None
            if fault is None:
                with context.wrap_socket(plain, server_hostname=host) as secured:
                    _hear_refusal(secured)
            return fault
    except TlsFilesError as error:
        return error.fault
    except OSError as error:
        return _connection_fault(host, port, error)


def _connection_fault(host: str, port: int, error: OSError) -> TlsFault:
    place = f"{host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrust(place, error)
    if isinstance(error, ssl.SSLError):
        return _handshake_fault(place, error)
    if isinstance(error, socket.gaierror):
        return TlsFault("address", f"the host name {host!r} is not known")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return TlsFault("server", f"{place} ended the connection during the TLS handshake")
    return TlsFault("address", f"{place} does not answer: {(error.strerror or 'no answer in time').lower()}")


def speaks_tls(host: str, port: int) -> bool:
    """Whether a server answers there that speaks TLS, whatever certificate it has."""
    fault = why_not_trusted(host, port, TlsFiles())
    return fault is None or "certificate" in fault.message


def begin_postgres(plain: socket.socket) -> TlsFault | None:
    """Ask a PostgreSQL server for TLS."""
    plain.sendall(_POSTGRES_TLS)
    if plain.recv(1) != b"S":
        return TlsFault("server", "the server does not offer TLS")
    return None


def _hear_refusal(secured: ssl.SSLSocket) -> None:
    """With TLS 1.3 a server says after the handshake that it does not accept the client's certificate."""
    secured.settimeout(_REFUSAL_S)
    with suppress(TimeoutError):
        secured.recv(1)


def _distrust(place: str, error: ssl.SSLCertVerificationError) -> TlsFault:
    code = error.verify_code
    if code == _EXPIRED:
        return TlsFault("server", f"the certificate of {place} has expired")
    if code == _NOT_YET_VALID:
        return TlsFault("server", f"the certificate of {place} is not valid yet")
    if code in _UNKNOWN_AUTHORITY:
        return TlsFault("authority", f"the certificate of {place} is not from an authority that is trusted here")
    if code in _NAME_MISMATCH:
        return TlsFault("name", f"the certificate of {place} is for another host name")
    return TlsFault("server", f"the certificate of {place} is not accepted: {error.verify_message}")


def _handshake_fault(place: str, error: ssl.SSLError) -> TlsFault:
    reason = (error.reason or "").replace("_", " ").lower()
    for text, about, words in _HANDSHAKE:
        if text in reason:
            return TlsFault(about, f"{place} {words}")
    return TlsFault("server", f"TLS with {place} fails: {reason or error}")
