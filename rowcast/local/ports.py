"""
Ports of the embedded stack: free ones, the same again after a restart.

They lie outside the range from which the kernel takes the ports of outgoing connections. Inside it, a client
that keeps dialling a server which is down can be given that very port as its own, connect to itself and so
keep the server from coming back.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOW, _HIGH = 15_000, 65_000
_OUTGOING_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback *port* now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections that linger after a close do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_port(remembered: int | None, taken: frozenset[int] = frozenset()) -> int:
    """The *remembered* port when it is free, else a new free one; never one of *taken*."""
    if remembered is not None and remembered not in taken and is_free(remembered):
        return remembered
    # Not secret; several stacks that start at once should merely not try the same ports in the same order.
    chance = random.SystemRandom()
    first, last = _outgoing_range()
    for _ in range(_TRIES):
        port = chance.randrange(_LOW, _HIGH)
        if not first <= port <= last and port not in taken and is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _outgoing_range() -> tuple[int, int]:
    try:
        first, last = _OUTGOING_RANGE.read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 32_768, 60_999  # the default of Linux
