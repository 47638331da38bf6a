"""The compose files, built and run: the demo under load while it is scaled and killed, and a newcomer's project."""

from __future__ import annotations

import os
import random
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import psycopg
import pytest
from compose_file import HEALTHY_S, ComposeProject
from container_engine import base_image, running_engine
from stack_fixture import REPOSITORY, wait_until

from examples.inventory.load import LoadPlan
from examples.main_job import job, report
from examples.main_job.job import MainJob, Outcome
from examples.main_job.observer import Observer
from examples.main_job.options import Options, parse_options
from examples.main_job.pipeline import Pipeline, bring_declarations
from rowcast.settings import load_settings

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2400)]
_TROUBLE_S = 1200  # at most; a machine that does nothing else needs a sixth of it
_AFTER_S = 10
_BEFORE = 30  # transactions before PostgreSQL is killed
PAGE = (REPOSITORY / "docs/how-to/compose.md").read_text()


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    """The engine of all tests here."""
    with running_engine() as client:
        yield client


def environment(engine: docker.DockerClient, folder: Path) -> dict[str, str]:
    """What the compose file of *folder* is told: the base image, and ports that are free."""
    with closing(socket.socket()) as one, closing(socket.socket()) as two, closing(socket.socket()) as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in (one, two, three)]
    (wanted,) = re.findall(r"^ARG BASE=(\S+)", (folder / "Dockerfile").read_text(), re.MULTILINE)
    names = ("POSTGRES_PORT", "KAFKA_PORT", "CONNECT_PORT")
    return {"BASE": base_image(engine, wanted), **dict(zip(names, ports, strict=True))}


class ContainerPipeline(Pipeline):
    """The main job's pipeline, with every part in a container of *compose*."""

    def __init__(self, options: Options, compose: ComposeProject) -> None:
        super().__init__(options)
        self.compose = compose
        self.trouble: Trouble | None = None
        self.companions = self  # type: ignore[assignment] # of companions, only `check` is asked here
        self.public = {"download_s": 0.0, "started_at": 0.0}

    def start_servers(self) -> None:
        """Everything is up; where it is says the container of PostgreSQL."""
        bring_declarations(self._options.project)
        published = self.compose.read("postgres", "/project/.rowcast/published.json")
        (self._options.project / ".rowcast").mkdir(exist_ok=True)
        (self._options.project / ".rowcast/stack.json").write_bytes(published)

    def apply_source(self) -> None:
        """From inside: Connect reaches the source by the name that only containers know."""
        code, output = self.compose.run("rowcast", ["sources", "apply"])
        assert code == 0, output

    def start_companions(self) -> None:
        """They run already."""

    def processes(self) -> dict[str, object]:
        """None that could be looked at from here."""
        return {}

    def check(self) -> None:
        """Go on with the trouble."""
        if self.trouble is not None:
            self.trouble.check()


class Trouble(threading.Thread):
    """Scaling and killing, from the moment on that *ledger* tells of committed transactions."""

    def __init__(self, compose: ComposeProject, ledger: Path) -> None:
        super().__init__(name="trouble", daemon=True)
        self._compose, self._ledger = compose, ledger
        self._error: BaseException | None = None
        self.began_at = self.ended_at = 0.0

    def run(self) -> None:
        """One worker more, each container killed once, two workers less."""
        try:
            wait_until(lambda: self._ledger.exists() and self._ledger.stat().st_size > 50_000, "the load runs", 600)
            self.began_at = time.time()
            follow(self._compose, "docker compose up --detach --scale worker=3")
            for service in ("worker", "orders", "connect", "kafka"):
                for container in self._compose.containers(service):
                    self._compose.wait_healthy(container)
                    self._compose.kill(container)
                    print(f"{container.name} was killed and is healthy again")
            self._compose.up({"worker": 1})
            self.ended_at = time.time()
        # Raised where the main job looks after its companions.
        except BaseException as error:  # noqa: BLE001
            self._error = error

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error


class PlanUntilTheEnd(LoadPlan):
    """A load that goes on until *trouble* has ended, however slow the machine is, and a little longer."""

    trouble: Trouble

    @property
    def total(self) -> int:
        """All that *seconds* allow; once it is known, what is due at the end."""
        trouble = self.trouble
        seconds = trouble.ended_at - trouble.began_at + _AFTER_S if trouble.ended_at else self.seconds
        return int(self.rate * seconds)


def main_job(pipeline: ContainerPipeline, options: Options) -> Outcome:
    """Drive the main job on containers that run."""
    pipeline.start_servers()
    observer = Observer(pipeline.orders_url)
    observer.start()
    try:
        pipeline.load_catalogue()
        pipeline.apply_source()
        pipeline.place_orders()
        return MainJob(options, pipeline, observer).run()
    finally:
        observer.stop()


def assert_clean(outcome: Outcome) -> None:
    """Nothing lost, doubled, out of order or invalid; the first defects otherwise."""
    assert outcome.void_reason is None
    assert report.exit_code(outcome) == 0, [str(each) for each in outcome.verdict.defects[:5]]


def options_of(folder: Path, rate: int, seconds: int) -> Options:
    """Options of the main job for a small catalogue."""
    given = {"--rate": rate, "--seconds": seconds, "--instances": 300, "--project": folder}
    return parse_options([text for name, value in given.items() for text in (name, str(value))])


@pytest.mark.guarantee("Any instance may die")
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Effects exactly once")
def test_the_demo_loses_nothing_while_it_is_scaled_and_every_container_is_killed(
    engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers 1 to 3 to 1, each container killed once under load, PostgreSQL last: the verdict is clean."""
    compose = ComposeProject(engine, REPOSITORY, "rowcast-test", environment(engine, REPOSITORY))
    compose.down()
    compose.build()
    try:
        compose.up({"worker": 1})
        options = options_of(tmp_path, rate=20, seconds=_TROUBLE_S)
        pipeline = ContainerPipeline(options, compose)
        pipeline.trouble = Trouble(compose, tmp_path / ".rowcast/committed.jsonl")
        pipeline.trouble.start()
        with monkeypatch.context() as patched:
            patched.setattr(PlanUntilTheEnd, "trouble", pipeline.trouble, raising=False)
            patched.setattr(job, "LoadPlan", PlanUntilTheEnd)
            outcome = main_job(pipeline, options)
        assert_clean(outcome)
        last_at = outcome.evidence.transactions[-1].committed_at
        assert 0 < pipeline.trouble.ended_at < last_at, "not all of it was under load"

        committed = kill_postgres_under_load(compose, pipeline.inventory_url)
        assert committed > _BEFORE, "nothing was committed after the kill"
        options = options_of(tmp_path, rate=20, seconds=10)
        assert_clean(main_job(ContainerPipeline(options, compose), options))
    finally:
        compose.down()


def change_items(connection: psycopg.Connection, rng: random.Random) -> None:
    """One transaction that changes a few items, and moves one of them."""
    with connection.transaction():
        connection.execute(
            "UPDATE item SET status = %s, updated_at = clock_timestamp()"
            " WHERE id IN (SELECT id FROM item ORDER BY md5(id::text || %s) LIMIT 3)",
            (rng.choice(["Available", "Checked out", "Missing"]), str(rng.random())),
        )
        connection.execute(
            "UPDATE item SET holdings_id = (SELECT id FROM holdings ORDER BY md5(id::text || %s) LIMIT 1)"
            " WHERE id = (SELECT id FROM item ORDER BY md5(id::text || %s) LIMIT 1)",
            (str(rng.random()), str(rng.random())),
        )


def kill_postgres_under_load(compose: ComposeProject, url: str) -> int:
    """Kill PostgreSQL while rows change; how many transactions were committed in all."""
    rng, committed = random.Random(7), 0
    (postgres,) = compose.containers("postgres")
    kill = threading.Thread(target=compose.kill, args=(postgres,))
    deadline_s = time.monotonic() + HEALTHY_S
    while kill.ident is None or kill.is_alive():
        assert time.monotonic() < deadline_s, "PostgreSQL is away for too long"
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                while kill.ident is None or kill.is_alive():
                    change_items(connection, rng)
                    committed += 1
                    if committed == _BEFORE:
                        kill.start()
                    if kill.is_alive():
                        kill.join(0.05)  # paces the load
        except psycopg.OperationalError:
            continue
    postgres.reload()
    assert postgres.attrs["RestartCount"] == 1
    return committed


def with_wheel(engine: docker.DockerClient, base: str, folder: Path) -> str:
    """An image like *base* with Rowcast's wheel in /wheels, as if an index had it."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True, timeout=120)
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY *.whl /wheels/\n")
    engine.images.build(path=str(folder), tag="rowcast-wheel:test", rm=True)
    return "rowcast-wheel:test"


def test_the_project_of_a_newcomer_runs_in_containers(engine: docker.DockerClient, tmp_path: Path) -> None:
    """What `rowcast init` writes is built from the wheel, and the commands of the page do what it says."""
    project, wheel = tmp_path / "shop", tmp_path / "wheel"
    wheel.mkdir()
    (project / ".rowcast").mkdir(parents=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ROWCAST")}

    def rowcast(*arguments: str) -> str:
        command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(project), *arguments]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=120).stdout

    rowcast("init")
    for name in ("connectors", "schemas"):
        (project / name).mkdir()
    given = environment(engine, project)
    given |= {"BASE": with_wheel(engine, given["BASE"], wheel), "PIP_FIND_LINKS": "/wheels"}
    compose = ComposeProject(engine, project, "rowcast-test-shop", given)
    compose.down()
    try:
        follow(compose, "docker compose up --build --detach")
        follow(compose, "docker compose cp postgres:/project/.rowcast/published.json .")
        (project / "published.json").rename(project / ".rowcast/stack.json")
        server = load_settings(project, {}).database("postgres").url
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        with psycopg.connect(load_settings(project, {}).database("shop").url) as connection:
            connection.execute("CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL)")
            connection.execute("INSERT INTO customer SELECT n, 'Customer ' || n FROM generate_series(1, 100) n")
        rowcast("init", "--database", "shop")
        for path in project.glob("schemas/*/*/v1.0.json"):
            path.write_text(path.read_text().replace("unclassified", "none"))
        rowcast("schemas", "derive")
        for line in re.findall(r"^docker compose run .*", PAGE, re.MULTILINE):
            follow(compose, line)
        wait_until(
            lambda: len(rowcast("events", "tail", "shop.customer", "--last", "200").splitlines()) == 100, "events"
        )
        follow(compose, "docker compose down --volumes")
        assert engine.volumes.list(filters={"name": compose.name}) == []
    finally:
        compose.down()


def follow(compose: ComposeProject, line: str) -> None:
    """Do what a line of the page does; fails on one that is not there, or not understood."""
    assert re.search(rf"^{re.escape(line)}$", PAGE, re.MULTILINE), line
    match shlex.split(line):
        case ["docker", "compose", "up", "--build", "--detach"]:
            compose.build()
            compose.up()
        case ["docker", "compose", "up", "--detach", "--scale", scale]:
            service, _, count = scale.partition("=")
            compose.up({service: int(count)})
        case ["docker", "compose", "cp", place, "."]:
            service, _, path = place.partition(":")
            (compose.folder / Path(path).name).write_bytes(compose.read(service, path))
        case ["docker", "compose", "down", "--volumes"]:
            compose.down()
        case ["docker", "compose", "run", "--rm", service, *command]:
            wanted = 1 if command == ["sources", "plan"] else 0  # 1: something is to be done
            deadline_s = time.monotonic() + HEALTHY_S
            while (found := compose.run(service, command))[0] != wanted:
                # Only the status gets better by itself: the first heartbeat has to arrive.
                assert command == ["sources", "status"], found[1]
                assert time.monotonic() < deadline_s, found[1]
            print(found[1])
        case _:
            pytest.fail(f"not understood: {line}")
