"""
What each part has to be allowed in Kafka, and no more: the source of ``rowcast sources plan --acl``.

Reading, writing and altering a resource let its user describe it, too, so that is not said again. Names are whole: a
new aggregate is a new topic, and needs the list again.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rowcast.acl_settings import AclSettings
from rowcast.contracts.consumer_part import FOLDER, part_files
from rowcast.errors import ConfigurationError
from rowcast.settings import Settings
from rowcast.sources.connector import connector_name, transactional_id, worker_group
from rowcast.sources.declared_contract import contracts_of
from rowcast.sources.source_file import SourceFile
from rowcast.topics import PROGRESS_TOPIC, change_log_topic, domain_topic

TOPIC, GROUP, TRANSACTIONAL_ID = "topic", "group", "transactional-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """*principal*, who is *role*, may do *operations* with the resources called *names*, all of one *kind*."""

    role: str
    principal: str
    kind: str
    names: tuple[str, ...]
    operations: tuple[str, ...]

    def command(self, servers: str) -> str:
        """The call of ``kafka-acls.sh`` that allows it; calling it again changes nothing."""
        words = ["kafka-acls.sh", "--bootstrap-server", servers, "--command-config", "admin.properties", "--add"]
        words += ["--allow-principal", self.principal]
        words += [word for operation in self.operations for word in ("--operation", operation)]
        words += [word for name in self.names for word in (f"--{self.kind}", name)]
        return shlex.join(words)


def accesses(sources: Iterable[SourceFile], settings: Settings) -> list[Access]:
    """
    What `apply`, workers, Connect and the known consumers need for *sources*. Asks nobody.

    Raises:
        ConfigurationError: a contract is missing, or it is not known what a consumer reads.

    """
    topics = {source.source: _domain_topics(source, settings) for source in sources}
    acl = settings.acl
    published = [topic for each in topics.values() for topic in each]
    return [
        *_commands(acl, topics, published),
        *_workers(acl, topics, published),
        *_connect(acl, topics),
        *_consumers(acl, settings.project / FOLDER, published),
    ]


def _domain_topics(source: SourceFile, settings: Settings) -> list[str]:
    contracts = contracts_of(source, settings)
    return [
        domain_topic(source.domain, entry.name, major)
        for entry in source.aggregates
        for major in (contracts[entry.name].major, *(each.contract[0] for each in entry.former))
    ]


def _commands(acl: AclSettings, sources: Iterable[str], published: list[str]) -> Iterator[Access]:
    logs = [change_log_topic(source) for source in sources]
    yield _access("apply and commands", acl.apply, TOPIC, [*logs, PROGRESS_TOPIC], "Create", "Describe", "AlterConfigs")
    yield _access("apply and commands", acl.apply, TOPIC, published, "Create", "Read", "AlterConfigs")


def _workers(acl: AclSettings, sources: Iterable[str], published: list[str]) -> Iterator[Access]:
    names = list(sources)
    yield _access("workers", acl.worker, TOPIC, [change_log_topic(source) for source in names], "Read")
    yield _access("workers", acl.worker, TOPIC, published, "Read", "Write")
    yield _access("workers", acl.worker, TOPIC, [PROGRESS_TOPIC], "Write")
    yield _access("workers", acl.worker, GROUP, [worker_group(source) for source in names], "Describe")
    yield _access("workers", acl.worker, TRANSACTIONAL_ID, [transactional_id(source) for source in names], "Write")


def _connect(acl: AclSettings, sources: Iterable[str]) -> Iterator[Access]:
    names = list(sources)
    role, group = "Kafka Connect", acl.connect_group
    yield _access(role, acl.connect, TOPIC, acl.connect_topics, "Create", "Read", "Write", "DescribeConfigs")
    yield _access(role, acl.connect, GROUP, [group], "Read")
    yield _access(role, acl.connect, TOPIC, [change_log_topic(source) for source in names], "Write")
    # That of the worker that leads the group, and that of each connector's only task: exactly-once support.
    ids = [f"connect-cluster-{group}", *(f"{group}-{connector_name(source)}-0" for source in names)]
    yield _access(role, acl.connect, TRANSACTIONAL_ID, ids, "Write")


def _consumers(acl: AclSettings, folder: Path, published: list[str]) -> Iterator[Access]:
    parts: dict[str, list[str]] = {}
    for path, name in part_files(folder):
        if name is not None:
            parts.setdefault(path.parent.name, []).append(path.name.removesuffix(".json"))
    for consumer in sorted({*parts, *acl.consumers}):
        declared = acl.consumers.get(consumer)
        events = parts.get(consumer, []) if declared is None or declared.events is None else list(declared.events)
        if not events:
            raise ConfigurationError(
                "it is not known what it reads",
                where=f"rowcast.toml: acl.consumers.{consumer}",
                fix=f'{{principal = "…", events = ["{published[0]}"]}}, or its parts in {FOLDER}/{consumer}/',
            )
        topics = [each for each in events if each in published]
        if topics:
            principal = f"User:{consumer}" if declared is None else declared.principal
            yield _access(f"consumer {consumer}", principal, TOPIC, topics, "Read", "DescribeConfigs")
            yield _access(f"consumer {consumer}", principal, GROUP, [consumer], "Read")


def _access(role: str, principal: str, kind: str, names: Iterable[str], *operations: str) -> Access:
    return Access(role=role, principal=principal, kind=kind, names=tuple(names), operations=operations)


def script_lines(found: Iterable[Access], servers: str) -> Iterator[str]:
    """A shell script that allows all of it."""
    yield "# Run by who administers Kafka. Names of principals: section acl of rowcast.toml."
    role = ""
    for access in found:
        if access.role != role:
            role = access.role
            yield f"# {role}: {access.principal}"
        yield access.command(servers)
