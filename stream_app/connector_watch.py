"""
Failed connectors are started again: Kafka Connect never does that by itself.

Each source is watched by the worker that owns it. A failure that comes back is tried again and again, with longer
pauses, because most of them are outages of others; what the failure was is in the log and in `sources status`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from rowcast.connect import ConnectClient
from rowcast.errors import RowcastError
from rowcast.sources.connector import connector_name
from stream_app.metrics import Metrics

log = logging.getLogger("rowcast.worker")
_INTERVAL_S = 2.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 4.0, 15.0
_TRACE_MAX = 1_000


class ConnectorWatch:
    """Looks after the connectors of *sources* in a thread of its own, from `start` to `stop`."""

    def __init__(self, connect_url: str, sources: Callable[[], Iterable[str]], metrics: Metrics) -> None:
        self._connect_url = connect_url
        self._sources = sources
        self._metrics = metrics
        self._stopping = threading.Event()
        # By source: when the next restart may be asked for, and how long the pause after it is.
        self._pauses: dict[str, tuple[float, float]] = {}
        self._reachable = True
        self._thread = threading.Thread(target=self._run, name="connectors", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question that is under way is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        with ConnectClient(self._connect_url) as connect:
            while not self._stopping.wait(_INTERVAL_S):
                for source in sorted(self._sources()):
                    try:
                        self._check(connect, source)
                        self._reached(True)
                    except RowcastError as error:
                        self._reached(False, error)

    def _check(self, connect: ConnectClient, source: str) -> None:
        name = connector_name(source)
        status = connect.status(name)
        failed = status is not None and status.failed
        self._metrics.connector_failed.labels(source).set(int(failed))
        due_s, pause_s = self._pauses.get(source, (0.0, _FIRST_PAUSE_S))
        if status is None or not failed:
            # A connector that has been fine for as long as the last pause begins with short pauses again.
            if source in self._pauses and time.monotonic() > due_s + pause_s:
                del self._pauses[source]
            return
        if time.monotonic() < due_s:
            return
        log.warning("source %s: connector %s failed and is restarted: %s", source, name, status.trace[:_TRACE_MAX])
        connect.restart_failed(name)
        self._metrics.connector_restarts.labels(source).inc()
        self._pauses[source] = (time.monotonic() + pause_s, min(2 * pause_s, _LAST_PAUSE_S))

    def _reached(self, reachable: bool, error: Exception | None = None) -> None:
        self._metrics.connect_reachable.set(int(reachable))
        if reachable != self._reachable:
            log.warning("Kafka Connect answers again" if reachable else f"connectors cannot be looked after: {error}")
        self._reachable = reachable
