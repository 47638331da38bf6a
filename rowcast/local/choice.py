"""
Which programs a stack is made of: the bundled ones, those of this machine, or per part whichever there is.

A choice that was made is remembered and made again in the same way: what a stack runs on never changes because
something else was installed meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rowcast.errors import ConfigurationError
from rowcast.local.java import bundled_java
from rowcast.local.part import Progress
from rowcast.local.postgres import MAJOR, PostgresPart, bundled_postgres
from rowcast.local.processes import Account
from rowcast.local.program import BUNDLED, JAVA, POSTGRES, SYSTEM, Kind, Program, UnusableProgramError, examine
from rowcast.local.state import StackState
from rowcast.settings import PartsSettings

_INSTALLED_POSTGRES = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Search:
    """
    Where to look for a program of one *kind*: *places* in this order, told to the user as *described*.

    *option* is how the user names a place; *account* will run the program, None is the current user.
    """

    kind: Kind
    places: tuple[Path, ...]
    described: str
    option: str
    bundled: Callable[[], Program]
    account: Account | None = None


def find_program(parts: str, search: Search, progress: Progress) -> Program:
    """
    The bundled program, the first usable one of the system, or with ``auto`` the bundled one where there is none.

    Raises:
        ConfigurationError: the wanted one is missing or cannot be used; says what was found.

    """
    if parts == BUNDLED:
        return search.bundled()
    reasons = []
    for folder in search.places:
        try:
            return examine(search.kind, folder, SYSTEM, search.account)
        except UnusableProgramError as error:
            reasons.append(f"{folder}: {error}")
    found = "; ".join(reasons) or f"nothing found in {search.described}"
    name, oldest = search.kind.name, search.kind.oldest
    if parts != SYSTEM:
        progress(f"no {name} of the system, {oldest} or newer: {found}; the bundled one is used")
        return search.bundled()
    fix = f"install {name} {oldest} or newer, name its folder with {search.option}, or use --parts bundled"
    raise ConfigurationError(f"none that is {oldest} or newer and runs: {found}", where=name, fix=fix)


def choose_program(part: str, wish: PartsSettings, state: StackState, progress: Progress) -> Program:
    """
    The program for *part* of the stack in *state*, as *wish* says; the remembered one while it says the same.

    Raises:
        ConfigurationError: the wish cannot be fulfilled.

    """
    parts = wish.parts or BUNDLED
    if parts == BUNDLED:
        _refuse_folders(wish)
    former = state.program(part) if wish == remembered_wish(state) else None
    if former is not None and former.origin == BUNDLED:
        parts = BUNDLED
    first = [Path(former.folder)] if former is not None else []
    search = _postgres_search(wish, state, first) if part == PostgresPart.name else _java_search(wish, first)
    return find_program(parts, search, progress)


def remembered_wish(state: StackState) -> PartsSettings:
    """What the stack was wished to be made of when it was last started."""
    return PartsSettings(**state.get("parts") or {})


def remember(state: StackState, wish: PartsSettings, programs: Mapping[str, Program]) -> None:
    """Remember the *wish*, and the *programs* by the name of the part that is about to be started with them."""
    state.put("parts", asdict(wish))
    for part, program in programs.items():
        state.put_program(part, program)


def refuse_running(state: StackState, programs: Mapping[str, Program]) -> None:
    """
    Refuse other *programs* than those with which the named parts, all of them running, were started.

    Raises:
        ConfigurationError: one differs.

    """
    for part, program in programs.items():
        former = state.program(part)
        if former is not None and not former.same(program):
            fix = "`rowcast down`, then `rowcast up` again"
            raise ConfigurationError(f"runs on {former}, cannot change to {program} now", where=part, fix=fix)


def refuse_foreign_data(state: StackState, program: Program) -> None:
    """
    Refuse a changed PostgreSQL whose major version is not that of the data.

    Raises:
        ConfigurationError: the data belong to another major version.

    """
    former = state.program(PostgresPart.name)
    if former is not None and former.same(program) and former.major == program.major:
        return
    postgres = PostgresPart(state)
    major = postgres.data_major
    if major is None or major == str(program.major):
        return
    same = "--parts bundled" if major == str(MAJOR) else f"--parts system --postgres-bin <bin of PostgreSQL {major}>"
    raise ConfigurationError(
        f"the data belong to PostgreSQL {major}, but {program} is chosen",
        where=str(postgres.home / "data"),
        fix=f"`rowcast up {same}`, or `rowcast down --wipe`, which deletes the data",
    )


def installed_postgres(environ: Mapping[str, str], versions: Path) -> list[Path]:
    """The folders with a ``postgres``: those on PATH, then those of *versions*, newest first."""
    numbered = [folder for folder in versions.glob("*/bin") if folder.parent.name.isdigit()]
    numbered.sort(key=lambda folder: int(folder.parent.name), reverse=True)
    return [*_on_path("postgres", environ), *numbered]


def installed_java(environ: Mapping[str, str]) -> list[Path]:
    """The folders with a ``java``: that of JAVA_HOME, then those on PATH."""
    home = environ.get("JAVA_HOME")
    declared = [Path(home) / "bin"] if home else []
    return [*declared, *_on_path("java", environ)]


def _on_path(name: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where the *name* on PATH really is: what belongs to it stands there, not beside a link."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        if folder and (Path(folder) / name).exists():
            yield (Path(folder) / name).resolve().parent


def _postgres_search(wish: PartsSettings, state: StackState, first: list[Path]) -> Search:
    places = (
        [Path(wish.postgres_bin)]
        if wish.postgres_bin
        else [*first, *installed_postgres(os.environ, _INSTALLED_POSTGRES)]
    )
    account = None if wish.parts in (None, BUNDLED) else PostgresPart(state).runner()
    described = f"PATH and {_INSTALLED_POSTGRES}"
    return Search(POSTGRES, tuple(dict.fromkeys(places)), described, "--postgres-bin", bundled_postgres, account)


def _java_search(wish: PartsSettings, first: list[Path]) -> Search:
    places = [Path(wish.java_home) / "bin"] if wish.java_home else [*first, *installed_java(os.environ)]
    return Search(JAVA, tuple(dict.fromkeys(places)), "JAVA_HOME and PATH", "--java-home", bundled_java)


def _refuse_folders(wish: PartsSettings) -> None:
    options = {"--postgres-bin": wish.postgres_bin, "--java-home": wish.java_home}
    for option, folder in options.items():
        if folder is not None:
            fix = "add --parts system or --parts auto, or leave the folder out"
            raise ConfigurationError(f"{folder} is named, but bundled parts are chosen", where=option, fix=fix)
