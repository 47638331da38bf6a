"""
Writes the list of jars anew: ``python -m rowcast.local.lock > rowcast/local/jars.sha256``.

For whoever raises a version, not for users: resolves Kafka, Connect and Debezium with their dependencies,
downloads every jar and prints its SHA-256. What ``rowcast up`` then loads is this list and nothing else.
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path

from jgo.maven import Artifact, MavenContext
from jgo.maven._core import Dependency

KAFKA = "4.3.1"
DEBEZIUM = "3.7.0.Final"
LIBRARIES = (
    ("org.apache.kafka", "kafka_2.13", KAFKA),
    ("org.apache.kafka", "connect-runtime", KAFKA),
    ("org.apache.kafka", "connect-json", KAFKA),
    ("org.slf4j", "slf4j-simple", "1.7.36"),  # the binding for the slf4j version that Kafka 4.3 uses
)
CONNECTOR = ("io.debezium", "debezium-connector-postgres", DEBEZIUM)


def _resolved(context: MavenContext, roots: tuple[tuple[str, str, str], ...]) -> list[Artifact]:
    wanted = [Dependency(context.project(g, a).at_version(v).artifact(), scope="compile") for g, a, v in roots]
    inputs, transitive = context.resolver.resolve(wanted)
    return [dependency.artifact for dependency in (*inputs, *transitive)]


def _plugin_jars(context: MavenContext) -> list[Artifact]:
    """The jars of Debezium's own plugin archive: its dependencies without those that Connect provides."""
    group, name, version = CONNECTOR
    archive = context.project(group, name).at_version(version).artifact("plugin", "tar.gz").resolve()
    with tarfile.open(archive) as opened:
        packed = {Path(member.name).name for member in opened if member.name.endswith(".jar")}
    jars = [artifact for artifact in _resolved(context, (CONNECTOR,)) if artifact.filename in packed]
    missing = packed - {artifact.filename for artifact in jars}
    if missing:
        sys.exit(f"not among the resolved dependencies: {', '.join(sorted(missing))}")
    return jars


def _line(folder: str, artifact: Artifact) -> str:
    digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
    return f"{digest}  {folder}/{artifact.groupId}:{artifact.artifactId}:{artifact.version}"


def main() -> None:
    """Print the list, sorted, so that a change of version is a readable difference."""
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder), timeout=60)
        lines = [_line("libs", artifact) for artifact in _resolved(context, LIBRARIES)]
        lines += [_line(f"plugins/{CONNECTOR[1]}", artifact) for artifact in _plugin_jars(context)]
    print("# sha256  folder/group:artifact:version of every jar that the embedded stack loads.")
    print("# Written by: python -m rowcast.local.lock")
    print(*sorted(set(lines), key=lambda line: line.split()[1]), sep="\n")


if __name__ == "__main__":
    main()
