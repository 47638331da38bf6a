"""What the client of Kafka Connect makes of answers that a real Connect gives only now and then."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from rowcast.connect import ConnectClient
from rowcast.errors import ConnectUnavailableError

Answer = tuple[int, dict[str, str]]
# As Kafka Connect 4.3.1 words it.
REBALANCE = {"message": "Request cannot be completed because a rebalance is expected"}


@contextmanager
def connect_that_says(*answers: Answer) -> Iterator[ConnectClient]:
    """A client of a server on loopback that gives *answers*, one after the other."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = left.pop(0)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with ConnectClient(f"http://127.0.0.1:{server.server_port}") as client:
                yield client
        finally:
            server.shutdown()
    assert left == []


@pytest.mark.parametrize("code", [409, 500])
def test_a_request_during_a_rebalance_is_made_again(code: int) -> None:
    """Connect did nothing; a moment later it does."""
    with connect_that_says((code, REBALANCE), (code, REBALANCE), (200, {"a": "b"})) as client:
        assert client.configuration("shop") == {"a": "b"}


def test_any_other_unexpected_error_is_told() -> None:
    """Once, with what Connect said."""
    with (
        connect_that_says((500, {"message": "out of memory"})) as client,
        pytest.raises(ConnectUnavailableError, match="500 out of memory"),
    ):
        client.configuration("shop")
