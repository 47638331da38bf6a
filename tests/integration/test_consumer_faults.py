"""A consumer that dies, freezes or fails at each of its steps."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from consumer_fixture import Broker, ConsumerPool, Process, Service, wait_until
from proxy_fixture import Proxies
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from verdict_fixture import BACK_S

STEPS = ("in_claim", "before_transaction", "after_lock", "in_commit", "after_commit", "in_idle_store")
GOES_ON_S = 30


def steps(quick: tuple[str, ...]) -> list[object]:
    return [step if step in quick else pytest.param(step, marks=pytest.mark.slow) for step in STEPS]


def chosen(*run: str) -> list[object]:
    return [step if step in run else pytest.param(step, marks=pytest.mark.matrix) for step in STEPS]


def publish(broker: Broker, version: int) -> None:
    broker.publish(*(broker.event(f"id-{number}", version) for number in range(40)))


def assert_each_once(broker: Broker, service: Service) -> None:
    events = {event.id for event in broker.read_all(broker.topic())}
    effects = service.execute("SELECT event_id, id_text, version FROM effect ORDER BY seq")
    assert Counter(event_id for event_id, _, _ in effects) == dict.fromkeys(events, 1)
    last: dict[object, int] = {}
    for _, id_text, version in effects:
        assert version == last.get(id_text, 0) + 1
        last[id_text] = last.get(id_text, 0) + 1


def wait_frozen(process: Process) -> None:
    status = Path(f"/proc/{process.process.pid}/status")
    wait_until(lambda: "State:\tT" in status.read_text(), GOES_ON_S, "the consumer froze itself")


@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.parametrize("step", steps(("in_commit",)))
def test_a_consumer_killed_at_any_step_applies_everything_once(
    broker: Broker, service: Service, consumers: ConsumerPool, step: str
) -> None:
    """Whatever line it dies at, the next instance goes on within 30 s, and no effect is missing or doubled."""
    broker.create_topic()
    publish(broker, 1)
    first = consumers.start(f"consumer.{step}=kill@{1 if step in ('in_claim', 'in_idle_store') else 2}")
    for version in range(2, 5):
        publish(broker, version)
    assert first.wait() == -signal.SIGKILL
    consumers.start()
    wait_until(lambda: service.effect_count() >= 160, GOES_ON_S, "the next instance goes on")
    assert_each_once(broker, service)


@pytest.mark.guarantee("Effects exactly once")
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.slow
@pytest.mark.parametrize("step", chosen("in_commit"))
def test_a_consumer_frozen_at_any_step_is_replaced_and_does_no_harm_when_woken(
    broker: Broker, service: Service, consumers: ConsumerPool, step: str
) -> None:
    """Also inside its transaction: the other instance goes on within 30 s; the woken one changes nothing."""
    broker.create_topic()
    publish(broker, 1)
    first = consumers.start(f"consumer.{step}=stop")
    wait_frozen(first)
    consumers.start()
    publish(broker, 2)
    wait_until(lambda: service.effect_count() >= 80, GOES_ON_S, "the other instance goes on")
    first.send(signal.SIGCONT)
    publish(broker, 3)
    wait_until(lambda: service.effect_count() >= 120, GOES_ON_S, "effects after the wake-up")
    wait_until(lambda: owners(service) == 2, GOES_ON_S, "the woken instance is back at work")
    publish(broker, 4)
    wait_until(lambda: service.effect_count() >= 160, GOES_ON_S, "effects of both")
    assert_each_once(broker, service)


@pytest.mark.slow
@pytest.mark.guarantee("Any instance may die")
@pytest.mark.parametrize("silent", [pytest.param(False, marks=pytest.mark.matrix), True])
def test_an_instance_cut_off_from_its_database_leaves_its_partitions_to_others(
    broker: Broker, service: Service, consumers: ConsumerPool, proxies: Proxies, tmp_path: Path, *, silent: bool
) -> None:
    """The road is refused, or half-open: the other instance goes on within 30 s; both work once it is back."""
    broker.create_topic()
    road = proxies.to(int(str(conninfo_to_dict(service.url)["port"])))
    folder = tmp_path / "far"
    folder.mkdir()
    far = ConsumerPool(broker, Service(make_conninfo(service.url, port=road.port)), folder)
    try:
        far.start()
        consumers.start()
        publish(broker, 1)
        wait_until(lambda: service.effect_count() >= 40, BACK_S, "the first effects")
        wait_until(lambda: owners(service) == 2, BACK_S, "both are at work")
        if silent:
            road.hold()
        else:
            road.refuse()
        publish(broker, 2)
        wait_until(lambda: service.effect_count() >= 80, BACK_S, "the other instance goes on")
        road.heal()
        publish(broker, 3)
        wait_until(lambda: owners(service) == 2, BACK_S, "the instance is back at work")
        publish(broker, 4)
        wait_until(lambda: service.effect_count() >= 160, BACK_S, "effects of both")
        assert_each_once(broker, service)
    finally:
        far.end()


def owners(service: Service) -> int:
    (row,) = service.execute("SELECT count(DISTINCT instance) FROM rowcast_inbox.offset_position")
    return int(str(row[0]))


@pytest.mark.slow
@pytest.mark.parametrize("step", chosen("in_claim", "in_commit"))
def test_an_unexpected_error_at_any_step_ends_the_process_visibly_and_loses_nothing(
    broker: Broker, service: Service, consumers: ConsumerPool, step: str
) -> None:
    """A bug of the SDK is not logged and forgotten: the process ends with it, and the next one has all effects."""
    broker.create_topic()
    publish(broker, 1)
    first = consumers.start(f"consumer.{step}=error")
    assert first.wait() == 1
    assert f"FailpointError: consumer.{step}" in first.log.read_text()
    consumers.start()
    wait_until(lambda: service.effect_count() >= 40, GOES_ON_S, "the next instance goes on")
    assert_each_once(broker, service)
