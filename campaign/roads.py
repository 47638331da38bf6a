"""The roads between the parts of a round, each with a proxy of its own that can be broken."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from campaign.proxy import Proxy

WORKER_CONTROL, WORKER_KAFKA, WORKER_CONNECT = "worker to control", "worker to kafka", "worker to connect"
CONNECT_SOURCE, CONNECT_KAFKA = "connect to source", "connect to kafka"
CONSUMER_DATABASE, CONSUMER_KAFKA = "consumer to database", "consumer to kafka"
ROADS = (
    WORKER_CONTROL,
    WORKER_KAFKA,
    WORKER_CONNECT,
    CONNECT_SOURCE,
    CONNECT_KAFKA,
    CONSUMER_DATABASE,
    CONSUMER_KAFKA,
)


class Roads:
    """Proxies in front of the servers at these addresses, by name."""

    def __init__(self, *, source_url: str, control_url: str, brokers: str, connect_url: str) -> None:
        control, source = (int(str(conninfo_to_dict(url)["port"])) for url in (control_url, source_url))
        kafka, connect = (int(each.rpartition(":")[2]) for each in (brokers, connect_url))
        targets = {
            WORKER_CONTROL: control,
            WORKER_KAFKA: kafka,
            WORKER_CONNECT: connect,
            CONNECT_SOURCE: source,
            CONNECT_KAFKA: kafka,
            CONSUMER_DATABASE: control,
            CONSUMER_KAFKA: kafka,
        }
        self._proxies: dict[str, Proxy] = {}
        try:
            for name in ROADS:
                self._proxies[name] = Proxy(targets[name], kafka=name.endswith("kafka"))
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Proxy:
        return self._proxies[name]

    def through(self, name: str, url: str) -> str:
        """The database at *url*, through the road *name*."""
        return make_conninfo(url, port=self._proxies[name].port)

    def close(self) -> None:
        """Give all ports back."""
        for each in self._proxies.values():
            each.close()
        self._proxies.clear()
