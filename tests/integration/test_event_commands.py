"""`rowcast events tail|show` on real topics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from consumer_fixture import Broker
from stack_fixture import wait_until

from rowcast.cli.main import main
from rowcast.event import EventKind, Record


@pytest.fixture
def folder(broker: Broker, tmp_path: Path) -> Path:
    """A project that knows nothing but brokers."""
    (tmp_path / "rowcast.toml").write_text(f'brokers = "{broker.brokers}"\n')
    return tmp_path


def told(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """What the command prints with --json."""
    assert main(["--project", str(folder), "events", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def names(documents: list[dict[str, Any]]) -> list[str]:
    """Id and version of each."""
    return [f"{each['subject']}:{each['version']}" for each in documents]


def test_what_was_published_is_shown(broker: Broker, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest, an aggregate's history, one event, and a span of time; nothing of an aborted transaction."""
    name = broker.create_topic(partitions=3).removesuffix(".v1")
    for version in range(1, 9):
        broker.publish(*(broker.event(f"i{number}", version) for number in range(6)))
    broker.publish(broker.event("i1", 9), commit=False)
    broker.publish(broker.event("a b", 1), broker.event("a b", 2, EventKind.DELETED))

    last = told(folder, capsys, "tail", name, "--last", "8")
    assert sorted(names(last)) == sorted(["a%20b:1", "a%20b:2", *(f"i{number}:8" for number in range(6))])
    assert [each["appended_at"] for each in last] == sorted(each["appended_at"] for each in last)
    assert names(told(folder, capsys, "tail", f"{name}.v1", "--last", "2", "--id", "i3")) == ["i3:7", "i3:8"]
    assert len(told(folder, capsys, "tail", name, "--last", "1000")) == 50
    assert names(told(folder, capsys, "show", name, "i1")) == [f"i1:{version}" for version in range(1, 9)]
    (one,) = told(folder, capsys, "show", name, "item:a%20b:2")
    assert (one["after"], one["type"]) == (None, f"{broker.domain}.item.deleted.v1")
    assert told(folder, capsys, "tail", name, "--since", "1h", "--until", "30m") == []
    assert len(told(folder, capsys, "tail", name, "--since", "1h", "--for", "1")) == 50


def test_partitions_may_be_empty(broker: Broker, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An event or none in more partitions than there are keys."""
    name = broker.create_topic(partitions=6).removesuffix(".v1")
    assert told(folder, capsys, "tail", name, "--last", "5") == []
    broker.publish(broker.event("1", 1))
    assert names(told(folder, capsys, "tail", name, "--last", "5")) == ["1:1"]
    assert names(told(folder, capsys, "show", name, "1")) == ["1:1"]


def test_what_is_not_there_is_named(broker: Broker, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Topic, aggregate and event; a record that is no event is shown and makes the exit code 1."""
    topic = broker.create_topic(partitions=1)
    name = topic.removesuffix(".v1")
    broker.publish(broker.event("1", 1), broker.event("1", 2))
    wrong = {
        ("show", f"{name}s", "1"): f"there is no topic of events '{name}s' ({name}",
        ("tail", f"{name}.v2", "--last", "1"): topic,
        ("show", name, "2"): "there is no event of '2' (an id as in `rowcast events tail",
        ("tail", name, "--id", "2", "--last", "3"): "there is no event of '2'",
        ("show", name, "item:1:3"): "there is no event 'item:1:3' (versions that are there: 1 to 2)",
    }
    for arguments, message in wrong.items():
        assert main(["--project", str(folder), "events", *arguments]) == 2
        assert message in capsys.readouterr().err
    broker.publish(Record(topic, b"1", b"{}", ()))
    assert main(["--project", str(folder), "events", "tail", name, "--last", "1"]) == 1
    assert "offset 3: not an event: header ce_specversion is missing" in capsys.readouterr().out


@pytest.mark.slow
def test_tail_follows_until_it_is_interrupted(broker: Broker, folder: Path) -> None:
    """What is published later appears at once, a topic of several partitions included; Ctrl-C ends it well."""
    name = broker.create_topic(partitions=3).removesuffix(".v1")
    broker.publish(broker.event("old", 1))
    command = [sys.executable, "-m", "rowcast.cli.main", "--project", str(folder), "events", "tail", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
        thread.start()
        try:
            version = 0

            def published() -> bool:
                nonlocal version  # one of them comes after it began to follow
                version += 1
                broker.publish(*(broker.event(f"i{number}", version) for number in range(6)))
                return len(lines) >= 12

            wait_until(published, "the events appear")
        finally:
            process.send_signal(signal.SIGINT)
            thread.join(20)
        assert process.wait(20) == 0
    assert not [line for line in lines if "old" in line]
