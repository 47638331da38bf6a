"""
Starting and stopping the parts of a stack.

All parts start at the same time, as each of them waits for the others by itself. A start that fails or is
interrupted is undone: what it started is stopped, what ran before goes on.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from rowcast.local.part import Part, Progress, StackError, failure, silent
from rowcast.local.ports import choose_port, is_free
from rowcast.local.processes import marked, start_detached
from rowcast.local.state import StackState, stack_mark

READY_TIMEOUT_S = 180.0  # ten times what a busy machine of two cores needs
STOP_TIMEOUT_S = 20.0
_PAUSE_S = 0.05
_TRIES = 3
_LOG_LIMIT_BYTES = 20 * 2**20
_STOP_SIGNALS = {"postgres": signal.SIGINT}  # "fast" shutdown; to the others SIGTERM says the same


def runs(state: StackState, part: Part) -> bool:
    """Whether the remembered process of *part* lives."""
    process = state.process(part.name)
    return process is not None and process.alive()


def start_parts(
    state: StackState, parts: Sequence[Part], chosen: Sequence[Part], progress: Progress, then: Callable[[], None]
) -> None:
    """
    Start the *chosen* ones of *parts*, wait until all of *parts* answer, and call *then*.

    A port that somebody else took meanwhile is replaced. Whatever fails, *then* included, everything that was
    started here is stopped again.

    Raises:
        StackError: a part ended or did not answer in time.

    """
    for remaining in reversed(range(_TRIES)):
        chosen = _choose_ports(state, parts, chosen, progress)
        try:
            with _undone_on_failure(state, chosen):
                _start_together(state, parts, chosen, progress)
                then()
        except StackError:
            # Between the choice of a port and its use, another program may have taken it.
            taken = [name for part in chosen for name in part.ports if not is_free(state.get(f"port.{name}"))]
            if not taken or not remaining:
                raise
            progress(f"the port of {' and '.join(taken)} was taken meanwhile, trying others")
        else:
            return


def stop_part(state: StackState, name: str, progress: Progress) -> bool:
    """Stop one part in order, by force after a while; returns whether it ran."""
    process = state.process(name)
    if process is None:
        return False
    ran = process.alive()
    if ran:
        orderly = process.stop(_STOP_SIGNALS.get(name, signal.SIGTERM), timeout_s=STOP_TIMEOUT_S)
        progress(f"{name} stopped" if orderly else f"{name} did not end in {STOP_TIMEOUT_S:.0f} s and was killed")
    state.put_process(name, None)
    return ran


def stop_marked(folder: Path, progress: Progress) -> bool:
    """Stop what carries this stack's mark without being remembered, as after a `kill -9` of `rowcast up`."""
    lost = marked(stack_mark(folder))
    for process in lost:
        process.stop(signal.SIGINT, timeout_s=STOP_TIMEOUT_S)
        progress(f"process {process.pid} of this stack stopped")
    return bool(lost)


def _choose_ports(
    state: StackState, parts: Sequence[Part], chosen: Sequence[Part], progress: Progress
) -> Sequence[Part]:
    """Settle the ports of the *chosen* parts; returns what has to be started."""
    kafka_before = state.get("port.kafka")
    for part in chosen:
        for name in part.ports:
            others = {state.get(f"port.{other}") for one in parts for other in one.ports if other != name}
            state.put(f"port.{name}", choose_port(state.get(f"port.{name}"), frozenset(others - {None})))
    moved = kafka_before is not None and kafka_before != state.get("port.kafka")
    followers = [part for part in parts if moved and part.name == "connect" and part not in chosen]
    for part in followers:
        progress("kafka has to change its port, connect follows")
        stop_part(state, part.name, progress)
    return [*chosen, *followers]


def _start_together(state: StackState, parts: Sequence[Part], chosen: Sequence[Part], progress: Progress) -> None:
    cancelled = threading.Event()
    with ThreadPoolExecutor(len(parts), thread_name_prefix="start") as pool:
        running = [pool.submit(_start, state, part, progress, cancelled) for part in chosen]
        running += [pool.submit(_await_answer, state, part, cancelled) for part in parts if part not in chosen]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            with _undisturbed():
                cancelled.set()  # when one failed, or on Ctrl-C, the others give up at once
                wait(running)


def _start(state: StackState, part: Part, progress: Progress, cancelled: threading.Event) -> None:
    started_s = time.monotonic()
    _limit_log(part.log)
    part.prepare(cancelled)
    if cancelled.is_set():
        return
    process = start_detached(part.command())
    try:
        state.put_process(part.name, process)
    except OSError:
        process.stop(signal.SIGKILL, timeout_s=STOP_TIMEOUT_S)  # what is not written down must not run
        raise
    _await_answer(state, part, cancelled)
    if not cancelled.is_set():
        progress(f"{part.name} ready after {time.monotonic() - started_s:.1f} s")


def _await_answer(state: StackState, part: Part, cancelled: threading.Event) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not cancelled.is_set():
        if not runs(state, part):
            raise failure(part, "ended while starting")
        if part.answers():
            return
        if time.monotonic() > deadline_s:
            raise failure(part, f"did not answer within {READY_TIMEOUT_S:.0f} s")
        cancelled.wait(_PAUSE_S)


def _limit_log(log: Path) -> None:
    """Keep one former log when it has grown large; nothing writes to it while the part is down."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))


@contextmanager
def _undone_on_failure(state: StackState, chosen: Sequence[Part]) -> Iterator[None]:
    """Stop the *chosen* parts when anything goes wrong inside, Ctrl-C included."""
    try:
        yield
    except BaseException:
        with _undisturbed():
            for part in sorted(chosen, key=lambda part: part.name):  # connect, kafka, postgres
                stop_part(state, part.name, silent)
        raise


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore a second Ctrl-C; only the main thread hears signals, so elsewhere there is nothing to do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
