"""TCP proxies for tests: see `campaign.proxy`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from campaign.proxy import Proxy


class Proxies:
    """Makes proxies and closes them."""

    def __init__(self) -> None:
        self._made: list[Proxy] = []

    def to(self, port: int) -> Proxy:
        """A proxy in front of *port*."""
        self._made.append(Proxy(port))
        return self._made[-1]

    def to_kafka(self, brokers: str) -> Proxy:
        """A proxy in front of the one broker at *brokers*."""
        self._made.append(Proxy(int(brokers.rpartition(":")[2]), kafka=True))
        return self._made[-1]

    def close(self) -> None:
        """Close all of them."""
        for each in self._made:
            each.close()


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    """Proxies of one test."""
    made = Proxies()
    try:
        yield made
    finally:
        made.close()
