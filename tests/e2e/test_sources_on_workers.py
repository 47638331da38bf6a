"""Several sources spread over several workers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stack_fixture import SharedStack, TestProject, wait_until
from worker_fixture import Load, Worker, WorkerPool, read_topics, rowcast, wait_agreement

GOES_ON_S = 30


def join(main: TestProject, other: TestProject) -> None:
    """Declare the source of *other* in the project of *main* too, so that both have one control database."""
    shutil.copy(other.source_path, main.source_path.parent)
    shutil.copytree(other.folder / "schemas" / other.name, main.folder / "schemas" / other.name)
    declared = (other.folder / "rowcast.toml").read_text().partition(f"[databases.{other.name}]")
    section = declared[1] + declared[2].partition("[databases.rowcast]")[0]
    with (main.folder / "rowcast.toml").open("a") as settings:
        settings.write("\n" + section)


def owned(workers: list[Worker]) -> list[list[str]]:
    """The sources of each worker that answers."""
    return [worker.get("/health").json()["owned"] for worker in workers if worker.process.poll() is None]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.guarantee("Fresh")
def test_three_sources_go_on_while_workers_come_and_die(
    stack: SharedStack, project: TestProject, tmp_path: Path
) -> None:
    """Two workers share them; a third joins, one is killed: within 30 s every source goes on; one comes, one goes."""
    others = [stack.new_project(tmp_path / f"other-{number}") for number in range(2)]
    join(project, others[0])
    project.apply()
    pool = WorkerPool(project, tmp_path)
    loads = [Load(each, number, rate=20) for number, each in enumerate((project, *others))]
    try:
        first, second = pool.start(), pool.start()
        wait_until(lambda: sorted(map(len, owned([first, second]))) == [1, 1], "both work", GOES_ON_S)
        loads[0].start()
        loads[1].start()
        join(project, others[1])
        project.apply()
        wait_until(lambda: sum(map(len, owned([first, second]))) == 3, "the third source is owned", GOES_ON_S)
        loads[2].start()
        third = pool.start()
        wait_until(lambda: b"/health" in third.log.read_bytes(), "the third worker is there")
        first.kill()
        before = {each.name: len(read_topics(each)) for each in (project, *others)}
        for each in (project, *others):
            wait_until(lambda each=each: len(read_topics(each)) > before[each.name], each.name, GOES_ON_S)
        wait_until(lambda: sum(map(len, owned([second, third]))) == 3, "all are owned", GOES_ON_S)
        loads[1].finish()
        wait_agreement(others[0], 60)
        assert rowcast(project, "sources", "remove", others[0].name, "--yes").returncode == 0
        wait_until(lambda: sum(map(len, owned([second, third]))) == 2, "the removed one is let go", GOES_ON_S)
        loads[0].finish()
        loads[2].finish()
        wait_agreement(project, 60)
        wait_agreement(others[1], 60)
    finally:
        for load in loads:
            if load.is_alive():
                load.finish()
        pool.end()
        for each in others:
            each.close()
