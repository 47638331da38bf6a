"""The embedded stack on programs of the machine: another copy of the bundled ones, and every major PostgreSQL."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from certificates import Authority
from program_fixture import VERSIONS, Installed, unpack_postgres
from psycopg.conninfo import make_conninfo
from stack_fixture import SharedStack, TestProject
from type_trial import try_types
from worker_fixture import WorkerPool, add_tree, commit_random, histories, wait_agreement

from rowcast.local.java import bundled_java
from rowcast.local.stack import Stack
from rowcast.settings import load_settings


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A project folder; whatever is started in it is stopped and deleted."""
    made = tmp_path / "stack"
    made.mkdir()
    yield made
    Stack(made).down(wipe=True)


def _rowcast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def _programs(folder: Path) -> list[tuple[bool, str, str]]:
    """Of each part: whether it answers, where its program comes from, and the folder."""
    parts: list[dict[str, Any]] = json.loads(_rowcast(folder, "status", "--json").stdout)["parts"]
    return [(part["answering"], part["program"]["origin"], part["program"]["folder"]) for part in parts]


@pytest.mark.slow
def test_stack_on_programs_of_the_machine(folder: Path, second_copy: Installed, reachable: Path) -> None:
    """
    The named programs are what runs; the next commands use the same ones without being told; other programs are
    refused while parts run, and a PostgreSQL of another major version also when they are down.
    """
    other = reachable / "postgres 15"
    postgres_bin, java_bin = str(second_copy.postgres_bin), str(second_copy.java_home / "bin")
    expected = [(True, "system", place) for place in (postgres_bin, java_bin, java_bin)]

    started = _rowcast(folder, "up", *second_copy.options)
    assert started.returncode == 0, started.stderr
    assert _programs(folder) == expected
    processes = [Path(f"/proc/{part.pid}/exe").resolve() for part in Stack(folder).status()]
    assert [process.is_relative_to(second_copy.folder.resolve()) for process in processes] == [True] * 3

    again = _rowcast(folder, "up")
    changed = _rowcast(folder, "up", "--parts", "bundled")
    Stack(folder).restart("connect")
    assert again.stderr.count("runs already") == 3
    assert (changed.returncode, "postgres: runs on" in changed.stderr) == (2, True)
    assert _programs(folder) == expected
    assert postgres_bin in _rowcast(folder, "status").stdout

    assert _rowcast(folder, "down").returncode == 0
    _claim_to_be_postgres(other, "15.3")
    refused = _rowcast(folder, "up", "--postgres-bin", str(other))
    back = _rowcast(folder, "up", "--parts", "bundled")
    assert (refused.returncode, back.returncode) == (2, 0), back.stderr
    assert "the data belong to PostgreSQL 18, but PostgreSQL 15.3" in refused.stderr
    assert [origin for _, origin, _ in _programs(folder)] == ["bundled"] * 3


def _claim_to_be_postgres(folder: Path, version: str) -> None:
    folder.mkdir()
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)


# Of sessions in databases of which the urls demand TLS: who others could listen to, and whether the connector is not.
_LISTENING = """
SELECT coalesce(array_agg(a.application_name || ' of ' || a.backend_type) FILTER (WHERE NOT s.ssl), '{}'),
       bool_or(s.ssl AND a.backend_type = 'walsender')
  FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.datname ~ '^(src|ctl)_'
"""


def _encrypt(stack: SharedStack, folder: Path) -> Path:
    """Let the stack's PostgreSQL speak TLS; the certificate to trust."""
    authority = Authority(folder / "authority")
    issued = authority.issue("server")
    with psycopg.connect(stack.settings.database("postgres").url, autocommit=True) as connection:
        (place,) = connection.execute("SHOW data_directory").fetchone() or ()
        data, owner = Path(place), Path(place).stat()
        for name, source in (("server.crt", issued.chain), ("server.key", issued.key)):
            (data / name).write_text(source.read_text())
            (data / name).chmod(0o600)
            os.chown(data / name, owner.st_uid, owner.st_gid)
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf()")
    return authority.certificate


def _demand_encryption(project: TestProject, ca: Path) -> None:
    """Let every url of the project demand a server that has the certificate."""
    path = project.folder / "rowcast.toml"
    demand = {"sslmode": "verify-full", "sslrootcert": str(ca)}
    path.write_text(
        re.sub(r'(?m)^url = "(.*)"$', lambda url: f'url = "{make_conninfo(url[1], **demand)}"', path.read_text())
    )
    project.connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "major",
    # The oldest; the newest is what all other tests run on.
    [each if each == "14" else pytest.param(each, marks=pytest.mark.matrix) for each in sorted(VERSIONS)],
)
def test_rows_become_events_on_every_major_version(major: str, folder: Path, tmp_path: Path, reachable: Path) -> None:
    """
    A source is applied over TLS, its events agree with its tables, and every type has its documented form; so has a
    draft of its tables.
    """
    java_home = Path(bundled_java().folder).parent
    installed = Installed(reachable, unpack_postgres(major, reachable), java_home)

    started = _rowcast(folder, "up", *installed.options)

    assert started.returncode == 0, started.stderr
    stack = SharedStack(folder, load_settings(folder, {}), Stack(folder))
    with psycopg.connect(stack.settings.control().url) as connection:
        assert str(connection.info.server_version // 10_000) == major
    ca = _encrypt(stack, tmp_path)
    project = stack.new_project(tmp_path / "project")
    _demand_encryption(project, ca)
    try:
        _move_rows(project, WorkerPool(project, tmp_path))
        assert project.execute(_LISTENING).fetchone() == ([], True)
        draft = tmp_path / "draft"
        drafted = _rowcast(project.folder, "init", "--database", project.name, "--folder", str(draft))
        assert (drafted.returncode, _rowcast(draft, "schemas", "check").returncode) == (0, 0), drafted.stderr
    finally:
        project.close()
    typed = stack.new_project(tmp_path / "typed")
    pool = WorkerPool(typed, tmp_path / "typed")
    try:
        try_types(typed, pool, extensions=True)
    finally:
        pool.end()
        typed.close()


def _move_rows(project: TestProject, workers: WorkerPool) -> None:
    """Rows before the source is applied, and random transactions after it, become events that agree with the tables."""
    trees = [[str(uuid.uuid4()) for _ in range(3)] for _ in range(20)]
    for ids in trees[:10]:
        add_tree(project.connection, ids)
    try:
        assert project.apply()
        assert project.plan() == []
        workers.start().wait_owned()
        for ids in trees[10:]:
            add_tree(project.connection, ids)
        rng = random.Random(14)
        for _ in range(100):
            commit_random(project.connection, rng)
        wait_agreement(project)
        assert len(histories(project)) >= 60
    finally:
        workers.end()
