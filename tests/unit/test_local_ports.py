"""Ports: free, remembered, never two parts on one."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from rowcast.local.ports import choose_port, is_free


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server.getsockname()[1]


def test_remembered_port_is_kept() -> None:
    """A port that is free is chosen again, so that clients find the server where it was."""
    port = choose_port(None)

    assert choose_port(port) == port


def test_taken_port_is_replaced(busy_port: int) -> None:
    """A remembered port on which somebody else listens gives way to a free one."""
    assert not is_free(busy_port)
    assert is_free(choose_port(busy_port))


def test_port_of_another_part_is_avoided() -> None:
    """Two parts of one stack never get the same port, even while both are down."""
    port = choose_port(None)

    assert choose_port(port, frozenset({port})) != port


def test_ports_lie_outside_the_range_of_outgoing_connections() -> None:
    """A client that dials a server which is down cannot be given the server's port as its own."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as opened:  # noqa: PTH123 - not a file on disk
        first, last = map(int, opened.read().split())

    assert not any(first <= choose_port(None) <= last for _ in range(20))
