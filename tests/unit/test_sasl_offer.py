"""What a broker offers is read also where it ends the connection behind its answer; what is no answer tells nothing."""

from __future__ import annotations

import socket
import struct
from threading import Thread

import pytest

from rowcast.brokers import Brokers
from rowcast.sasl_offer import offered_mechanisms


def answered(answer: bytes) -> tuple[str, ...] | None:
    """What is read from a server that sends *answer* and ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1_000)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        brokers = Brokers(f"{host}:{port}", {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"})
        try:
            return offered_mechanisms(brokers, host, port)
        finally:
            thread.join()


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def test_a_refusal_names_what_is_offered() -> None:
    """In the order of the broker."""
    body = struct.pack(">ihih13s", 1, 33, 2, 13, b"SCRAM-SHA-512") + struct.pack(">h6s", 6, b"GSSAPI")
    assert answered(framed(body)) == ("SCRAM-SHA-512", "GSSAPI")
    assert answered(framed(struct.pack(">ihi", 1, 33, 0))) == ()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        framed(b"\0\0"),
        framed(struct.pack(">ihi", 1, 33, 3)),
        framed(struct.pack(">ihih2s", 1, 33, 1, 2, b"\xff\xfe")),
        framed(struct.pack(">ihih5s", 1, 33, 1, 5, b"PLAIN"))[:-1],
    ],
)
def test_what_is_no_answer_tells_nothing(answer: bytes) -> None:
    """No error either: the question is asked to explain another one."""
    assert answered(answer) is None
