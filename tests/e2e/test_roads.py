"""The roads between the parts are cut, half-open or lose an answer, under load: the pipeline goes on by itself."""

from __future__ import annotations

import random
import time

import pytest
from pipeline_fixture import Pipeline
from stack_fixture import wait_until
from verdict_fixture import BACK_S, SHARED_S, pass_verdict, wait_flowing

from campaign.proxy import BOTH, DOWN, UP

pytestmark = [
    pytest.mark.slow,
    pytest.mark.guarantee("Nothing committed is lost"),
    pytest.mark.guarantee("Effects exactly once"),
    pytest.mark.guarantee("Order per aggregate"),
    pytest.mark.guarantee("Fresh"),
]
CUT_S, HALF_OPEN_S, LONG_S, CONTROL_AWAY_S = 5, 15, 120, 60
SILENT_CONNECTOR_S, ALL_BACK_S = 45 + SHARED_S, 60 + SHARED_S


def pass_time(seconds: float) -> None:
    """The fault lasts; nothing can tell when it has lasted long enough."""
    until_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until_s, "the time passes", seconds + 5)


@pytest.mark.matrix  # one after another; the campaign cuts them at any moment
@pytest.mark.timeout(500)
def test_every_road_is_cut_for_a_while(pipeline: Pipeline) -> None:
    """Connections are reset and refused: within 30 s of the way being free again everything flows."""
    pipeline.start()
    for name, road in pipeline.roads.items():
        road.cut()
        pass_time(1)
        road.refuse()
        pass_time(CUT_S)
        road.heal()
        pipeline.wait_back(f"after {name} was cut")
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)


@pytest.mark.matrix
@pytest.mark.timeout(500)
@pytest.mark.parametrize("seed", [1])
def test_every_road_is_half_open_for_a_while(pipeline: Pipeline, seed: int) -> None:
    """Nothing passes, or in one direction only, and nobody is told: within 30 s of its end everything flows."""
    rng = random.Random(seed)
    pipeline.start()
    for name, road in pipeline.roads.items():
        directions = rng.choice([BOTH, (UP,), (DOWN,)])
        road.hold(*directions)
        pass_time(HALF_OPEN_S)
        road.heal()
        pipeline.wait_back(f"after {name} was held {' and '.join(directions)}")
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)


@pytest.mark.timeout(500)
def test_connections_that_never_say_anything_again_are_given_up(pipeline: Pipeline) -> None:
    """Open connections are dead without an end, new ones work: within 30 s everything flows, over new ones."""
    pipeline.start()
    for name, road in pipeline.roads.items():
        road.forget()
        # A connector is restarted once it was silent, and has to wait until the server has let go of its slot.
        limit_s = SILENT_CONNECTOR_S if name == "connect to source" else BACK_S
        pipeline.wait_back(f"after the connections of {name} were forgotten", limit_s)
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)


@pytest.mark.timeout(400)
def test_all_roads_are_half_open_for_two_minutes(pipeline: Pipeline) -> None:
    """Every part is alone for 120 s; then all goes on, and nothing was older than 300 s when it was applied."""
    pipeline.start()
    for road in pipeline.roads.values():
        road.hold()
    pass_time(LONG_S)
    for road in pipeline.roads.values():
        road.heal()
    # All parts come back at once, and the parts wait for each other.
    pipeline.wait_back("after two minutes", ALL_BACK_S)
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)


@pytest.mark.timeout(300)
def test_the_control_database_is_away_for_a_minute(pipeline: Pipeline) -> None:
    """Source, Kafka and Connect work on, the worker waits, and goes on within 30 s."""
    pipeline.start()
    pipeline.roads["worker to control"].refuse()
    pass_time(CONTROL_AWAY_S)
    pipeline.roads["worker to control"].heal()
    pipeline.wait_back("after the control database was away")
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", ["worker to control", "consumer to database"])
def test_a_commit_happens_and_its_answer_is_lost(pipeline: Pipeline, name: str) -> None:
    """Whoever committed cannot know it: the database is asked again, and nothing is done twice."""
    pipeline.start()
    road = pipeline.roads[name]
    for count in (1, 2, 3):
        road.lose_answer()
        wait_until(lambda count=count: road.lost_commits == count, "a lost answer")
        wait_flowing(pipeline.load, pipeline.service, f"after lost answer {count}")
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)


@pytest.mark.timeout(200)
@pytest.mark.guarantee("Any instance may die")
def test_a_worker_that_is_cut_off_from_the_control_database_is_replaced(pipeline: Pipeline) -> None:
    """Its connections are half-open without an end: a standby takes over within 30 s, and it does no harm later."""
    pipeline.start()
    standby = pipeline.workers.start()
    wait_until(lambda: standby.get("/health").ok, "the standby")
    pipeline.roads["worker to control"].hold()
    standby.wait_owned()
    wait_flowing(pipeline.load, pipeline.service, "after the takeover")
    pipeline.roads["worker to control"].heal()
    wait_until(lambda: pipeline.workers.workers[0].get("/health").json()["owned"] == [], "the former owner lets go")
    pass_verdict(pipeline.project, pipeline.service, pipeline.load)
