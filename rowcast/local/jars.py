"""
The jars of the embedded stack: which ones, where they are kept, and that they are the right ones.

``jars.sha256`` beside this module names every jar with its SHA-256; nothing else is ever loaded and nothing is
resolved at run time. Jars are downloaded once per user and list; two processes at once share one download.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rowcast.errors import ConfigurationError
from rowcast.local.locks import held_lock
from rowcast.local.part import Progress
from rowcast.local.state import refuse_unusable

_DOWNLOADS_AT_ONCE = 8
_TRIES = 3
_LOCK_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the list: *folder* below the jar folder, Maven coordinate, SHA-256 in hexadecimal."""

    folder: str
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where it stands below the jar folder."""
        return Path(self.folder) / f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True, slots=True)
class JarFolder:
    """
    A folder with exactly the listed jars, all of them checked.

    *download_s* is how long this call took to download what was missing, 0 when nothing was.
    """

    root: Path
    jars: tuple[Jar, ...]
    download_s: float = 0.0

    @property
    def classpath(self) -> str:
        """Every server jar by name, so that a stray file in the folder is never loaded."""
        return ":".join(str(self.root / jar.path) for jar in self.jars if jar.folder == "libs")

    @property
    def plugins(self) -> Path:
        """Kafka Connect's plugin.path."""
        return self.root / "plugins"


def listed_jars(text: str | None = None) -> tuple[Jar, ...]:
    """
    The jars of the list *text*, by default the one that this distribution carries.

    Raises:
        ConfigurationError: a line is not ``sha256  folder/group:artifact:version``.

    """
    if text is None:
        text = files("rowcast.local").joinpath("jars.sha256").read_text()
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            sha256, place = line.split()
            folder, coordinate = place.rsplit("/", 1)
            group, artifact, version = coordinate.split(":")
        except ValueError as error:
            message = "not 'sha256  folder/group:artifact:version'"
            raise ConfigurationError(message, where=f"jars.sha256:{number}", fix="install rowcast again") from error
        jars.append(Jar(folder, group, artifact, version, sha256))
    return tuple(jars)


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The user's cache: ``$ROWCAST_CACHE``, ``$XDG_CACHE_HOME/rowcast`` or ``~/.cache/rowcast``."""
    environ = os.environ if environ is None else environ
    if environ.get("ROWCAST_CACHE"):
        return Path(environ["ROWCAST_CACHE"]).resolve()
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]).resolve() / "rowcast"
    return Path.home() / ".cache" / "rowcast"


def ensure_jars(progress: Progress, cache: Path | None = None, jars: tuple[Jar, ...] | None = None) -> JarFolder:
    """
    All listed jars, downloaded where they are missing, each checked against its SHA-256 every time.

    What was downloaded stays when the call is interrupted, and the next one goes on from there.

    Raises:
        ConfigurationError: a jar differs from its checksum, stands in the folder without being listed,
            or cannot be downloaded.

    """
    jars = listed_jars() if jars is None else jars
    cache = cache_folder() if cache is None else cache
    root = cache / "jars" / _list_id(jars)
    refuse_unusable(root)
    root.mkdir(parents=True, exist_ok=True)
    with held_lock(cache / "jars" / "lock", timeout_s=_LOCK_TIMEOUT_S, what="another download", progress=progress):
        for leftover in root.glob("download-*"):
            shutil.rmtree(leftover)
        _refuse_unlisted(root, jars)
        missing = [jar for jar in jars if not (root / jar.path).exists()]
        for jar in jars:
            if jar not in missing:
                _check(jar, root / jar.path)
        started_s = time.monotonic()
        if missing:
            _download_all(missing, root, progress)
    return JarFolder(root, jars, time.monotonic() - started_s if missing else 0.0)


def present_jars(cache: Path | None = None) -> JarFolder:
    """
    All listed jars from a folder that is complete, each checked against its SHA-256; nothing is written or downloaded.

    Raises:
        ConfigurationError: a jar is missing, differs from its checksum, or stands there without being listed.

    """
    jars = listed_jars()
    root = (cache_folder() if cache is None else cache) / "jars" / _list_id(jars)
    _refuse_unlisted(root, jars)
    for jar in jars:
        if not (root / jar.path).exists():
            fix = "build the image again: it was made for another list of jars"
            raise ConfigurationError("this jar is missing", where=str(root / jar.path), fix=fix)
        _check(jar, root / jar.path)
    return JarFolder(root, jars)


def _list_id(jars: tuple[Jar, ...]) -> str:
    """One folder for each list, so that versions of rowcast side by side do not disturb each other."""
    return hashlib.sha256("\n".join(f"{jar.sha256} {jar.path}" for jar in jars).encode()).hexdigest()[:16]


def _refuse_unlisted(root: Path, jars: tuple[Jar, ...]) -> None:
    strays = {path.relative_to(root) for path in root.rglob("*.jar")} - {jar.path for jar in jars}
    if strays:
        raise ConfigurationError(
            "this jar is not on the list of jars", where=str(root / min(strays)), fix="delete it and try again"
        )


def _check(jar: Jar, path: Path) -> None:
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != jar.sha256:
        raise ConfigurationError(
            f"SHA-256 is {digest}, the list says {jar.sha256}", where=str(path), fix="delete it and try again"
        )


def _download_all(missing: list[Jar], root: Path, progress: Progress) -> None:
    progress(f"downloading {len(missing)} jars to {root}")
    with (
        tempfile.TemporaryDirectory(prefix="download-", dir=root) as scratch,
        ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="jar") as pool,
    ):
        waiting: set[Future[int]] = {pool.submit(_download, jar, root, Path(scratch)) for jar in missing}
        done_bytes, told_s = 0, time.monotonic()
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                done_bytes += sum(future.result() for future in done)
                if time.monotonic() - told_s >= 1 or not waiting:
                    count, told_s = len(missing) - len(waiting), time.monotonic()
                    progress(f"downloaded {count} of {len(missing)} jars, {done_bytes / 1e6:.0f} MB")
        except BaseException:
            # Also for Ctrl-C: without this the pool would first fetch everything that is still queued.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(jar: Jar, root: Path, scratch: Path) -> int:
    """Fetch one jar beside its place, check it there, then move it in one step; returns its size in bytes."""
    import requests
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    mirrors = GlobalSettings.load().repositories
    context = MavenContext(repo_cache=scratch, timeout=60)
    # Mirrors that the user declared for jgo come first; the checksums make it unimportant who answers.
    context.remote_repos = {**mirrors, **context.remote_repos}
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    for attempt in range(1, _TRIES + 1):
        try:
            fetched = artifact.resolve()
            break
        except (requests.RequestException, OSError, RuntimeError) as error:
            if artifact.cached_path is not None:
                artifact.cached_path.unlink(missing_ok=True)
            if attempt == _TRIES:
                raise ConfigurationError(
                    f"cannot be downloaded: {error}",
                    where=f"{jar.group}:{jar.artifact}:{jar.version}",
                    fix="check the network, proxy and CA settings, then try again",
                ) from error
            time.sleep(attempt)
    _check(jar, fetched)
    size: int = fetched.stat().st_size
    (root / jar.path).parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(root / jar.path)
    return size


if __name__ == "__main__":
    # For the image: the jars are a layer of it, and nothing is downloaded when a container starts.
    print(ensure_jars(lambda line: print(line, flush=True)).root)
