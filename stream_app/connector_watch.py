"""
Connectors that failed or hang are started again: Kafka Connect never does that by itself.

Each source is watched by the worker that owns it. A failure that comes back is tried again and again, with longer
pauses, because most of them are outages of others; what the failure was is in the log and in `sources status`. One that
says it runs and sends no heartbeat hangs: Debezium waits for ever for a database that went away without a word.

A failure that no restart mends, because changes are lost, stops the source.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from rowcast.connect import ConnectClient, ConnectorStatus
from rowcast.connect_address import ConnectAddress
from rowcast.errors import RowcastError, StopError
from rowcast.sources.connector import connector_name
from stream_app.metrics import Metrics
from stream_app.slot_watch import lost_slot

log = logging.getLogger("rowcast.worker")
_INTERVAL_S = 2.0
_ANSWER_S = 10.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 4.0, 15.0
_TRACE_MAX = 1_000
# There is a heartbeat each second. A server that has much to read before the next one needs longer, so patience grows.
# A task whose producer failed says that it runs until its open transaction has timed out: it may be restarted before
# it says FAILED, and why it failed is then in the log of Kafka Connect alone.
_PATIENCE_S, _PATIENCE_S_MAX = 15.0, 600.0
# As Debezium says it: the slot is not there, or begins behind what was read last.
_NOT_THERE = "but this is no longer available on the server"


class ConnectorWatch:
    """
    Looks after the connectors of some sources in a thread of its own, from `start` to `stop`.

    *silences* names the sources, each with the seconds for which it was silent although it should not be. *fault* knows
    of one of them why it stays so, *stop* stops it.
    """

    def __init__(
        self,
        address: ConnectAddress,
        silences: Callable[[], Mapping[str, float]],
        stop: Callable[[str, StopError], None],
        fault: Callable[[str, float], StopError | None],
        metrics: Metrics,
    ) -> None:
        self._address = address
        self._silences = silences
        self._stop_source = stop
        self._fault = fault
        self._metrics = metrics
        self._stopping = threading.Event()
        # By source: when the next restart may be asked for, and how long the pause after it is.
        self._pauses: dict[str, tuple[float, float]] = {}
        # By source: since when its connector says that it runs, and how long it may run in silence.
        self._running_since_s: dict[str, float] = {}
        self._patience_s: dict[str, float] = {}
        self._reachable = True
        self._thread = threading.Thread(target=self._run, name="connectors", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question that is under way is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        with ConnectClient(self._address, _ANSWER_S) as connect:
            while not self._stopping.wait(_INTERVAL_S):
                for source, silent_s in sorted(self._silences().items()):
                    try:
                        status = connect.status(connector_name(source))
                        self._stop_lost(source, silent_s if status is not None else 0.0)
                        self._restart_failed(connect, source, status)
                        self._restart_silent(connect, source, silent_s if status and status.running else None)
                        self._reached(True)
                    except RowcastError as error:
                        self._running_since_s.pop(source, None)
                        self._reached(False, error)

    def _stop_lost(self, source: str, silent_s: float) -> None:
        fault = self._fault(source, silent_s)
        if fault is not None:
            self._stop_source(source, fault)

    def _restart_failed(self, connect: ConnectClient, source: str, status: ConnectorStatus | None) -> None:
        name = connector_name(source)
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
        if due_s and _NOT_THERE in status.trace:
            # Again after a restart. It is restarted all the same, for whoever mends it without a word to the worker.
            self._stop_source(source, lost_slot(source, "was dropped, or made anew"))
        log.warning("source %s: connector %s failed and is restarted: %s", source, name, status.trace[:_TRACE_MAX])
        connect.restart_failed(name)
        self._metrics.connector_restarts.labels(source).inc()
        self._pauses[source] = (time.monotonic() + pause_s, min(2 * pause_s, _LAST_PAUSE_S))

    def _restart_silent(self, connect: ConnectClient, source: str, silent_s: float | None) -> None:
        """Restart it when it runs, and has done nothing else for too long; None: it does not run."""
        now_s = time.monotonic()
        if silent_s is None:
            self._running_since_s.pop(source, None)
            return
        if silent_s < _PATIENCE_S:
            self._patience_s.pop(source, None)
        patience_s = self._patience_s.get(source, _PATIENCE_S)
        if min(silent_s, now_s - self._running_since_s.setdefault(source, now_s)) < patience_s:
            return
        name = connector_name(source)
        log.warning(
            "source %s: connector %s says it runs, was silent for %.0f s and is restarted;"
            " the log of Kafka Connect may tell why",
            source,
            name,
            silent_s,
        )
        connect.restart(name)
        self._metrics.connector_restarts.labels(source).inc()
        self._running_since_s[source] = now_s
        self._patience_s[source] = min(3 * patience_s, _PATIENCE_S_MAX)

    def _reached(self, reachable: bool, error: Exception | None = None) -> None:
        self._metrics.connect_reachable.set(int(reachable))
        if reachable != self._reachable:
            log.warning("Kafka Connect answers again" if reachable else f"connectors cannot be looked after: {error}")
        self._reachable = reachable
