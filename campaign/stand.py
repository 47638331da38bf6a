"""
The standing stack of a campaign: the embedded one, and a second PostgreSQL for what is not the source's.

With a server of its own for control and consumer databases, the source's server can die without theirs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import psutil

from campaign.errors import NoVerdictError
from campaign.process import thaw
from examples.main_job.progress import tell
from rowcast.local import connect
from rowcast.local.processes import RunningProcess
from rowcast.local.stack import Stack
from rowcast.local.state import StackState
from rowcast.settings import Settings, load_settings

SOURCE, CONTROL, KAFKA, CONNECT = "source", "control", "kafka", "connect"
_DEAD_TIMEOUT_S = 20.0
_BACK_S = 60.0
_MOMENT_S = 6.0
_LOOK_S = 0.002
_PAUSE_S = 0.02
_SUPPORT = "exactly.once.source.support"
_FLUSH = "offset.flush.interval.ms"
_SHIPPED = {name: connect.SETTINGS[name] for name in (_SUPPORT, _FLUSH)}
# Kafka's own default is a minute, and the longer, the more is sent again. But for the first stored place a round waits.
_AT_LEAST_ONCE: dict[str, object] = {_SUPPORT: "disabled", _FLUSH: 4000}


class Stand:
    """The stack whose project folder is *folder*; `up` starts what does not run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._main = Stack(self.folder)
        self._other = Stack(self.folder / "other")
        self._delivery: bool | None = None
        self._starting = threading.Lock()
        self._dead = {part: threading.Lock() for part in (SOURCE, CONTROL, KAFKA, CONNECT)}
        others = self._other.status()
        self._ran = self._main.meant_to_run(), any(each.alive for each in others)

    def up(self) -> None:
        """Start every part that does not run, and wait until all answer."""
        self._main.up(progress=tell if not self._main.meant_to_run() else lambda _: None)
        self._other.project.mkdir(exist_ok=True)
        state = StackState(self._other.folder)
        state.create()
        self._other.start("postgres")

    @property
    def settings(self) -> Settings:
        """How the main stack is reached."""
        return load_settings(self.folder, {})

    def leave(self, *, keep: bool) -> None:
        """What is to run on is as it was found: this stops what it had started, with *keep* nothing."""
        if self._delivery is False:
            self.deliver_exactly_once(wanted=True)
        if keep:
            return
        if not self._ran[1]:
            self._other.down()
        if not self._ran[0]:
            self._main.down()

    def wipe(self) -> None:
        """Stop everything, and delete all that it keeps."""
        self._other.down(wipe=True)
        self._main.down(wipe=True)

    def database_url(self, part: str, name: str) -> str:
        """The url of database *name* on the server of *part*: the source's, or the one for control and consumer."""
        if part == SOURCE:
            return self.settings.database(name).url
        state = StackState(self._other.folder)
        return f"postgresql://postgres:{state.password}@127.0.0.1:{state.get('port.postgres')}/{name}"

    def deliver_exactly_once(self, *, wanted: bool) -> None:
        """Let Connect write in Kafka transactions, as shipped, or at least once, as somebody else's may."""
        if self._delivery is None:
            text = (self._main.folder / "connect.properties").read_text()
            self._delivery = f"{_SUPPORT}=disabled" not in text
        connect.SETTINGS |= _SHIPPED if wanted else _AT_LEAST_ONCE
        if wanted != self._delivery:
            tell(f"Connect is restarted with its exactly-once source {'on' if wanted else 'off'}")
            self._main.restart("connect")
            self._delivery = wanted

    def pid(self, part: str) -> int:
        """
        The process of *part*; one that another fault has killed is waited for.

        Raises:
            NoVerdictError: it does not run, although nobody keeps it from that.

        """
        deadline_s = time.monotonic() + _BACK_S
        while True:
            process = self._process(part)
            if process is not None and process.alive():
                return process.pid
            if time.monotonic() > deadline_s:
                raise NoVerdictError(f"{part} does not run")
            time.sleep(_PAUSE_S)

    def freeze(self, part: str) -> int:
        """SIGSTOP to *part*; its process."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGSTOP)
        return pid

    def kill(self, part: str, moment: Callable[[], bool] | None = None) -> Callable[[], None]:
        """
        SIGKILL to *part*; what starts it again, until which nobody else kills it.

        It is frozen at the *moment*, if that comes within seconds, and dies if it still is the moment then.
        """
        stack, name = self._of(part)
        dead = self._dead[part]
        dead.acquire()
        try:
            if moment is not None:
                self._freeze_at(part, moment)
            # Connect answers when Kafka does, and who starts one waits for the other: neither would come back.
            with self._starting if part in (KAFKA, CONNECT) else nullcontext():
                pid = self.pid(part)
                os.kill(pid, signal.SIGKILL)
            deadline_s = time.monotonic() + _DEAD_TIMEOUT_S
            # One that is dead and not yet forgotten by the system keeps PostgreSQL's lock file.
            while self._runs(part) or psutil.pid_exists(pid):
                if time.monotonic() > deadline_s:
                    raise NoVerdictError(f"{part} does not die")
                time.sleep(_PAUSE_S)
        except BaseException:
            dead.release()
            raise

        def start() -> None:
            try:
                if part == CONNECT:
                    self._start_connect()
                    return
                with self._starting if part == KAFKA else nullcontext():
                    stack.start(name)
            finally:
                dead.release()

        return start

    def _freeze_at(self, part: str, moment: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + _MOMENT_S
        while time.monotonic() < deadline_s:
            if moment():
                pid, still = self.freeze(part), False
                try:
                    still = moment()
                finally:
                    if not still:
                        thaw(pid)
                if still:
                    return
            time.sleep(_LOOK_S)

    def _start_connect(self) -> None:
        deadline_s = time.monotonic() + _BACK_S
        while True:
            with self._starting:
                if self._runs(KAFKA):
                    self._main.start(CONNECT)
                    return
            if time.monotonic() > deadline_s:
                raise NoVerdictError("kafka is dead for too long")
            time.sleep(_PAUSE_S)

    def _runs(self, part: str) -> bool:
        process = self._process(part)
        return process is not None and process.alive()

    def _process(self, part: str) -> RunningProcess | None:
        stack, name = self._of(part)
        return StackState(stack.folder).process(name)

    def _of(self, part: str) -> tuple[Stack, str]:
        if part in (SOURCE, CONTROL):
            return (self._main if part == SOURCE else self._other), "postgres"
        return self._main, part
