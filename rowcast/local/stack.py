"""
The embedded stack: PostgreSQL, Kafka and Kafka Connect as ordinary processes of this machine.

Everything it keeps is in the project's state folder. Whatever goes wrong on the way up, what was started is
stopped again; data stay until `wipe`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rowcast.errors import ConfigurationError
from rowcast.local.choice import choose_program, refuse_foreign_data, refuse_running, remember, remembered_wish
from rowcast.local.connect import ConnectPart, password_reference
from rowcast.local.jars import JarFolder, ensure_jars
from rowcast.local.kafka import KafkaPart
from rowcast.local.launch import runs, start_parts, stop_marked, stop_part
from rowcast.local.locks import held_lock
from rowcast.local.part import Part, PartStatus, Progress, silent
from rowcast.local.postgres import USER, PostgresPart
from rowcast.local.processes import log_tail
from rowcast.local.program import SYSTEM, Program
from rowcast.local.state import StackState, refuse_unusable, write_private
from rowcast.settings import CONTROL_DATABASE, STATE_FOLDER, PartsSettings, load_parts_settings

_LOCK_TIMEOUT_S = 300.0
_Parts = tuple[PostgresPart, KafkaPart, ConnectPart]
_NO_WISH = PartsSettings()
PARTS = ("postgres", "kafka", "connect")


class Stack:
    """The stack of the project folder *project*."""

    def __init__(self, project: Path) -> None:
        self.project = project.resolve()
        self.folder = self.project / STATE_FOLDER

    def up(
        self, databases: Iterable[str] = (), progress: Progress = silent, wish: PartsSettings = _NO_WISH
    ) -> dict[str, Any]:
        """
        Start every part that does not run, wait until all answer, create the databases; returns stack.json.

        A part that runs is left alone. The databases are the control database, those that the project's
        connector files name, and *databases*. What the parts are made of says *wish*, then the project's
        settings, then what the stack remembers.

        Raises:
            ConfigurationError: something that is needed is missing or wrong; nothing was started.
            StackError: a part did not start; what this call started was stopped again.

        """
        if not self.project.is_dir():
            raise ConfigurationError("no such folder", where=str(self.project), fix="--project names your project")
        refuse_unusable(self.folder)
        known = StackState(self.folder)
        wish = wish.over(load_parts_settings(self.project)).over(remembered_wish(known))
        programs = _choose(PARTS, wish, known, progress)  # what cannot be had is refused before anything is downloaded
        jars = ensure_jars(progress)
        wanted = {CONTROL_DATABASE, *databases, *declared_databases(self.project)}
        with self._locked(progress):
            state = StackState(self.folder)
            parts = _parts(state, jars)
            idle = [part for part in parts if not runs(state, part)]
            refuse_foreign_data(state, programs["postgres"])
            refuse_running(state, {part.name: programs[part.name] for part in parts if part not in idle})
            state.create()
            remember(state, wish, {part.name: programs[part.name] for part in idle})
            for part in parts:
                progress(f"{part.name} {'starts' if part in idle else 'runs already'}")
            if len(idle) == len(parts):
                state.put("started_at", time.time())
            if jars.download_s:
                state.put("download_s", jars.download_s)

            def create_databases() -> None:
                for name in parts[0].create_databases(wanted):
                    progress(f"database {name} created")

            start_parts(state, parts, idle, progress, create_databases)
            return self._write_public(state, parts)

    def down(self, *, wipe: bool = False, progress: Progress = silent) -> bool:
        """
        Stop every part in order, and with *wipe* delete everything that the stack keeps.

        Returns whether there was anything to stop or delete. Nothing of this stack runs afterwards.
        """
        if not self.folder.exists():
            return stop_marked(self.folder, progress)
        with self._locked(progress):
            state = _state_for_stop(self.folder, wipe=wipe)
            (self.folder / "stack.json").unlink(missing_ok=True)
            stopped = [stop_part(state, name, progress) for name in reversed(PARTS)]
            stopped.append(stop_marked(self.folder, progress))
            postgres = PostgresPart(state)
            postgres.end_orphans()
            if wipe:
                postgres.wipe()
                shutil.rmtree(self.folder)
                progress(f"{self.folder} deleted")
        return wipe or any(stopped)

    def start(self, part: str, progress: Progress = silent) -> None:
        """
        Start one part of a stack that has been up, on its remembered port, and wait until it answers.

        Returns at once when it runs.

        Raises:
            ConfigurationError: there is no such part or no stack here.
            StackError: it did not start.

        """
        jars = ensure_jars(progress)
        with self._locked(progress):
            state = self._existing()
            parts = _parts(state, jars)
            chosen = [one for one in parts if one.name == _known(part) and not runs(state, one)]
            # The other parts may be down on purpose; only what is started here is waited for.
            running = [one for one in parts if one in chosen or runs(state, one)]
            if chosen:
                self._remember_again(state, part, progress)
                start_parts(state, running, chosen, progress, lambda: None)
                if self.meant_to_run():
                    self._write_public(state, parts)

    def stop(self, part: str, progress: Progress = silent) -> None:
        """Stop one part in order; the others go on."""
        with self._locked(progress):
            stop_part(self._existing(), _known(part), progress)

    def restart(self, part: str, progress: Progress = silent) -> None:
        """Stop one part in order and start it again."""
        self.stop(part, progress)
        self.start(part, progress)

    def status(self) -> list[PartStatus]:
        """Each part as it is now; [] when no stack was ever started here or it was wiped."""
        state = StackState(self.folder)
        if not state.exists:
            return []
        parts = _parts(state, JarFolder(self.folder, ()))  # for looking only, nothing is loaded
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(lambda part: _status(state, part), parts))

    def meant_to_run(self) -> bool:
        """Whether the stack was started and not stopped since."""
        return (self.folder / "stack.json").exists()

    def _remember_again(self, state: StackState, part: str, progress: Progress) -> None:
        """The program of *part* as it is now: the same place may have another version."""
        wish = remembered_wish(state)
        programs = _choose([part], wish, state, progress)
        if part == PostgresPart.name:
            refuse_foreign_data(state, programs[part])
        remember(state, wish, programs)

    def _existing(self) -> StackState:
        state = StackState(self.folder)
        if not state.exists:
            raise ConfigurationError("no stack here", where=str(self.folder), fix="run `rowcast up`")
        return state

    def _locked(self, progress: Progress) -> AbstractContextManager[None]:
        what = "another rowcast up or down"
        return held_lock(self.folder / "lock", timeout_s=_LOCK_TIMEOUT_S, what=what, progress=progress)

    def _write_public(self, state: StackState, parts: _Parts) -> dict[str, Any]:
        postgres, kafka, connect = parts
        public = {
            **addresses(state, kafka.brokers, connect.url, ("127.0.0.1", postgres.port)),
            "parts": {part.name: _public_part(state, part) for part in parts},
            "started_at": state.get("started_at"),
            "download_s": state.get("download_s") or 0.0,
        }
        write_private(self.folder / "stack.json", json.dumps(public, indent=1) + "\n")
        return public


def addresses(state: StackState, brokers: str, connect_url: str, postgres: tuple[str, int]) -> dict[str, Any]:
    """What ``stack.json`` tells the rest of Rowcast: where the parts are, and PostgreSQL's login."""
    host, port = postgres
    return {
        "version": 1,
        "brokers": brokers,
        "connect_url": connect_url,
        "postgres": {
            "host": host,
            "port": port,
            "user": USER,
            "password": state.password,
            "connect_password": password_reference(state.folder),
        },
    }


def declared_databases(project: Path) -> set[str]:
    """The databases that the project's connector files name; a file that cannot be read is left to `sources`."""
    names = set()
    for path in sorted((project / "connectors").glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # `rowcast sources plan` reports it with its line
        name = content.get("database") if isinstance(content, dict) else None
        if isinstance(name, str) and name:
            names.add(name)
    return names


def _parts(state: StackState, jars: JarFolder) -> _Parts:
    return PostgresPart(state), KafkaPart(state, jars), ConnectPart(state, jars)


def _choose(parts: Iterable[str], wish: PartsSettings, state: StackState, progress: Progress) -> dict[str, Program]:
    """The program of each of *parts*; Kafka and Connect have one Java runtime, so it is asked once."""
    programs: dict[str, Program] = {}
    for part in parts:
        if part == "connect" and "kafka" in programs:
            programs[part] = programs["kafka"]
        else:
            programs[part] = choose_program(part, wish, state, progress)
            if programs[part].origin == SYSTEM:
                progress(f"{programs[part]}")
    return programs


def _known(part: str) -> str:
    if part not in PARTS:
        raise ConfigurationError(f"no such part: {part}", where="stack", fix=f"one of {', '.join(PARTS)}")
    return part


def _state_for_stop(folder: Path, *, wipe: bool) -> StackState:
    try:
        return StackState(folder)
    except ConfigurationError:
        if not wipe:
            raise
        (folder / "state.json").unlink()  # unreadable; the mark still finds the processes
        return StackState(folder)


def _status(state: StackState, part: Part) -> PartStatus:
    process = state.process(part.name)
    alive = process is not None and process.alive()
    answering = alive and part.answers()
    return PartStatus(
        name=part.name,
        pid=process.pid if process is not None and alive else None,
        port=state.get(f"port.{part.ports[0]}"),
        alive=alive,
        answering=answering,
        pss_mb=process.pss_mb() if process is not None and alive else None,
        log=str(part.log),
        # After an orderly stop there is nothing to explain.
        log_tail=() if answering or process is None else tuple(log_tail(part.log)),
        program=state.program(part.name),
    )


def _public_part(state: StackState, part: Part) -> dict[str, Any]:
    process, program = state.process(part.name), state.program(part.name)
    return {
        "pid": None if process is None else process.pid,
        "started_at": None if process is None else process.started_at,
        "port": state.get(f"port.{part.ports[0]}"),
        "log": str(part.log),
        "program": None if program is None else asdict(program),
    }
