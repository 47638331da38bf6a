"""
Runs a compose file through the `docker` package, as `docker compose` would.

It knows the keys that our files use, and refuses any other: nothing in a file is passed over.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.models.containers import Container
from docker.types import Healthcheck, LogConfig
from stack_fixture import wait_until

_PROJECT, _SERVICE, _NUMBER = (f"com.docker.compose.{each}" for each in ("project", "service", "container-number"))
_SECOND_NS = 10**9
HEALTHY_S = 600  # where many processes share few cores, a health check may time out again and again
_IGNORED = {"build", "depends_on", "profiles", "stop_grace_period"}  # they are not properties of a container
_KEYS = {
    *_IGNORED,
    *("cap_drop", "command", "deploy", "entrypoint", "healthcheck", "image", "init", "logging", "ports", "read_only"),
    *("restart", "security_opt", "shm_size", "stop_signal", "tmpfs", "volumes"),
}


class ComposeProject:
    """
    The services of *folder*/docker-compose.yml on the engine of *client*, as project *name*.

    *environment* has the variables for the file; *name* replaces the file's own, so that nobody else's is touched.
    """

    def __init__(self, client: docker.DockerClient, folder: Path, name: str, environment: Mapping[str, str]) -> None:
        self.client, self.folder, self.name, self._environment = client, folder, name, environment
        text = re.sub(r"\$\{(\w+):-([^}]*)\}", self._variable, (folder / "docker-compose.yml").read_text())
        assert "${" not in text
        content = yaml.safe_load(text)
        assert {key for key in content if not key.startswith("x-")} <= {"name", "services", "volumes"}
        self.services: dict[str, Any] = content["services"]
        self._volumes = list(content["volumes"])
        self._counts = {each: self._service(each).get("deploy", {}).get("replicas", 1) for each in self.services}

    def build(self) -> None:
        """Build the images of all services; layers that are a day old and of no image any more are deleted."""
        for image in {service["image"]: service for service in self.services.values()}.values():
            build = image["build"]
            assert set(build) == {"context", "args"}
            _, log = self.client.images.build(
                path=str(self.folder / build["context"]),
                tag=image["image"],
                buildargs={name: self._environment[name] for name in build["args"] if name in self._environment},
                rm=True,
                forcerm=True,
            )
            print("".join(line.get("stream", "") for line in log)[-300:])
        self.client.images.prune(filters={"dangling": True, "until": "24h"})

    def up(self, scale: Mapping[str, int] | None = None) -> None:
        """Start what does not run, in order, each when what it depends on is healthy or has come to its end."""
        self._counts |= scale or {}
        if not self.client.networks.list(names=[self._network]):
            self.client.networks.create(self._network, labels={_PROJECT: self.name})
        for name, service in self.services.items():
            if "profiles" not in service:
                self._up(name, set())

    def run(self, service: str, command: list[str]) -> tuple[int, str]:
        """Run *command* in a container of its own; exit code and output."""
        container = self._create(service, f"{self.name}-{service}-run", command=command, healthcheck=None)
        try:
            container.start()
            code = container.wait(timeout=300)["StatusCode"]
            return code, container.logs().decode()
        finally:
            container.remove(force=True)

    def containers(self, service: str) -> list[Container]:
        """The containers of *service*, by number."""
        labels = [f"{_PROJECT}={self.name}", f"{_SERVICE}={service}"]
        found = self.client.containers.list(all=True, filters={"label": labels})
        return sorted(found, key=lambda each: int(each.labels[_NUMBER]))

    def wait_healthy(self, container: Container) -> None:
        """Wait until the engine calls *container* healthy."""

        def healthy() -> bool:
            container.reload()
            return bool(container.attrs["State"].get("Health", {}).get("Status") == "healthy")

        try:
            wait_until(healthy, f"{container.name} is healthy", HEALTHY_S)
        except BaseException:
            print(container.attrs["State"], container.logs(tail=60).decode(), sep="\n")
            raise

    def kill(self, container: Container) -> None:
        """SIGKILL to every process in *container*; wait until the engine has started it again and it is healthy."""
        container.reload()
        before = container.attrs["RestartCount"]
        # From inside, as a crash: what is killed through the engine counts as stopped on purpose.
        container.exec_run(["python", "-c", "import os; os.kill(-1, 9)"])

        def again() -> bool:
            container.reload()
            return bool(container.attrs["RestartCount"] > before and container.status == "running")

        wait_until(again, f"{container.name} is started again", HEALTHY_S)
        self.wait_healthy(container)

    def read(self, service: str, path: str) -> bytes:
        """The content of a file in the first container of *service*, as `docker compose cp` has it."""
        stream, _ = self.containers(service)[0].get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            opened = archive.extractfile(archive.next() or path)
            assert opened is not None
            return opened.read()

    def down(self) -> None:
        """Stop and delete everything: containers, network, volumes."""
        for name in reversed(self.services):
            for container in self.containers(name):
                self._remove(name, container)
        for network in self.client.networks.list(names=[self._network]):
            network.remove()
        for volume in self.client.volumes.list(filters={"label": f"{_PROJECT}={self.name}"}):
            volume.remove()

    @property
    def _network(self) -> str:
        return f"{self.name}_default"

    def _variable(self, found: re.Match[str]) -> str:
        return self._environment.get(found[1]) or found[2]

    def _service(self, name: str) -> dict[str, Any]:
        service: dict[str, Any] = self.services[name]
        assert set(service) <= _KEYS, f"{name}: unknown keys {set(service) - _KEYS}"
        return service

    def _up(self, name: str, above: set[str]) -> None:
        assert name not in above, f"{name} depends on itself"
        for needed, how in self._service(name).get("depends_on", {}).items():
            self._up(needed, {*above, name})
            for container in self.containers(needed):
                if how["condition"] == "service_healthy":
                    self.wait_healthy(container)
                else:
                    assert how["condition"] == "service_completed_successfully"
                    assert container.wait(timeout=HEALTHY_S)["StatusCode"] == 0, container.logs().decode()
        present = {int(each.labels[_NUMBER]): each for each in self.containers(name)}
        for number in range(1, self._counts[name] + 1):
            if number not in present:
                self._create(name, f"{self.name}-{name}-{number}", number=number).start()
        for number, container in present.items():
            if number > self._counts[name]:
                self._remove(name, container)

    def _remove(self, name: str, container: Container) -> None:
        container.stop(timeout=_seconds(self._service(name)["stop_grace_period"]))
        container.remove(force=True)

    def _create(self, name: str, container: str, number: int = 0, **changes: Any) -> Container:
        service = {**self._service(name), **changes}
        limits = service["deploy"]["resources"]["limits"]
        assert set(service["deploy"]) <= {"replicas", "resources"}
        logging = service["logging"]
        endpoint = self.client.api.create_endpoint_config(aliases=[name] if number else [])
        return self.client.containers.create(
            service["image"],
            service["command"],
            name=container,
            entrypoint=service.get("entrypoint"),
            labels={_PROJECT: self.name, _SERVICE: name if number else "", _NUMBER: str(number)},
            network=self._network,
            networking_config={self._network: endpoint},
            cap_drop=service["cap_drop"],
            healthcheck=_health(service.get("healthcheck")),
            init=service["init"],
            log_config=LogConfig(type=logging["driver"], config=logging["options"]),
            mem_limit=limits["memory"],
            nano_cpus=int(float(limits["cpus"]) * 10**9),
            pids_limit=limits["pids"],
            ports=dict(map(_port, service.get("ports", []))) if number else {},
            read_only=service["read_only"],
            restart_policy={"Name": service["restart"]} if number else None,
            security_opt=service["security_opt"],
            shm_size=service.get("shm_size"),
            stop_signal=service.get("stop_signal"),
            tmpfs=dict(each.partition(":")[::2] for each in service["tmpfs"]),
            volumes=list(self._mounts(service.get("volumes", []))),
        )

    def _mounts(self, texts: list[str]) -> Iterator[str]:
        for text in texts:
            source, _, rest = text.partition(":")
            if source.startswith("./"):
                path = self.folder / source
                assert path.exists(), path
                yield f"{path.resolve()}:{rest}"
            else:
                assert source in self._volumes
                name = f"{self.name}_{source}"
                self.client.volumes.create(name, labels={_PROJECT: self.name})
                yield f"{name}:{rest}"


def _health(declared: Mapping[str, Any] | None) -> Healthcheck | None:
    if declared is None:
        return None
    times = {name: _seconds(declared[name]) * _SECOND_NS for name in ("interval", "timeout", "start_period")}
    assert set(declared) == {*times, "test", "retries"}
    return Healthcheck(test=declared["test"], retries=declared["retries"], **times)


def _seconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text[:-1])


def _port(text: str) -> tuple[str, tuple[str, int]]:
    host, published, inside = text.split(":")
    return f"{inside}/tcp", (host, int(published))
