"""Why a server is not trusted: tried with a server on loopback and certificates of every kind."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from certificates import Authority, Certificate

from rowcast.tls import TlsFiles, speaks_tls, why_not_trusted


@contextmanager
def server(own: Certificate | None, clients: Authority | None = None) -> Iterator[int]:
    """The port of a server with the certificate *own*, which lets in clients of an authority, if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if own is not None:
        context.load_cert_chain(own.chain, own.key)
    if clients is not None:
        context.load_verify_locations(clients.certificate)
        context.verify_mode = ssl.CERT_REQUIRED

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                plain, _address = listener.accept()
                with plain, suppress(OSError):
                    if own is None:
                        plain.recv(100)
                        plain.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    else:
                        with context.wrap_socket(plain, server_side=True) as secured:
                            secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]


def test_each_reason_is_told_apart(tmp_path: Path) -> None:
    """Expired, unknown, for another host, no TLS, no client certificate, one of a stranger; or nothing at all."""
    known, stranger = Authority(tmp_path / "known"), Authority(tmp_path / "stranger")
    trust = TlsFiles(str(known.certificate))
    good = known.issue("good")
    cases = [
        (good, None, trust, None),
        (known.issue("old", expired=True), None, trust, ("server", "the certificate of 127.0.0.1:{} has expired")),
        (good, None, TlsFiles(str(stranger.certificate)), ("authority", "not from an authority that is trusted here")),
        (known.issue("away", "subjectAltName=DNS:away"), None, trust, ("name", "is for another host name")),
        (None, None, trust, ("server", "127.0.0.1:{} does not speak TLS")),
        (good, known, trust, ("certificate", "127.0.0.1:{} asks for a client certificate")),
        (good, known, _with(trust, stranger.issue("client")), ("certificate", "does not trust who issued")),
        (
            good,
            known,
            _with(trust, known.issue("late", expired=True)),
            ("certificate", "client certificate has expired"),
        ),
        (good, known, _with(trust, known.issue("client")), None),
    ]
    for own, clients, files, expected in cases:
        with server(own, clients) as port:
            fault = why_not_trusted("127.0.0.1", port, files)
            if expected is None:
                assert fault is None
            else:
                assert fault is not None
                assert (fault.about, expected[1].format(port) in fault.message) == (expected[0], True), fault
            assert speaks_tls("127.0.0.1", port) is (own is not None)


def _with(trust: TlsFiles, own: Certificate) -> TlsFiles:
    return TlsFiles(trust.authority, str(own.chain), str(own.key))


def test_a_server_that_is_away_is_no_question_of_trust() -> None:
    """A closed port and an unknown host are about the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for host, words in (("127.0.0.1", "does not answer: connection refused"), ("nowhere.invalid", "is not known")):
        fault = why_not_trusted(host, port, TlsFiles())
        assert fault is not None
        assert (fault.about, words in fault.message) == ("address", True)


@pytest.mark.parametrize("name", ["authority", "certificate"])
def test_files_that_cannot_be_used_are_named_first(tmp_path: Path, name: str) -> None:
    """Nothing is dialled with them."""
    (tmp_path / "empty.pem").write_text("")
    fault = why_not_trusted("nowhere.invalid", 1, TlsFiles(**{name: str(tmp_path / "empty.pem")}))
    assert fault is not None
    assert (fault.about, "empty.pem" in fault.message) == (name, True)
