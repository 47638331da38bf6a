"""
A Docker engine for tests: the one that answers, else one of our own, else a failure that says what to install.

What is made here stays for the next run, in the user's cache: the engine's images, layers of builds included, and the
base image, which is made by debootstrap where no image registry answers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from stack_fixture import wait_until

from rowcast.local.jars import cache_folder

_OWN_BASE = "rowcast-base:bookworm"
_ARCHIVE = "/etc/ssl/certs/ca-certificates.crt"
_AUTHORITIES = Path("/usr/local/share/ca-certificates")  # of this machine's network, if it has its own
_START_S = 120
_INSTALL = "install them: apt-get install docker.io debootstrap"


@contextmanager
def running_engine() -> Iterator[docker.DockerClient]:
    """A client of an engine that runs meanwhile; fails where there is none and none can be started."""
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        missing = [each for each in ("dockerd", "containerd", "runc") if shutil.which(each) is None]
        if missing or os.geteuid() != 0:
            lack = f"not on PATH: {', '.join(missing)}" if missing else "only root can start one"
            pytest.fail(f"no Docker engine answers ({error}), and {lack}; start one, or {_INSTALL}", pytrace=False)
        with _own_engine() as client:
            yield client
    else:
        with closing(client):
            yield client


@contextmanager
def _own_engine() -> Iterator[docker.DockerClient]:
    # A socket's path has to be short.
    with tempfile.TemporaryDirectory(prefix="rowcast-engine-") as scratch:
        socket, log = Path(scratch, "docker.sock"), Path(scratch, "dockerd.log")
        arguments = [
            "dockerd",
            f"--host=unix://{socket}",
            f"--data-root={cache_folder() / 'engine'}",
            f"--exec-root={scratch}/exec",
            f"--pidfile={scratch}/dockerd.pid",
            "--storage-driver=overlay2",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:

            def dialled() -> docker.DockerClient | None:
                assert process.poll() is None, f"dockerd ended: {log.read_text()[-3000:]}"
                try:
                    return docker.DockerClient(f"unix://{socket}", timeout=600)
                except DockerException:
                    return None

            with closing(wait_until(dialled, "dockerd answers", _START_S)) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def base_image(client: docker.DockerClient, wanted: str) -> str:
    """The name under which the engine has the image *wanted*, or one of the same release of Debian made here."""
    for name in (wanted, _OWN_BASE):
        try:
            client.images.get(name)
        except ImageNotFound:
            continue
        return name
    try:
        client.images.pull(wanted)
    except DockerException as error:
        return _make_base(client, f"{wanted} cannot be pulled ({error})")
    return wanted


def _make_base(client: docker.DockerClient, why: str) -> str:
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.fail(f"{why}, and debootstrap cannot be run here as root; {_INSTALL}", pytrace=False)
    print(f"{why}: making {_OWN_BASE} by debootstrap")
    with tempfile.TemporaryDirectory(prefix="rowcast-base-", dir="/var/tmp") as folder:
        root, packed = Path(folder, "root"), Path(folder, "root.tar")
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(root)], check=True, timeout=900)
        shutil.rmtree(root / "var/cache/apt/archives")
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        environment = {}
        if _AUTHORITIES.is_dir():
            shutil.copytree(_AUTHORITIES, root / _AUTHORITIES.relative_to("/"), dirs_exist_ok=True)
            environment = dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), _ARCHIVE)
        subprocess.run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(packed), "."], check=True, timeout=300)
        repository, tag = _OWN_BASE.split(":")
        changes = [f"ENV {name}={value}" for name, value in environment.items()]
        said = client.api.import_image_from_file(str(packed), repository, tag, changes=changes)
    assert "error" not in json.loads(said.splitlines()[-1]), said
    return _OWN_BASE
