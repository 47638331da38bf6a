"""Dockerfile and compose file without an engine: the settings of `rowcast up`, pinned, limited, without privileges."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from rowcast.cli.main import main
from rowcast.draft.containers import Kind, container_files
from rowcast.local.connect import ConnectPart
from rowcast.local.jars import JarFolder
from rowcast.local.kafka import KafkaPart
from rowcast.local.postgres import PostgresPart
from rowcast.local.site import CONTAINER_PORTS, LOOPBACK, Site, container_site
from rowcast.local.state import StackState

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS: tuple[Kind, ...] = ("demo", "project")
# Where a server listens and whom it may read from: nothing else may differ.
ADDRESSES = {
    "postgres": {"listen_addresses", "hba_file"},
    "kafka": {"listeners", "advertised.listeners", "listener.security.protocol.map"},
    "connect": {
        "bootstrap.servers",
        "config.providers.file.param.allowed.paths",
        "group.id",
        "listeners",
        "rest.advertised.host.name",
    },
}


def text_of(kind: Kind, name: str) -> str:
    """A file of *kind*."""
    return container_files(kind)[PurePosixPath(name)]


def services(kind: Kind) -> dict[str, Any]:
    """The services of the compose file of *kind*."""
    found: dict[str, Any] = yaml.safe_load(text_of(kind, "docker-compose.yml"))["services"]
    return found


def settings(part: str, folder: Path, site: Site) -> dict[str, Any]:
    """The settings with which *part* is started at *site*."""
    state, jars = StackState(folder), JarFolder(folder, ())
    state.create()
    for name, port in CONTAINER_PORTS.items():
        state.put(f"port.{name}", port)
    if part == "postgres":
        return dict(PostgresPart(state, site).settings())
    return (KafkaPart if part == "kafka" else ConnectPart)(state, jars, site).settings()


@pytest.mark.parametrize("part", ADDRESSES)
def test_a_part_in_a_container_has_the_settings_of_the_embedded_one(part: str, tmp_path: Path) -> None:
    """From the same code: only addresses differ."""
    embedded = settings(part, tmp_path, LOOPBACK)
    contained = settings(part, tmp_path, container_site({"kafka": "127.0.0.1:19092"}))

    assert {name for name in {**embedded, **contained} if embedded.get(name) != contained.get(name)} == ADDRESSES[part]
    assert len(embedded) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_compose_file_starts_the_parts_by_their_names_and_ports(kind: Kind) -> None:
    """It adds no settings of its own: the verb is given nothing but addresses for clients outside."""
    for part in ("postgres", "kafka", "connect"):
        service = services(kind)[part]

        assert service["command"][:4] == ["rowcast", "part", "run", part]
        assert all(option.startswith("--published=") for option in service["command"][4:])
        assert "environment" not in service
        assert service["ports"][0].rpartition(":")[2].rstrip("}") in {str(CONTAINER_PORTS[part]), "-19092"}
        assert service["ports"][0].startswith("127.0.0.1:")


@pytest.mark.parametrize("kind", KINDS)
def test_every_service_is_limited_and_has_no_privileges(kind: Kind) -> None:
    """Memory, processors and processes are bounded, the file system is read-only, and whoever serves is asked."""
    for name, service in services(kind).items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "user" not in service, name  # the image's own
        lasting = service["restart"] == "unless-stopped"
        assert ("healthcheck" in service) == lasting, name
    assert services(kind)["worker"]["deploy"]["replicas"] == 2
    assert ("orders" in services(kind)) == (kind == "demo")


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_is_pinned_and_its_processes_are_nobody_s(kind: Kind) -> None:
    """The base by digest, packages by hash, jars by SHA-256; no address of a registry, and a user of its own."""
    dockerfile = text_of(kind, "Dockerfile")
    pip = [each for each in re.split(r"&&|\n(?=[A-Z])", dockerfile) if re.search(r"pip install", each)]

    assert re.findall(r"^ARG BASE=(.*)$", dockerfile, re.MULTILINE)[0].count("@sha256:") == 1
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}", "python", "packages"}
    assert all("--require-hashes" in each or "--no-deps" in each for each in pip)
    assert "rowcast.local.jars" in dockerfile
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert [text for text in container_files(kind).values() if "://" in text or "latest" in text] == []


def test_the_files_of_the_repository_are_made_from_the_same_text() -> None:
    """After a change: `python -m rowcast.draft.containers`."""
    for path, text in container_files("demo").items():
        assert (REPOSITORY / path).read_text() == text, path


def locked(path: str) -> dict[str, set[str]]:
    """The hashes of each pinned package of a lock."""
    entries = re.findall(
        r"^(\S+==\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", (REPOSITORY / path).read_text(), re.MULTILINE
    )
    return {name: set(re.findall(r"--hash=(\S+)", hashes)) for name, hashes in entries}


@pytest.mark.parametrize("path", ["rowcast/draft/frame/requirements.txt", "requirements/build.txt"])
def test_the_image_is_made_of_the_packages_that_are_tested(path: str) -> None:
    """Each of its packages has version and hashes of the lock that the tests run on, and none is of tests alone."""
    tested, image = locked("requirements/dev.txt"), locked(path)

    assert len(image) > 3
    assert {name: hashes for name, hashes in image.items() if tested.get(name) != hashes} == {}
    assert not {"pytest", "ruff", "docker"} & {name.partition("==")[0] for name in image}
    assert "://" not in (REPOSITORY / path).read_text()


@pytest.mark.parametrize("address", ["kafka", "kafka=19092", "kafka=host:", "zookeeper=host:1", "kafka=host:x"])
def test_a_published_address_that_is_none_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is made."""
    assert main(["part", "run", "kafka", "--published", address]) == 2
    assert "--published" in capsys.readouterr().err
