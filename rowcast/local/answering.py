"""Whether the server of this container serves clients; asked often, so each question imports what it needs alone."""

from __future__ import annotations

import http.client
from pathlib import Path

from rowcast.local.site import CONTAINER_FOLDER, CONTAINER_PORTS, container_site

_TIMEOUT_S = 5.0


def answers(name: str, folder: Path = CONTAINER_FOLDER) -> bool:
    """Whether the part *name* serves clients; ``worker``: whether it comes round and none of its sources is stopped."""
    if name == "postgres":
        from rowcast.local.postgres import PostgresPart
        from rowcast.local.state import StackState

        return PostgresPart(StackState(folder), container_site({})).answers()
    if name == "kafka":
        from rowcast.local.kafka import broker_answers

        return broker_answers(f"127.0.0.1:{CONTAINER_PORTS[name]}", timeout_s=_TIMEOUT_S)
    return _is_healthy(CONTAINER_PORTS[name])


def _is_healthy(port: int) -> bool:
    """What the page ``/health`` on *port* says; Connect and workers have one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
