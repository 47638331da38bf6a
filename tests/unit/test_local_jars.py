"""The list of jars: only what it names is loaded, and only with the right content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rowcast.errors import ConfigurationError
from rowcast.local.jars import Jar, cache_folder, ensure_jars, listed_jars
from rowcast.local.part import silent

_CONTENT = b"content of a jar"
_JAR = Jar("libs", "org.example", "thing", "1.0", hashlib.sha256(_CONTENT).hexdigest())


@pytest.fixture
def filled_cache(tmp_path: Path) -> Path:
    """A cache in which the one listed jar already stands."""
    target = _root(tmp_path) / _JAR.path
    target.parent.mkdir(parents=True)
    target.write_bytes(_CONTENT)
    return tmp_path


def _root(cache: Path) -> Path:
    """The folder of the list, which an empty list of another content does not share."""
    identity = hashlib.sha256(f"{_JAR.sha256} {_JAR.path}".encode()).hexdigest()[:16]
    return cache / "jars" / identity


def test_cached_jars_are_used_without_a_download(filled_cache: Path) -> None:
    """A complete cache is used as it is: nothing is fetched, and the download took no time."""
    folder = ensure_jars(silent, filled_cache, (_JAR,))

    assert folder.download_s == 0
    assert folder.classpath == str(_root(filled_cache) / "libs" / "thing-1.0.jar")


def test_tampered_jar_is_refused(filled_cache: Path) -> None:
    """A jar in the cache whose content differs from the list is refused and named."""
    jar = _root(filled_cache) / _JAR.path
    jar.write_bytes(_CONTENT + b"!")

    with pytest.raises(ConfigurationError, match=r"thing-1\.0\.jar: SHA-256 is [0-9a-f]{64}, the list says"):
        ensure_jars(silent, filled_cache, (_JAR,))


def test_unlisted_jar_is_refused(filled_cache: Path) -> None:
    """A jar that the list does not name is refused, as Connect would load it from the plugin folder."""
    stray = _root(filled_cache) / "plugins" / "stray.jar"
    stray.parent.mkdir()
    stray.write_bytes(b"")

    with pytest.raises(ConfigurationError, match=r"stray\.jar: this jar is not on the list"):
        ensure_jars(silent, filled_cache, (_JAR,))


def test_list_of_the_distribution_is_complete() -> None:
    """The shipped list fixes every version and names Kafka, Connect and the connector in its plugin folder."""
    jars = listed_jars()
    places = {str(jar.path) for jar in jars}

    assert {"libs/kafka_2.13-4.3.1.jar", "libs/connect-runtime-4.3.1.jar"} <= places
    assert "plugins/debezium-connector-postgres/debezium-connector-postgres-3.7.0.Final.jar" in places
    assert len(places) == len(jars)
    assert all(len(jar.sha256) == 64 for jar in jars)


def test_malformed_list_names_its_line() -> None:
    """A line that is no list entry is refused with its number."""
    with pytest.raises(ConfigurationError, match=r"jars\.sha256:2"):
        listed_jars(f"{'0' * 64}  libs/a:b:1\nnonsense")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ROWCAST_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/rowcast")),
        ({}, Path.home() / ".cache/rowcast"),
    ],
)
def test_cache_folder(environ: dict[str, str], expected: Path) -> None:
    """The cache is where ROWCAST_CACHE says, else below XDG_CACHE_HOME, else below the home folder."""
    assert cache_folder(environ) == expected
