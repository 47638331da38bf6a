"""Where the servers of a stack listen, and under which addresses others reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Site:
    """
    The addresses of a stack's parts; by default each is on loopback and reached there.

    *listen* is what the servers bind. *hosts* names the host of a part, for the other parts and for clients beside
    them. *published* is ``host:port`` of a part for clients elsewhere, where that is another address. *identity* names
    the stack where its state does not outlive its processes. *secrets* are further folders whose files a connector's
    configuration may refer to.
    """

    listen: str = "127.0.0.1"
    hosts: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    identity: str | None = None
    secrets: tuple[str, ...] = ()

    def host(self, part: str) -> str:
        """The host of *part*."""
        return self.hosts.get(part, self.listen)


LOOPBACK = Site()

# What a container keeps for itself, where it finds the files of connectors' secrets, and where it listens.
CONTAINER_FOLDER = Path("/var/lib/rowcast")
CONTAINER_SECRETS = "/secrets"
CONTAINER_PORTS = {"postgres": 5432, "kafka": 9092, "kafka_controller": 9093, "connect": 8083, "worker": 6066}


def container_site(published: Mapping[str, str]) -> Site:
    """Parts in containers: each listens on every address of its own, and the others reach it by its name."""
    everywhere = "0.0.0.0"  # noqa: S104 - who reaches it is for the containers' networks to say
    hosts = {part: part for part in ("postgres", "kafka", "connect")}
    return Site(everywhere, hosts, published, identity="compose", secrets=(CONTAINER_SECRETS,))
