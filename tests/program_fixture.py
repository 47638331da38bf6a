"""
PostgreSQL and Java as a machine could have them, for tests of `rowcast up --parts system`.

They stand below the system's folder for temporary files, as the account that runs PostgreSQL for root may not
enter pytest's own folders.
"""

from __future__ import annotations

import io
import platform
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rowcast.local.jars import ensure_jars, listed_jars
from rowcast.local.java import bundled_java
from rowcast.local.postgres import bundled_postgres

_LIST = Path(__file__).with_name("postgres.sha256")
_MACHINE = ("Linux", "x86_64")
VERSIONS = {jar.version.split(".")[0]: jar for jar in listed_jars(_LIST.read_text())}


@dataclass(frozen=True)
class Installed:
    """Programs below *folder*: *postgres_bin* and *java_home* as `rowcast up` takes them."""

    folder: Path
    postgres_bin: Path
    java_home: Path

    @property
    def options(self) -> list[str]:
        """The options of `rowcast up`."""
        return ["--parts", "system", "--postgres-bin", str(self.postgres_bin), "--java-home", str(self.java_home)]


@pytest.fixture(scope="session")
def reachable() -> Iterator[Path]:
    """A folder that every account may enter; deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="rowcast-programs-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def second_copy(reachable: Path) -> Installed:
    """The bundled PostgreSQL and Java once more, in another place."""
    root, runtime = Path(bundled_postgres().folder).parent, Path(bundled_java().folder).parent
    package, folder = root.parent, reachable / "copy"
    shutil.copytree(root, folder / package.name / root.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # where the wheel's programs look for them
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    shutil.copytree(runtime, folder / "java", symlinks=True)
    return Installed(folder, folder / package.name / root.name / "bin", folder / "java")


def unpack_postgres(major: str, reachable: Path) -> Path:
    """The folder with the programs of PostgreSQL *major*, downloaded once per machine; fails where they cannot run."""
    machine = (platform.system(), platform.machine())
    if machine != _MACHINE:
        pytest.fail(
            f"PostgreSQL {major}: the listed programs are for {' '.join(_MACHINE)}, this is {' '.join(machine)}"
        )
    jars = ensure_jars(print, jars=tuple(VERSIONS.values()))
    with zipfile.ZipFile(jars.root / VERSIONS[major].path) as jar:
        packed = next(name for name in jar.namelist() if name.endswith(".txz"))
        archive = io.BytesIO(jar.read(packed))
    folder = reachable / f"postgres-{major}"
    with tarfile.open(fileobj=archive, mode="r:xz") as opened:
        opened.extractall(folder, filter="data")
    return folder / "bin"
