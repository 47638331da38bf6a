"""
The programs that a stack is made of, PostgreSQL and Java, and what they say about themselves.

A program counts as usable when it runs here, for the user who will run it, and names a version that is new
enough. Nothing is concluded from the names of folders.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rowcast.local.processes import Account, passed_environment

BUNDLED = "bundled"
SYSTEM = "system"
_TIMEOUT_S = 30.0


class UnusableProgramError(Exception):
    """A program is missing, too old or broken; the message says which of them, without the folder."""


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A kind of program: *names* are those that we start, *oldest* the first major version that is good enough.

    *question* makes each of them say its version and end, *answer* finds in it the version and its major number.
    """

    name: str
    names: tuple[str, ...]
    oldest: int
    question: str
    answer: re.Pattern[str]


POSTGRES = Kind("PostgreSQL", ("postgres", "initdb"), 14, "--version", re.compile(r"\(PostgreSQL\) ((\d+)\S*)"))
# Before Java 9 the major number is the second one: 1.8.0.
JAVA = Kind("Java", ("java",), 17, "-version", re.compile(r'version "((?:1\.)?(\d+)[^"]*)"'))


@dataclass(frozen=True, slots=True)
class Program:
    """
    An installed program: its kind's *name*, *origin* ``bundled`` or ``system``, the *folder* with its executables.

    *version* is what it says itself, like ``17.2`` or ``25.0.1``.
    """

    name: str
    origin: str
    folder: str
    version: str

    @property
    def major(self) -> int:
        """The major version."""
        numbers = re.findall(r"\d+", self.version)
        return int(numbers[1] if self.version.startswith("1.") else numbers[0])

    def executable(self, name: str) -> str:
        """The path of one of its executables."""
        return str(Path(self.folder) / name)

    def same(self, other: Program) -> bool:
        """Whether both are one installation; there is one bundled one, wherever it was unpacked or copied."""
        return self.origin == other.origin and (self.origin == BUNDLED or self.folder == other.folder)

    def __str__(self) -> str:
        place = "bundled" if self.origin == BUNDLED else self.folder
        return f"{self.name} {self.version} ({place})"


def examine(kind: Kind, folder: Path, origin: str, account: Account | None = None) -> Program:
    """
    The program of *kind* in *folder*, by its own word; asked as *account*, by default as the current user.

    Raises:
        UnusableProgramError: it is missing, does not run for that user, or is too old.

    """
    versions = {name: _version(kind, folder / name, account) for name in kind.names}
    if len(set(versions.values())) > 1:
        raise UnusableProgramError(", ".join(f"{name} is {version}" for name, version in versions.items()))
    program = Program(kind.name, origin, str(folder), versions[kind.names[0]])
    if program.major < kind.oldest:
        raise UnusableProgramError(f"is {program.version}, too old")
    return program


def _version(kind: Kind, path: Path, account: Account | None) -> str:
    said = _said([str(path), kind.question], path, account)
    found = kind.answer.search(said)
    if found is None:
        raise UnusableProgramError(f"{path.name} {kind.question} says {said.strip()[:200]!r}, which is no version")
    return found.group(1)


def _said(arguments: list[str], path: Path, account: Account | None) -> str:
    """Everything that the program writes; Java answers on standard error."""
    try:
        ended = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=passed_environment(),
            timeout=_TIMEOUT_S,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except subprocess.TimeoutExpired:
        raise UnusableProgramError(f"{path.name} does not answer within {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise UnusableProgramError(_why_not_run(path, account, error)) from None
    said = ended.stdout.decode(errors="replace")
    if ended.returncode != 0:
        raise UnusableProgramError(f"{path.name} ends with code {ended.returncode}: {said.strip()[-200:]}")
    return said


def _why_not_run(path: Path, account: Account | None, error: OSError) -> str:
    denied = isinstance(error, PermissionError)
    # Somebody else's closed folder hides what is in it, but not from root, who alone asks as another user.
    if not os.path.lexists(path) and (account is not None or not denied):
        return f"no {path.name} in it"
    if denied and account is not None and os.access(path, os.X_OK):
        return f"the user {account.name}, who would run it, cannot read {path.name}; open the folder to it"
    if denied:
        return f"{path.name} may not be executed"
    # "Exec format error" is another architecture; "No such file" here means its loader or interpreter.
    return f"{path.name} does not run on this machine: {error.strerror}"
