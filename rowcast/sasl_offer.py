"""
Which logins a broker takes, as it says in answer to a SaslHandshake (Kafka protocol guide, API key 17, version 1).

A broker that takes another mechanism says so and ends the connection at once. Client libraries that see the end first
tell of nothing else.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

from rowcast.brokers import Brokers
from rowcast.tls import TlsFilesError, client_context

_TIMEOUT_S = 6.0
_API_KEY, _API_VERSION, _CORRELATION = 17, 1, 1
_CLIENT = b"rowcast"
_ANSWER_BYTES_MAX = 65_536


def offered_mechanisms(brokers: Brokers, host: str, port: int) -> tuple[str, ...] | None:
    """The SASL mechanisms of the broker at *host* and *port*; None where it does not tell within some seconds."""
    try:
        with ExitStack() as opened:
            connection = opened.enter_context(socket.create_connection((host, port), timeout=_TIMEOUT_S))
            if brokers.uses_tls:
                context = client_context(brokers.tls())
                connection = opened.enter_context(context.wrap_socket(connection, server_hostname=host))
            connection.sendall(_request(brokers.security.get("sasl_mechanism", "")))
            size = struct.unpack(">i", _read(connection, 4))[0]
            return _mechanisms(_read(connection, min(size, _ANSWER_BYTES_MAX)))
    except (OSError, TlsFilesError, ValueError, struct.error):
        return None


def _request(mechanism: str) -> bytes:
    asked = mechanism.encode()
    body = struct.pack(">hhih", _API_KEY, _API_VERSION, _CORRELATION, len(_CLIENT)) + _CLIENT
    body += struct.pack(">h", len(asked)) + asked
    return struct.pack(">i", len(body)) + body


def _read(connection: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        part = connection.recv(size - len(read))
        if not part:
            raise ValueError("the connection ended within the answer")
        read += part
    return read


def _mechanisms(answer: bytes) -> tuple[str, ...]:
    _correlation, _error, count = struct.unpack_from(">ihi", answer)
    names, at = list[str](), 10
    for _ in range(count):
        (size,) = struct.unpack_from(">h", answer, at)
        names.append(answer[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return tuple(names)
