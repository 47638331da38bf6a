"""
What somebody does who has the wheel, a database and the README that `rowcast init` writes, and no clone.

The wheel stands in an environment of its own; only what it depends on is taken from the one that runs the tests.
"""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from node_fixture import Reader
from stack_fixture import REPOSITORY, SharedStack, random_name, wait_until

# The three tables of Chinook that hang together, where the data itself is not there.
_MADE = """
CREATE TABLE artist (artist_id int PRIMARY KEY, name varchar(120));
CREATE TABLE album (album_id int PRIMARY KEY, title varchar(160) NOT NULL, artist_id int NOT NULL REFERENCES artist);
CREATE TABLE track (track_id int PRIMARY KEY, name varchar(200) NOT NULL, album_id int REFERENCES album,
  unit_price numeric(10,2) NOT NULL);
INSERT INTO artist VALUES (1, 'AC/DC'), (2, 'Motörhead');
INSERT INTO album VALUES (1, 'For Those About To Rock', 1), (2, 'Ace of Spades', 2);
INSERT INTO track SELECT n, 'Track ' || n, 1 + n % 2, 0.99 FROM generate_series(1, 50) n;
"""
TABLES = ("artist", "album", "track")


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
    python = folder / "venv/bin/python"
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    # What an editable installation adds to its path does not come along.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


class Newcomer:
    """Somebody in an empty *folder* with the wheel's *python*, and a *database* on the stack."""

    def __init__(self, stack: SharedStack, python: Path, folder: Path) -> None:
        self.folder, self.python = folder, python
        self.name = random_name("shop")
        self.database, control, service = (stack.new_database(each) for each in ("src", "ctl", "svc"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ROWCAST"))},
            "ROWCAST_BROKERS": stack.brokers,
            "ROWCAST_CONNECT_URL": stack.connect_url,
            "ROWCAST_DATABASE_ROWCAST": control.url,
            "ROWCAST_DATABASE_MY_SERVICE": service.url,
        }
        with psycopg.connect(self.database.url) as connection:
            connection.execute(_script().encode())
        entry = f'url = "{self.database.url}"\nconnect_password = "{self.database.connect_password}"\n'
        (folder / "rowcast.toml").write_text(f"[databases.{self.name}]\n{entry}")

    def run(self, *command: str, expected: int = 0) -> str:
        """Run `rowcast` with these arguments, and return what it prints."""
        whole = [str(self.python.with_name("rowcast")), *command]
        ended = subprocess.run(
            whole, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert ended.returncode == expected, ended.stdout + ended.stderr
        return ended.stdout

    @contextmanager
    def running(self, *command: str) -> Iterator[Path]:
        """A process of the environment's Python meanwhile; the file has what it prints."""
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".log") as log:
            process = subprocess.Popen(
                [str(self.python), "-u", *command],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield Path(log.name)
            finally:
                process.terminate()
                process.wait(30)


def _script() -> str:
    data = os.environ.get("ROWCAST_TEST_DATA")
    if not data:
        return _MADE
    script = Path(data, "databases/chinook/Chinook_PostgreSql.sql").read_text(encoding="utf-8")
    return re.sub(r"(?m)^(DROP DATABASE|CREATE DATABASE|\\c).*$", "", script)


@pytest.mark.slow
def test_a_newcomer_gets_from_init_to_a_consumer_of_three_aggregates(
    stack: SharedStack, wheel_python: Path, node_reader: Reader, tmp_path: Path
) -> None:
    """
    Each command of the README works in an empty folder, and its consumer sees every row and every later change; so does
    a client of another language.
    """
    newcomer = Newcomer(stack, wheel_python, tmp_path)
    imported = subprocess.run(
        [str(wheel_python), "-c", "import rowcast, stream_app; print(rowcast.__file__, stream_app.__file__)"],
        cwd=tmp_path,
        env=newcomer.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert str(REPOSITORY / "rowcast") not in imported.stdout
    assert "3 aggregates" in newcomer.run(
        "init", "--database", newcomer.name, *(f"--table={table}" for table in TABLES)
    )
    for path in tmp_path.glob("schemas/*/*/v1.0.json"):
        path.write_text(path.read_text().replace("unclassified", "none"))
    readme = (tmp_path / "README.md").read_text()
    for command in ("schemas derive", "schemas check", "schemas lint"):
        assert f"rowcast {command}" in readme
        newcomer.run(*command.split())
    newcomer.run("sources", "preview", newcomer.name, "--last", "1")
    newcomer.run("sources", "plan", expected=1)
    newcomer.run("sources", "apply")

    (consumer,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    decorators = "".join(f'@consumer.on("{newcomer.name}.{table}", major=1)\n' for table in TABLES)
    consumer, count = re.subn(r"@consumer\.on\(.*\n", decorators, consumer)
    assert count == 1
    (tmp_path / "service.py").write_text(consumer)
    with psycopg.connect(newcomer.database.url, autocommit=True) as connection:
        (rows,) = connection.execute("SELECT " + " + ".join(f"(SELECT count(*) FROM {each})" for each in TABLES))
        with newcomer.running("-m", "rowcast.cli.main", "worker"), newcomer.running("service.py") as log:
            wait_until(lambda: log.read_text().count(".snapshot.v1 ") == rows[0], "every row arrives", 60)
            connection.execute("UPDATE album SET artist_id = 2 WHERE album_id = 1")
            (moved,) = connection.execute("SELECT count(*) FROM track WHERE album_id = 1").fetchone() or ()
            wait_until(lambda: log.read_text().count(".updated.v1 ") == moved + 1, "the change arrives", 30)
            kinds = Counter(re.findall(r"^\S+?\.(\w+)\.snapshot", log.read_text(), re.MULTILINE))
            assert set(kinds) == set(TABLES)
            shown = newcomer.run("events", "show", f"{newcomer.name}.album", "album:1:2")
            assert '"artist_id": 2' in shown
            newcomer.run("sources", "status")
            now = connection.execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'").fetchone() or ()
            read = node_reader(stack.brokers, f"{newcomer.name}.album.v1", "168", f"{now[0].isoformat()}Z")
            albums = connection.execute("SELECT count(*) + 1 FROM album").fetchone() or ()
            assert (read.returncode, read.stdout.count("\n")) == (0, albums[0]), read.stderr
    newcomer.run("sources", "remove", newcomer.name, "--yes")
