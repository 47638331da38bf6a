"""
Every part is killed at random moments under load, two at a time, also with Connect's exactly-once source off.

The campaign's rounds in `--all` show the same with more faults, so these are for `--matrix`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from consumer_fixture import Broker, ConsumerPool, Service
from stack_fixture import SharedStack, TestProject, wait_until
from test_outages import kill_part
from verdict_fixture import MarkedLoad, pass_verdict, wait_flowing
from worker_fixture import WorkerPool

from rowcast.local import connect
from rowcast.local.stack import Stack
from rowcast.local.state import StackState
from rowcast.sources import plan

PARTS = ("worker", "consumer", "connect", "kafka", "source", "control")


@pytest.fixture
def control_server(project: TestProject, tmp_path: Path) -> Iterator[Stack]:
    """A PostgreSQL server that has nothing but the control database of *project*."""
    server = Stack(tmp_path)
    state = StackState(server.folder)
    state.create()
    server.start("postgres")
    try:
        state = StackState(server.folder)
        url = f"postgresql://postgres:{state.password}@127.0.0.1:{state.get('port.postgres')}/"
        with psycopg.connect(url + "postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE control")
        settings = project.folder / "rowcast.toml"
        settings.write_text(settings.read_text().replace(project.settings.control().url, url + "control"))
        assert project.settings.control().url == url + "control"
        yield server
    finally:
        server.down(wipe=True)


@pytest.fixture
def delivery(request: pytest.FixtureRequest, stack: SharedStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Connect with its exactly-once source ``on``, as shipped, or ``off``, as somebody else's may be."""
    wanted = str(request.param)
    if wanted == "on":
        yield wanted
        return
    with monkeypatch.context() as patched:
        patched.setitem(connect.SETTINGS, "exactly.once.source.support", "disabled")
        stack.stack.restart("connect")
        derive = plan.connector_configuration

        def without(*arguments: Any, **options: Any) -> dict[str, str]:
            unknown = ("exactly.once.support", "transaction.boundary")
            return {name: value for name, value in derive(*arguments, **options).items() if name not in unknown}

        patched.setattr(plan, "connector_configuration", without)
        yield wanted
    stack.stack.restart("connect")


@pytest.mark.matrix
@pytest.mark.timeout(500)
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Order per aggregate")
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize(("delivery", "seed"), [("on", 1), ("on", 2), ("off", 3), ("off", 4)], indirect=["delivery"])
def test_parts_are_killed_at_random_moments(
    project: TestProject,
    control_server: Stack,
    workers: WorkerPool,
    consumers: ConsumerPool,
    broker: Broker,
    service: Service,
    *,
    delivery: str,
    seed: int,
) -> None:
    """Each part once, two at a time, started again at once: everything flows within 30 s of both being back."""
    rng = random.Random(seed)
    project.apply()
    broker.domain = project.name
    running: dict[str, Any] = {"worker": workers.start(), "consumer": consumers.start().process}
    load = MarkedLoad(project, seed)
    load.start()
    wait_flowing(load, service, "from the start", 60)

    def restart(part: str) -> Callable[[], None]:
        """Kill *part*; what starts it again."""
        if part in running:
            running[part].kill()
            start = {"worker": workers.start, "consumer": lambda: consumers.start().process}[part]
            return lambda: running.update({part: start()})
        stack, name = (control_server, "postgres") if part == "control" else (project.stack.stack, part)
        name = "postgres" if part == "source" else name
        kill_part(stack, name)
        return lambda: stack.start(name)

    parts = rng.sample(PARTS, len(PARTS))
    print(f"seed {seed}, exactly-once source {delivery}: {parts}")
    try:
        for pair in (parts[:2], parts[2:4], parts[4:]):
            pass_time(rng.uniform(0.5, 2.5))
            starts = [restart(pair[0])]
            pass_time(rng.choice([0.0, rng.uniform(0.0, 1.0)]))
            starts.append(restart(pair[1]))
            for start in starts:
                start()
            project.connection.close()  # the test's own one may have died with its server
            wait_flowing(load, service, f"after the death of {' and '.join(pair)}")
        pass_verdict(project, service, load)
    finally:
        load.end()
    print(f"sent again by the connector: {sent_again(project)} records")


def pass_time(seconds: float) -> None:
    """A moment without reason."""
    until_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until_s, "the moment", seconds + 5)


def sent_again(project: TestProject) -> int:
    """How many rows the change log has more than once."""
    last = project.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert last is not None
    rows: Counter[tuple[str, int]] = Counter()
    values = project.change_log(
        lambda values: any(value.get("status") == "END" and end_lsn(value) >= int(last[0]) for value in values[-200:])
    )
    for value in values:
        if transaction := value.get("transaction"):
            rows[(transaction["id"], transaction["total_order"])] += 1
    return sum(count - 1 for count in rows.values())


def end_lsn(value: dict[str, Any]) -> int:
    """The commit LSN of an END."""
    return int(str(value["id"]).rpartition(":")[2])
