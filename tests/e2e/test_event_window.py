"""The window of the domain topics, with a minute in place of days."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest
from consumer_fixture import EFFECTS, Broker, ConsumerPool, Service, new_database
from kafka.admin import ConfigResource
from stack_fixture import TestProject, wait_until
from verdict_fixture import MarkedLoad, wait_flowing
from worker_fixture import TYPES, WorkerPool, read_events, wrong_states

from rowcast.event import DomainEvent
from rowcast.topics import domain_topic

WINDOW_S, WINDOWS_AWAY = 60, 3
SEGMENT_S, COMPACTED_S = 5, 60


def shorten(project: TestProject) -> None:
    """Windows of a minute, and segments that close fast enough for them."""
    lines = project.source_path.read_text().replace("events: 7d", f"events: {WINDOW_S}s")
    project.source_path.write_text(lines + "allow_short_windows: true\n")
    project.apply()
    with closing(project.admin()) as admin:
        for each in TYPES:
            settings = {"segment.ms": str(SEGMENT_S * 1000), "min.cleanable.dirty.ratio": "0.01"}
            admin.alter_configs([ConfigResource("TOPIC", domain_topic(project.name, each, 1), settings)])


def by_aggregate(events: list[DomainEvent]) -> dict[str, list[DomainEvent]]:
    """The events of each aggregate in log order; versions rise, and need not be dense."""
    found = defaultdict(list)
    for event in events:
        found[event.identity.text].append(event)
    for name, history in found.items():
        versions = [event.version for event in history]
        assert versions == sorted(set(versions)), f"{name}: {versions}"
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.guarantee("Nothing committed is lost")
@pytest.mark.guarantee("A long window")
def test_the_window_keeps_every_event_and_the_latest_of_each_aggregate_for_ever(
    project: TestProject, workers: WorkerPool, consumers: ConsumerPool, broker: Broker, service: Service, tmp_path: Path
) -> None:
    """A consumer that was away for three windows gets what there is, and ends with what the source has."""
    shorten(project)
    broker.domain = project.name
    workers.start().wait_owned()
    consumers.start(name="present")
    with new_database(project.stack.settings) as url:
        other = Service(url)
        other.execute(EFFECTS)
        (tmp_path / "others").mkdir()
        others = ConsumerPool(broker, other, tmp_path / "others")
        load = MarkedLoad(project, seed=1, rate=10)
        try:
            absent = others.start(name="absent")
            load.start()
            wait_flowing(load, service, "present", 60)
            wait_flowing(load, other, "absent", 60)
            absent.process.kill()
            until_s = time.monotonic() + WINDOW_S * WINDOWS_AWAY
            wait_until(lambda: time.monotonic() > until_s, "three windows", WINDOW_S * WINDOWS_AWAY + 5)
            check_window(project, service)
            returned = others.start(name="absent")
            wait_flowing(load, other, "returned")
            load.finish()
            check_converged(project, service, other)
            assert returned.process.poll() is None
        finally:
            load.end()
            others.end()


def versions(service: Service) -> dict[str, list[int]]:
    """The versions that had an effect, by item, in the order of the effects."""
    found: dict[str, list[int]] = defaultdict(list)
    for id_text, version in service.effects():
        found[id_text].append(version)
    return found


def check_window(project: TestProject, service: Service) -> None:
    """What is younger than the window can be read, and of what is older the last version of each item."""
    wait_until(lambda: lost_versions(project, service), "the broker has compacted", COMPACTED_S)
    since = time.time() - WINDOW_S
    lost = lost_versions(project, service)
    # Applied within a second or so of being appended; the rest is for the time that reading takes.
    margin_s = 5
    assert all(applied_at < since + margin_s for applied_at in lost.values())
    assert len(lost) > 100


def lost_versions(project: TestProject, service: Service) -> dict[tuple[str, int], float]:
    """What had an effect and cannot be read any more, with the Unix time of the effect; never a last version."""
    rows = service.execute("SELECT id_text, version, extract(epoch FROM applied_at)::float8 FROM effect")
    applied = {(str(id_text), int(str(version))): float(str(at)) for id_text, version, at in rows}
    history = by_aggregate(read_events(project))
    readable = {(event.identity.id_text, event.version) for events in history.values() for event in events}
    lost = {key: at for key, at in applied.items() if key not in readable}
    last = {id_text: history_[-1] for id_text, history_ in versions(service).items()}
    assert not [key for key in lost if last[key[0]] == key[1]]
    return lost


def check_converged(project: TestProject, present: Service, absent: Service) -> None:
    """Topics and both consumers end with what the source has; only the absent one has holes."""

    def last_events() -> dict[str, DomainEvent]:
        return {name: events[-1] for name, events in by_aggregate(read_events(project)).items()}

    wait_until(lambda: not wrong_states(project, last_events()), "topics agree with the source")
    last = {
        event.identity.id_text: event.version for event in last_events().values() if event.identity.aggregate == "item"
    }
    for each in (present, absent):
        wait_until(
            lambda each=each: {id_text: found[-1] for id_text, found in versions(each).items()} == last,
            "the last version of each item has its effect",
        )
    everything, some = versions(present), versions(absent)
    assert everything == {id_text: list(range(1, number + 1)) for id_text, number in last.items()}
    assert all(found == sorted(set(found)) for found in some.values())
    assert sum(map(len, some.values())) < sum(map(len, everything.values()))
