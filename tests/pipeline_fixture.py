"""A whole pipeline under marked load whose roads between the parts can be broken one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from consumer_fixture import Broker, ConsumerPool, Service
from proxy_fixture import Proxies
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from stack_fixture import TestProject, wait_until
from verdict_fixture import BACK_S, MarkedLoad, wait_flowing
from worker_fixture import WorkerPool

from campaign.proxy import Proxy
from rowcast.sources import plan

_START_S = 60


@dataclass
class Pipeline:
    """
    Worker, consumer and load of *project*; *roads* are the proxies between its parts, by name.

    Nothing runs before `start`.
    """

    project: TestProject
    service: Service
    workers: WorkerPool
    consumers: ConsumerPool
    roads: dict[str, Proxy]
    load: MarkedLoad

    def start(self) -> None:
        """Apply the source, start everything, and wait until effects come."""
        settings = self.project.settings
        source = settings.database(self.project.name)
        # Connect reaches the source through a proxy, tests and load reach it directly.
        proxied = replace(source, url=make_conninfo(source.url, port=self.roads["connect to source"].port))
        plan.apply(self.project.sources(), replace(settings, databases={**settings.databases, source.name: proxied}))
        self.start_worker()
        self.consumers.start()
        self.load.start()
        wait_flowing(self.load, self.service, "from the start", _START_S)

    def start_worker(self) -> None:
        """One more worker, behind the proxies of all workers."""
        control = make_conninfo(self.project.settings.control().url, port=self.roads["worker to control"].port)
        self.workers.start(
            settings={
                "ROWCAST_BROKERS": self.roads["worker to kafka"].address,
                "ROWCAST_CONNECT_URL": f"http://{self.roads['worker to connect'].address}",
                "ROWCAST_DATABASE_ROWCAST": control,
            }
        )

    def watched(self) -> bool:
        """Whether a worker says that it reaches Connect."""
        return any("rowcast_connect_reachable 1.0" in each.get("/metrics").text for each in self.workers.workers)

    def wait_back(self, what: str, within_s: float = BACK_S) -> None:
        """Everything has to flow again in time, and connectors have to be looked after."""
        wait_flowing(self.load, self.service, what, within_s)
        wait_until(self.watched, f"connectors are looked after: {what}")


@pytest.fixture
def pipeline(
    project: TestProject,
    workers: WorkerPool,
    service: Service,
    proxies: Proxies,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pipeline]:
    """A pipeline on the shared stack with a proxy on every road; of Connect, the connector's own producer has one."""
    settings = project.settings
    brokers = project.stack.brokers
    server = int(str(conninfo_to_dict(settings.control().url)["port"]))
    roads = {
        "worker to control": proxies.to(server),
        "worker to kafka": proxies.to_kafka(brokers),
        "worker to connect": proxies.to(int(project.stack.connect_url.rpartition(":")[2])),
        "connect to source": proxies.to(int(str(settings.database(project.name).parameters()["port"]))),
        "connect to kafka": proxies.to_kafka(brokers),
        "consumer to database": proxies.to(int(str(conninfo_to_dict(service.url)["port"]))),
        "consumer to kafka": proxies.to_kafka(brokers),
    }
    derive = plan.connector_configuration

    def through_proxy(*arguments: Any, **options: Any) -> dict[str, str]:
        # A producer of another address needs offsets of its own: else Connect takes its own topic for another one, and
        # notes the offsets of transactions in it before they are committed.
        own = {
            "producer.override.bootstrap.servers": roads["connect to kafka"].address,
            "offsets.storage.topic": f"{project.name}.offsets",
        }
        return {**derive(*arguments, **options), **own}

    monkeypatch.setattr(plan, "connector_configuration", through_proxy)
    broker = Broker(roads["consumer to kafka"].address)
    broker.domain = project.name
    reached = Service(make_conninfo(service.url, port=roads["consumer to database"].port))
    pool = ConsumerPool(broker, reached, tmp_path)
    made = Pipeline(project, service, workers, pool, roads, MarkedLoad(project, seed=1, rate=10))
    try:
        yield made
    finally:
        for road in roads.values():
            road.heal()
        if made.load.is_alive():
            made.load.end()
        pool.end()
