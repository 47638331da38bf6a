"""The walk-through of a breaking change, docs/majors.md, as it stands: its files, its commands, what they print."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from stack_fixture import SharedStack, TestProject, wait_until
from worker_fixture import Worker, WorkerPool, histories, read_events

from rowcast.event import DomainEvent

PAGE = Path(__file__).resolve().parents[2] / "docs/majors.md"
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main")
LAST_DAY = "2027-06-30"
ENTITY: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:rowcast:schema:shop.customer:1.0:entity",
    "title": "Customer",
    "description": "Who buys.",
    "x-ancestors": [],
    "type": "object",
    "required": ["id", "name"],
    "properties": {
        "id": {"type": "integer", "description": "Number.", "x-pii": "none"},
        "name": {"type": ["string", "null"], "description": "Name.", "x-pii": "name"},
    },
}
EVENT = {"after": {"id": 1, "name": "Ann"}, "before": None, "ancestors": {}, "context": {}}


def day(offset: int) -> str:
    """So many days from today, UTC."""
    return (datetime.now(UTC).date() + timedelta(days=offset)).isoformat()


@dataclass
class Walk:
    """The page, section by section, in *project*: its source is called `shop` there and otherwise here."""

    project: TestProject
    names: Mapping[str, str]
    database: str
    consumers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def section(self, number: int) -> None:
        """Write the files of a section and run its commands; each prints what stands there."""
        text = PAGE.read_text()
        start = text.index(f"\n## {number}.") if number else 0
        end = text.find("\n## ", start + 1)
        for name, kind, block in self._blocks(text[start : end if end > 0 else None]):
            if kind == "console":
                for command, expected in self._commands(block):
                    self._run(command, expected)
            elif name:
                path = self.project.folder / self._here(name)
                path.write_text(self._here(block))

    def _blocks(self, text: str) -> Iterator[tuple[str, str, str]]:
        yield from re.findall(r"(?:^`([\w./]+)`:\n)?^```(\w*)\n(.*?)^```$", text, re.M | re.S)

    def _commands(self, block: str) -> Iterator[tuple[str, list[str]]]:
        for each in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *expected = each.splitlines()
            yield command, expected

    def _here(self, text: str) -> str:
        for name, here in self.names.items():
            text = re.sub(rf"\b{re.escape(name)}\b", here, text)
        return text

    def _run(self, command: str, expected: list[str]) -> None:
        binaries = str(Path(sys.executable).parent)
        done = subprocess.run(
            ["/bin/sh", "-c", self._here(command)],
            cwd=self.project.folder,
            env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", **GIT},
            capture_output=True,
            text=True,
            check=False,
        )
        # Paths are absolute; the page is about the project folder.
        printed = (done.stdout + done.stderr).replace(f"{self.project.folder}/", "").splitlines()
        rest = iter(printed)
        for line in map(self._here, expected):
            pattern = ".*".join(map(re.escape, line.split("…")))
            if line != "…":
                assert any(re.fullmatch(pattern, each) for each in rest), f"{command}: no {line!r} in\n" + "\n".join(
                    printed
                )
        if "…" not in expected:
            assert len(printed) == len(expected), f"{command}:\n" + "\n".join(printed)

    def start(self, program: str) -> None:
        """A consumer's program."""
        name = program.removesuffix(".py")
        environment = {**os.environ, "DATABASE": self.database, "BROKERS": self.project.stack.brokers}
        log = (self.project.folder / f"{name}.log").open("wb")
        command = [sys.executable, str(self.project.folder / program)]
        self.consumers[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def stop(self, name: str) -> None:
        """End a consumer in an orderly way."""
        process = self.consumers.pop(name)
        process.terminate()
        assert process.wait(30) == 0, (self.project.folder / f"{name}.log").read_text()

    def failed(self, name: str) -> str:
        """What a consumer said that ends with an error."""
        assert self.consumers.pop(name).wait(30) == 1
        return (self.project.folder / f"{name}.log").read_text()

    def applied(self, consumer: str) -> list[tuple[str, int, str | None]]:
        """What a consumer has applied: id, version and name, in order."""
        with psycopg.connect(self.database) as connection:
            query = sql.SQL("SELECT id, version, name FROM {} ORDER BY id, version").format(sql.Identifier(consumer))
            return connection.execute(query).fetchall()

    def wait_applied(self, consumer: str, rows: list[tuple[str, int, str | None]]) -> None:
        """Wait until a consumer has applied exactly *rows*."""
        wait_until(lambda: self.applied(consumer) == rows, f"{consumer} applied {rows}: {self.applied(consumer)}", 90)


GIT = {
    f"GIT_{who}_{what}": f"t{mark}"
    for who in ("AUTHOR", "COMMITTER")
    for what, mark in (("NAME", ""), ("EMAIL", "@example.invalid"))
}


@pytest.fixture
def walk(project: TestProject, stack: SharedStack) -> Iterator[Walk]:
    """The page's beginning: major 1 is published and committed, nothing runs."""
    folder, name = project.folder, project.name
    shutil.rmtree(folder / "schemas")
    contract = folder / "schemas" / name / "customer"
    for verdict, event in (("accepted", EVENT), ("rejected", {**EVENT, "context": None})):
        (contract / "examples/v1.0" / verdict).mkdir(parents=True)
        (contract / "examples/v1.0" / verdict / "created.json").write_text(json.dumps(event))
    entity = json.dumps(ENTITY, indent=2).replace("shop.customer", f"{name}.customer")
    (contract / "v1.0.json").write_text(entity + "\n")
    part = {key: ENTITY[key] for key in ("$schema", "description", "type")}
    part |= {"required": ["name"], "properties": {"name": {}}}
    (folder / "consumers/mail").mkdir(parents=True)
    (folder / f"consumers/mail/{name}.customer.v1.json").write_text(json.dumps(part))
    project.source_path.write_text(
        f"source: {name}\ndatabase: {name}\ntopics: {{partitions: 3}}\n"
        "aggregates:\n  customer: {table: public.customer, id: id, contract: v1.0}\n"
    )
    project.execute("CREATE TABLE customer (id integer PRIMARY KEY, name text)")
    database = stack.new_database("mail").url
    with psycopg.connect(database) as connection:
        for consumer in ("mail", "news"):
            connection.execute(
                sql.SQL("CREATE TABLE {} (id text, version bigint, name text, PRIMARY KEY (id, version))").format(
                    sql.Identifier(consumer)
                )
            )
    walk = Walk(project, {"shop": name, LAST_DAY: day(30)}, database)
    walk._run("rowcast schemas derive > derive.log; git init --quiet --initial-branch=main", [])
    (folder / ".gitignore").write_text("*.log\n*.py\n__pycache__\n")
    walk._run("git add . && git commit --quiet --message one", [])
    try:
        yield walk
    finally:
        for each in walk.consumers.values():
            each.kill()
            each.wait()
        for path in folder.glob("*.log"):
            print(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}")


@pytest.mark.slow
@pytest.mark.guarantee("Contracts hold")
def test_the_walk_through_of_a_breaking_change(walk: Walk, workers: WorkerPool) -> None:
    """An old and a new consumer side by side, a worker killed while the new major opens, and nothing applied twice."""
    project = walk.project
    project.execute("INSERT INTO customer VALUES (1, 'Ann'), (2, 'Bob'), (3, 'Cid')")
    project.apply()
    worker = workers.start()
    walk.section(0)
    walk.section(4)  # its programs: `news` was written before the source publishes major 2
    walk.start("mail.py")
    walk.start("news.py")
    first = [("1", 1, "Ann"), ("2", 1, "Bob"), ("3", 1, "Cid")]
    walk.wait_applied("mail", first)
    walk.wait_applied("news", first)
    walk.stop("mail")
    project.execute("DELETE FROM customer WHERE id = 3")
    walk.wait_applied("news", [*first, ("3", 2, None)])

    walk.section(1)
    walk.section(2)
    worker.kill()
    walk.section(3)
    # Dies when the events of the opening are published and not committed.
    assert workers.start("sequencer.after_publish=kill").wait_ended(60) == -9
    worker = workers.start()
    opened = [("1", 1, "Ann"), ("1", 2, "Ann"), ("2", 1, "Bob"), ("2", 2, "Bob"), ("3", 1, "Cid"), ("3", 2, None)]
    walk.wait_applied("news", opened)
    # The new topic does not tell that customer 3 is gone.
    walk.start("mail_2.py")
    assert "MAJOR_AHEAD" in walk.failed("mail_2")
    walk.start("mail.py")
    walk.wait_applied("mail", opened)

    walk.stop("mail")
    walk.start("mail_2.py")
    project.execute("UPDATE customer SET name = 'Anna' WHERE id = 1")
    project.execute("INSERT INTO customer VALUES (3, 'Cleo')")
    last = [*opened[:2], ("1", 3, "Anna"), *opened[2:], ("3", 3, "Cleo")]
    walk.wait_applied("mail", last)
    walk.wait_applied("news", last)

    walk.section(5)
    wait_taken_over(project)
    project.execute("UPDATE customer SET name = 'Bo' WHERE id = 2")
    last.insert(5, ("2", 3, "Bo"))
    walk.wait_applied("mail", last)
    walk.wait_applied("news", last)
    check_topics(project)
    check_told(walk, worker)

    let_time_pass(walk)
    walk.stop("news")
    walk.section(6)
    wait_taken_over(project)
    project.execute("UPDATE customer SET name = 'Ann' WHERE id = 1")
    walk.wait_applied("mail", [*last[:3], ("1", 4, "Ann"), *last[3:]])
    assert max(event.version for event in read_events(project, ["customer"], 1)) == 3
    assert project.plan() == []


def check_told(walk: Walk, worker: Worker) -> None:
    """The worker counts who reads the old topic; its consumer says that it ends."""
    name = walk.project.name
    topic = f"{name}.customer.v1"
    readers = f'rowcast_deprecated_topic_readers{{group="news",source="{name}",topic="{topic}"}} 1.0'
    wait_until(lambda: readers in worker.get("/metrics").text, readers)
    said = f"topic {topic} is deprecated; its last day is {day(30)}"
    wait_until(lambda: said in (walk.project.folder / "news.log").read_text(), said)


def wait_taken_over(project: TestProject) -> None:
    """Wait until the worker goes by the definition that was applied last."""
    with project.control() as control:
        query = "SELECT revision = position_revision FROM rowcast.source"
        wait_until(lambda: control.execute(query).fetchone() == (True,), "the new definition's first commit")


def let_time_pass(walk: Walk) -> None:
    """The last day is yesterday, and events told it long ago."""
    for path in (walk.project.folder / "schemas").rglob("v1.0.json"):
        path.write_text(path.read_text().replace(day(30), day(-1)))
    walk.names = {**walk.names, LAST_DAY: day(-1)}
    walk.project.apply()


def check_topics(project: TestProject) -> None:
    """Each major has each version once and in order; what both have is of one change; major 2 opens with snapshots."""
    one = histories(project, ["customer"], 1)
    two: dict[str, list[DomainEvent]] = {}
    for event in read_events(project, ["customer"], 2):
        two.setdefault(event.identity.text, []).append(event)
    assert one.keys() == two.keys()
    for name, events in two.items():
        older = [each for each in one[name] if each.version >= events[0].version]
        assert events[0].kind == "snapshot"
        assert [(each.version, each.kind, each.position) for each in events] == [
            (each.version, each.kind, each.position) for each in older
        ]
        for new, old in zip(events, older, strict=True):
            assert (new.after or {}).get("full_name") == (old.after or {}).get("name")
    assert one[f"{project.name}/customer/2"][-1].before == {"name": "Bob"}
    assert two[f"{project.name}/customer/2"][-1].before == {"full_name": "Bob"}
