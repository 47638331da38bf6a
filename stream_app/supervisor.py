"""
All sources of one worker: claims what nobody owns, keeps what it has, lets go of what it lost.

Any number of workers may run. A worker that owns less claims sooner, so that sources spread; a standby waits
for as long as it takes, without Kafka's consumer group, which would take it for dead.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Mapping

import psycopg

from rowcast.control.database import connect, migrate
from rowcast.database import AWAY
from rowcast.deprecation import Deprecation
from rowcast.errors import DatabaseUnavailableError, StopError
from stream_app.lease import RENEW_S, claimable, held, release, renew
from stream_app.metrics import Metrics, SourceMetrics
from stream_app.outage import OutageLog
from stream_app.owner import Endpoints, Owner
from stream_app.store import LEASE_S

log = logging.getLogger("rowcast.worker")
TICK_S = 1.0
STOP_TIMEOUT_S = 25.0
_HEAD_START_TICKS_MAX = 6
_PARTS = 4


def due(waited_s: Mapping[str, float], owned: int) -> list[str]:
    """
    Which of the free sources, seen for *waited_s*, a worker that owns *owned* others claims at a tick.

    The fewer it owns the sooner, and never more than a part of them at once, so that sources spread over the workers.
    But however many there are, those of a worker that died are all claimed within seconds.
    """
    claimed: list[str] = []
    for source, since_s in waited_s.items():
        # Every source already owned is a second's head start for the other workers, up to a limit.
        ahead = min(owned + len(claimed), _HEAD_START_TICKS_MAX)
        if since_s >= ahead * TICK_S and len(claimed) < math.ceil(len(waited_s) / _PARTS):
            claimed.append(source)
    return claimed


class Supervisor:
    """The owners of one worker process. `tick` is called once a second, from one thread."""

    def __init__(self, endpoints: Endpoints, metrics: Metrics) -> None:
        self._endpoints, self._control_url = endpoints, endpoints[1]
        self._metrics = metrics
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.owners: dict[str, Owner] = {}
        self._connection: psycopg.Connection | None = None
        self._renewed_s = 0.0
        self._seen_s: dict[str, float] = {}
        self._outage = OutageLog("control database")
        self._idle: str | None = None
        self.ticked_s = time.monotonic()

    def tick(self) -> None:
        """Renew, drop and claim. A control database that is away is waited for."""
        try:
            connection = self._connected()
            self._renew(connection)
            self._claim(connection)
            self._tell_idle(connection)
            self._outage.back()
        except (*AWAY, DatabaseUnavailableError) as error:
            self._outage.away(error)
            self._disconnect()
        self.ticked_s = time.monotonic()

    def silences(self) -> dict[str, float]:
        """The owned sources, each with the seconds for which it was silent; from any thread."""
        return {source: owner.silent_s for source, owner in list(self.owners.items())}

    def stop_source(self, source: str, fault: StopError) -> None:
        """Stop an owned source with *fault*; from any thread."""
        owner = self.owners.get(source)
        if owner is not None:
            owner.refuse(fault)

    def ending(self) -> dict[str, Mapping[str, Deprecation]]:
        """The owned sources, each with its topics that are deprecated; from any thread."""
        return {source: owner.ending for source, owner in list(self.owners.items())}

    def stop(self) -> None:
        """End all owners in an orderly way and release their leases."""
        for owner in self.owners.values():
            owner.stop()
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        for owner in self.owners.values():
            owner.join(max(0.0, deadline_s - time.monotonic()))
        if self.owners:
            self._release()
        self._disconnect()

    def _release(self) -> None:
        try:
            connection = self._connected()
            for source, owner in self.owners.items():
                if not owner.alive:
                    release(connection, source, self.holder)
        except (*AWAY, DatabaseUnavailableError) as error:
            log.warning("leases run out by themselves in %d s: %s", LEASE_S, " ".join(str(error).split()))

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._control_url, application="rowcast worker leases", autocommit=True)
            migrate(self._connection)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _renew(self, connection: psycopg.Connection) -> None:
        for source in [source for source, owner in self.owners.items() if not owner.alive]:
            del self.owners[source]
        if time.monotonic() - self._renewed_s < RENEW_S:
            return
        for source, owner in self.owners.items():
            kept = renew(connection, source, self.holder)
            if kept is None:
                if not held(connection, source, self.holder):
                    owner.stop()
                continue
            status, revision = kept
            applied = owner.revision not in (None, revision)
            if applied or (owner.paused and status == "running"):
                owner.reopen()
        self._renewed_s = time.monotonic()

    def _claim(self, connection: psycopg.Connection) -> None:
        free = [source for source in claimable(connection, self.holder) if source not in self.owners]
        self._seen_s = {source: self._seen_s.get(source, time.monotonic()) for source in free}
        now_s = time.monotonic()
        for source in due({source: now_s - self._seen_s[source] for source in free}, len(self.owners)):
            owner = Owner(self._endpoints, source, self.holder, SourceMetrics(self._metrics, source))
            self.owners[source] = owner
            owner.start()

    def _tell_idle(self, connection: psycopg.Connection) -> None:
        """Say once why there is nothing to do."""
        idle = None
        if not self.owners and not self._seen_s:
            applied = connection.execute("SELECT 1 FROM rowcast.source WHERE NOT removed LIMIT 1").fetchone()
            idle = (
                "every source is owned by another worker; standing by" if applied else "no source is applied; waiting"
            )
            if idle != self._idle:
                log.info("%s", idle)
        self._idle = idle
