"""
The owner of one source: a thread that opens session after session until the source is lost or given up.

Errors are sorted here and nowhere else: a transient fault ends the session and a new claim follows; a lost
claim drops the source; a stop is written down and waited out; an unexpected error is tried three times at
one offset, then stops the source. The process and its other sources go on.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import closing

import psycopg

from rowcast.brokers import Brokers
from rowcast.control.database import connect
from rowcast.control.remedies import recovery_command
from rowcast.database import unavailable_when_broken
from rowcast.deprecation import Deprecation
from rowcast.errors import BrokerUnavailableError, OwnershipLostError, StopError, TransientError
from rowcast.hash_key import HashKey
from rowcast.kafka_fault import why_unreachable
from stream_app.contract import compile_validators
from stream_app.core.mapping import compile_mapping
from stream_app.lease import MAX_TRIES, application, claim, count_try, read_definition, write_stop
from stream_app.metrics import SourceMetrics
from stream_app.opening import Claim
from stream_app.outage import OutageLog
from stream_app.position import read_position, read_revision
from stream_app.session import Session
from stream_app.statements import BULK_METHODS
from stream_app.store import Ownership
from stream_app.transport import read_time_ms
from stream_app.window import WindowWatch

log = logging.getLogger("rowcast.worker")
_BACKOFF_S_MAX = 5.0
_DETAIL_MAX = 4_000
_SETTINGS = " ".join(
    f"-c {setting}"
    for setting in (
        # A generic plan made while the tables were empty would be kept until their first ANALYZE: 2,000 look-ups
        # took 2.2 s with it and 0.03 s without.
        "plan_cache_mode=force_custom_plan",
        # Look-ups by key go through the index, whatever the statistics say of tables that grow by thousands a second.
        *(f"{method}=off" for method in BULK_METHODS),
        # A server that crashes may forget the last commits, never a part of one: the domain topics then hold what
        # the next claim reads back as their tail, as after a crash between publish and commit.
        "synchronous_commit=off",
    )
)


# Brokers, control database, and the key of hashed fields where there is one.
Endpoints = tuple[Brokers, str, HashKey | None]


class Owner:
    """Works on *source* in a thread of its own, from `start` to `stop`."""

    def __init__(self, endpoints: Endpoints, source: str, holder: str, metrics: SourceMetrics) -> None:
        self._brokers, self._control_url, self._hash_key = endpoints
        self.source = source
        self._holder = holder
        self._metrics = metrics
        self._stopping = threading.Event()
        self._reopen = threading.Event()
        self._paused = False
        self._refusal: StopError | None = None
        self.revision: str | None = None
        self.ending: Mapping[str, Deprecation] = {}
        self._window: WindowWatch | None = None
        self._offset = -1
        self._session: Session | None = None
        self._outage = OutageLog(f"source {source}", explain=self._explain)
        self._thread = threading.Thread(target=self._run, name=f"owner-{source}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._metrics.owned(True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; `alive` tells when it has come."""
        self._stopping.set()

    def reopen(self) -> None:
        """Another definition was applied, or the source was resumed: go on with a new claim."""
        self._reopen.set()

    def refuse(self, fault: StopError) -> None:
        """Stop the source with *fault* when what the change log has is done; from any thread."""
        if not self._paused:
            self._refusal = fault

    @property
    def alive(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    @property
    def paused(self) -> bool:
        """Whether the source is stopped and waits for `resume`."""
        return self._paused

    @property
    def halted(self) -> list[str]:
        """The types that are halted while the others of the source go on."""
        session = self._session
        return [] if session is None else sorted(session.halted)

    @property
    def silent_s(self) -> float:
        """For how long the change log has had nothing new although heartbeats are to be expected."""
        session = self._session
        return 0.0 if session is None else session.silent_s

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        backoff_s = 0.1
        try:
            while not self._stopping.is_set():
                started_s = time.monotonic()
                try:
                    if not self._own_once():
                        return
                except TransientError as error:
                    self._metrics.fault("transient")
                    self._outage.away(error)
                except psycopg.errors.UndefinedTable as error:
                    # The control database was made anew; the source is claimed again when it is applied.
                    log.warning(
                        "source %s is not in the control database any more: %s", self.source, error.diag.message_primary
                    )
                    return
                backoff_s = 0.1 if time.monotonic() - started_s > _BACKOFF_S_MAX else min(backoff_s * 2, _BACKOFF_S_MAX)
                self._stopping.wait(backoff_s)
        finally:
            self._metrics.owned(False)
            self._metrics.halted(())

    def _explain(self, error: object) -> str | None:
        return why_unreachable(self._brokers) if isinstance(error, BrokerUnavailableError) else None

    def _own_once(self) -> bool:
        """One claim and its session. Returns False when the source belongs to somebody else."""
        connection = connect(
            self._control_url, application=application(self.source), autocommit=True, settings=_SETTINGS
        )
        try:
            with unavailable_when_broken(connection):
                claimed = claim(connection, self.source, self._holder)
            if claimed is None:
                return False
            self._reopen.clear()
            self._refusal = None
            ownership, stopped_code = claimed
            if stopped_code is not None:
                # It stays stopped through restarts and takeovers, until somebody resumes it.
                with unavailable_when_broken(connection):
                    self._watch_window(connection)
                self._wait_resumed(stopped_code)
                return True
            self._show_stopped(None)
            return self._guarded(connection, ownership)
        finally:
            connection.close()

    def _guarded(self, connection: psycopg.Connection, ownership: Ownership) -> bool:
        try:
            self._work(connection, ownership)
        except OwnershipLostError as error:
            # Somebody else may own it by now, or a commit of ours had an unknown outcome: the next claim tells.
            self._metrics.fault("lost")
            log.warning("%s", error)
        except StopError as error:
            self._pause(ownership, (error.code, error.message, error.remedy))
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001 - the one supervised boundary: counted, then the source stops
            self._unexpected(ownership, error)
        return True

    def _work(self, connection: psycopg.Connection, ownership: Ownership) -> None:
        reading = connect(
            self._control_url, application=f"rowcast worker {self.source} reads", autocommit=True, settings=_SETTINGS
        )
        with closing(reading):
            with unavailable_when_broken(connection), unavailable_when_broken(reading):
                session = self._open_session(connection, reading, ownership)
            self._session = session
            try:
                # Sorted before the session closes the connections, which tells whether the server has ended them.
                with unavailable_when_broken(connection), unavailable_when_broken(reading):
                    while not self._ending():
                        self._offset = session.next_offset
                        session.step(self._ending)
                        if self._refusal is not None and session.caught_up:
                            raise self._refusal
            finally:
                self._session = None
                session.close()

    def _open_session(
        self, connection: psycopg.Connection, reading: psycopg.Connection, ownership: Ownership
    ) -> Session:
        definition, self.revision = read_definition(connection, self.source)
        self.ending = definition.deprecations
        mapping = compile_mapping(definition, compile_validators(definition), self._hash_key)
        claim = Claim(
            ownership=ownership,
            mapping=mapping,
            revision=self.revision,
            connection=connection,
            reading=reading,
            brokers=self._brokers,
        )
        session = Session(claim, self._metrics)
        log.info("source %s: owned as epoch %d, offset %d", self.source, ownership.epoch, session.next_offset)
        self._outage.back()
        return session

    def _watch_window(self, connection: psycopg.Connection) -> None:
        """Know how old the next change is, although no session reads it."""
        definition, _ = read_definition(connection, self.source)
        self._window = WindowWatch(self.source, definition.change_log_window_ms, self._metrics)
        position = read_position(connection, self.source)
        if position is None:
            return
        try:
            self._window.note(read_time_ms(self._brokers, self.source, definition.change_log, position.next_offset))
        except StopError as error:
            # Resuming will stop it with that; until then the code that it stopped with stands.
            log.warning("source %s: %s: %s", self.source, error.code, error)

    def _ending(self) -> bool:
        return self._stopping.is_set() or self._reopen.is_set()

    def _unexpected(self, ownership: Ownership, error: Exception) -> None:
        self._metrics.fault("unexpected")
        detail = "".join(traceback.format_exception(error))[-_DETAIL_MAX:]
        with (
            connect(self._control_url, application="rowcast worker fault", autocommit=True) as connection,
            unavailable_when_broken(connection),
        ):
            tries = count_try(connection, ownership, self._offset, detail)
        log.error("source %s: unexpected error at offset %d, try %d: %s", self.source, self._offset, tries, detail)
        if tries >= MAX_TRIES:
            self._pause(ownership, ("UNEXPECTED_ERROR", f"offset {self._offset}: {error!r}", ""))

    def _pause(self, ownership: Ownership, fault: tuple[str, str, str]) -> None:
        """Write the stop down, keep the lease, and wait for `resume`."""
        remedy = fault[2] or recovery_command(self.source, fault[0])
        with (
            connect(self._control_url, application="rowcast worker stop", autocommit=True) as connection,
            unavailable_when_broken(connection),
        ):
            if self.revision is not None and read_revision(connection, self.source) != self.revision:
                # Another definition was applied meanwhile; the fault may be that this one is out of date.
                log.warning("source %s: %s under a former definition; claiming it again", self.source, fault[0])
                return
            write_stop(connection, ownership, (fault[0], fault[1], remedy))
            # Health and metrics first: whoever reads the log line finds them true.
            self._show_stopped(fault[0])
            log.error("source %s stopped: %s: %s; remedy: %s", self.source, fault[0], fault[1], remedy)
            self._watch_window(connection)
        self._wait_resumed(fault[0])

    def _wait_resumed(self, code: str) -> None:
        self._show_stopped(code)
        while not self._ending():
            if self._window is not None:
                self._window.check()
            self._reopen.wait(0.5)

    def _show_stopped(self, code: str | None) -> None:
        """In health and metrics."""
        self._metrics.stopped(code)
        self._paused = code is not None
