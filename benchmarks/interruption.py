"""What a Ctrl-C, or whoever ends a program, does to one that has started a stack."""

from __future__ import annotations

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interruptible() -> None:
    """Let SIGTERM and SIGHUP interrupt what is under way as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def finish_undisturbed() -> None:
    """Nothing stays running because somebody pressed Ctrl-C twice."""
    for number in _SIGNALS:
        # Not SIG_IGN: a server that is started meanwhile would inherit it, and could not be asked to end.
        signal.signal(number, _unheard)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _unheard(number: int, _: object) -> None:
    """Go on."""
