"""What becomes of signals while benchmark and campaign end."""

from __future__ import annotations

import subprocess
import sys

from stack_fixture import REPOSITORY

_CHILD = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
_PARENT = f"""
import os, signal, subprocess, sys
from benchmarks.interruption import finish_undisturbed, interruptible
interruptible()
finish_undisturbed()
os.kill(os.getpid(), signal.SIGTERM)
subprocess.run([sys.executable, "-c", {_CHILD!r}], check=True)
"""


def test_what_is_started_while_a_program_ends_can_be_asked_to_end() -> None:
    """The program itself goes on to its end."""
    done = subprocess.run(
        [sys.executable, "-c", _PARENT], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
