"""
The loopback port of `/health` and `/metrics`.

It is taken before Faust starts, so that a port in use is one line and not a crash, and two workers that start at
once never choose the same one.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from aiohttp.web import SockSite
from faust.web.drivers.aiohttp import Web

from rowcast.errors import ConfigurationError

HOST = "127.0.0.1"
DEFAULT_PORT = 6066
_BACKLOG = 128


def open_listener(environ: Mapping[str, str]) -> socket.socket:
    """
    A listening socket: on ``ROWCAST_WEB_PORT`` when it is set, else on 6066 or, when that is taken, any free port.

    Raises:
        ConfigurationError: the port that was asked for is taken, or is none.

    """
    asked = environ.get("ROWCAST_WEB_PORT")
    if asked is None:
        try:
            return _listen(DEFAULT_PORT)
        except OSError:
            return _listen(0)
    try:
        return _listen(int(asked))
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigurationError(
            f"port {asked} cannot be listened on: {getattr(error, 'strerror', None) or error}",
            where="--web-port",
            fix="name another one, 0 for any free one, or leave --web-port and ROWCAST_WEB_PORT out",
        ) from error


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A port whose connections linger after a restart is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def port_of(listener: socket.socket) -> int:
    """The port that *listener* listens on."""
    return int(listener.getsockname()[1])


class ListeningWeb(Web):
    """Faust's web server on a socket that listens already."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(app)
        self._listener = listener

    def _create_site(self) -> SockSite:
        return SockSite(self._runner, self._listener)
