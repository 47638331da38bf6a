"""
The parts of a stack in containers of their own: programs and settings of `rowcast up`, at other addresses.

The container of PostgreSQL makes the password and tells the others where everything is: in ``stack.json`` in the
project's state folder, a volume that all of them have. What a part keeps for itself is in a volume of its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psycopg

from rowcast.errors import ConfigurationError
from rowcast.local.connect import ConnectPart
from rowcast.local.jars import present_jars
from rowcast.local.java import bundled_java
from rowcast.local.kafka import KafkaPart
from rowcast.local.part import Part
from rowcast.local.postgres import PostgresPart, bundled_postgres, create_databases
from rowcast.local.processes import Command, passed_environment
from rowcast.local.site import CONTAINER_FOLDER, CONTAINER_PORTS, container_site
from rowcast.local.stack import PARTS, addresses, declared_databases
from rowcast.local.state import StackState
from rowcast.secret_file import write_private
from rowcast.settings import CONTROL_DATABASE, STATE_FOLDER, load_settings

# For clients on the machine itself, below the state folder.
PUBLISHED_FILE = "published.json"


def run_part(name: str, project: Path, published: Mapping[str, str]) -> NoReturn:
    """
    Become the server of the part *name*, as the only process of its container.

    *published* has, by part, the ``host:port`` for clients outside of the containers.

    Raises:
        ConfigurationError: something that is needed is missing; nothing was started.
        StackError: its data could not be made.

    """
    command = prepare_part(name, project, published)
    os.chdir(command.folder)
    environment = passed_environment() | dict(command.environment)
    os.execve(command.arguments[0], list(command.arguments), environment)  # noqa: S606 - the server that was chosen


def prepare_part(name: str, project: Path, published: Mapping[str, str], folder: Path = CONTAINER_FOLDER) -> Command:
    """Make data and configuration of the part *name* in *folder*; how its server is started. Raises as `run_part`."""
    state = StackState(folder)
    state.create()
    for port, number in CONTAINER_PORTS.items():
        state.put(f"port.{port}", number)
    state.put_program(name, bundled_postgres() if name == PostgresPart.name else bundled_java())
    if name == PostgresPart.name:
        _tell_others(project, state, published)
    else:
        state.put("password", _password(project) if name == ConnectPart.name else None)
    part = part_in_container(name, state, published)
    part.prepare(threading.Event())
    return part.command()


def part_in_container(name: str, state: StackState, published: Mapping[str, str]) -> Part:
    """The part *name* of the stack with *state*; its jars are checked."""
    site = container_site(published)
    if name == PostgresPart.name:
        return PostgresPart(state, site)
    return (KafkaPart if name == KafkaPart.name else ConnectPart)(state, present_jars(), site)


def make_databases(project: Path, names: set[str]) -> list[str]:
    """
    Create the control database, those of the project's connector files and *names*, unless there or declared elsewhere.

    Returns the new ones.

    Raises:
        ConfigurationError: PostgreSQL's container did not say where it is.

    """
    settings = load_settings(project)
    wanted = {CONTROL_DATABASE, *names, *declared_databases(project)} - set(settings.databases)
    server = replace(settings, databases={}).database("postgres")
    with psycopg.connect(server.url, autocommit=True, connect_timeout=10) as connection:
        return create_databases(connection, wanted)


def _tell_others(project: Path, state: StackState, published: Mapping[str, str]) -> None:
    inside = {part: f"{part}:{CONTAINER_PORTS[part]}" for part in PARTS}
    for name, where in (("stack.json", inside), (PUBLISHED_FILE, {**inside, **published})):
        host, _, port = where["postgres"].rpartition(":")
        content = addresses(state, where["kafka"], f"http://{where['connect']}", (host, int(port)))
        write_private(project / STATE_FOLDER / name, json.dumps(content, indent=1) + "\n")


def _password(project: Path) -> str:
    server = load_settings(project).stack_postgres
    if server is None:
        where = str(project / STATE_FOLDER / "stack.json")
        raise ConfigurationError("there is no password", where=where, fix="start the container of PostgreSQL first")
    return str(server["password"])
