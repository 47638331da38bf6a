"""
The topics of a source: which there have to be, with which settings, and what has to change.

Partition count and replication factor are fixed at creation: a difference is refused, because another count
sends keys to other partitions and breaks their order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka.admin import ConfigResource, KafkaAdminClient
from kafka.errors import KafkaError, for_code

from rowcast.brokers import Brokers
from rowcast.errors import BrokerUnavailableError, ConfigurationError
from rowcast.kafka_fault import refused_right, why_unreachable
from rowcast.sources.change import Change, Note, Step, Tell, untold
from rowcast.sources.connector import MESSAGE_BYTES_MAX
from rowcast.sources.definition import SourceDefinition
from rowcast.topics import PROGRESS_TOPIC

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_EVENT_BYTES_MAX = 2 * 1024 * 1024
# Error codes of the Kafka protocol.
_OK, _UNKNOWN_TOPIC, _TOPIC_REFUSED, _TOPIC_EXISTS = 0, 3, 29, 36
_CREATION_FIX = "another number in topics of the source file, or what the brokers' policy asks for"
_TIMEOUT_MS = 15_000
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it has to be, or as it is: then *in_sync* has the fewest replicas in sync of a partition."""

    name: str
    partitions: int
    replication_factor: int
    settings: Mapping[str, str]
    in_sync: int | None = None


def wanted_topics(definition: SourceDefinition) -> tuple[Topic, ...]:
    """Change log, domain topics and the progress topic of a source."""
    factor = definition.replication_factor
    domain = _settings(factor, _domain_settings(definition.events_window_ms))
    return (
        Topic(definition.change_log, 1, factor, _settings(factor, _change_log_settings(definition))),
        *(Topic(each, definition.partitions, factor, domain) for each in definition.topics),
        Topic(PROGRESS_TOPIC, 1, factor, _settings(factor, {"cleanup.policy": "compact"})),
    )


def _settings(replication_factor: int, own: Mapping[str, str]) -> dict[str, str]:
    return {
        # An acknowledged record is on two brokers where there are enough of them.
        "min.insync.replicas": "2" if replication_factor > 2 else "1",
        "unclean.leader.election.enable": "false",  # a replica that missed records never leads
        **own,
    }


def _change_log_settings(definition: SourceDefinition) -> dict[str, str]:
    window_ms = definition.change_log_window_ms
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(window_ms),
        "retention.bytes": "-1",  # time alone decides: a burst must not push out what was not read
        # Retention drops whole segments: the log is at most this much longer than its window.
        "segment.ms": str(min(_DAY_MS, max(_HOUR_MS, window_ms // 7))),
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
    }


def _domain_settings(window_ms: int) -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(window_ms),  # the full history stays readable this long
        "delete.retention.ms": str(window_ms),
        # Only closed segments are compacted. Append time, so that old commit times close none early.
        "segment.ms": str(min(_DAY_MS, max(_HOUR_MS, window_ms // 7))),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(_EVENT_BYTES_MAX),
    }


class TopicAdmin:
    """The brokers' administration, with errors of this project; use it as a context manager."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers
        self._bootstrapped = False
        with self.errors():
            self.client = KafkaAdminClient(
                **brokers.kafka_python(),
                client_id="rowcast-sources",
                bootstrap_timeout_ms=_TIMEOUT_MS,
                request_timeout_ms=_TIMEOUT_MS,
            )
        self._bootstrapped = True

    def __enter__(self) -> TopicAdmin:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()

    @contextmanager
    def errors(self, resource: str = "") -> Iterator[None]:
        """
        Turn errors of the Kafka client into those of this project; *resource* is what it is asked for.

        Raises:
            ConfigurationError: the brokers refuse a right.
            BrokerUnavailableError: anything else.

        """
        try:
            yield
        except KafkaError as error:
            self.refuse_right(getattr(error, "errno", None), resource)
            reason = None if self._bootstrapped else why_unreachable(self.brokers)
            raise BrokerUnavailableError(f"Kafka at {self.brokers}: {reason or error}") from error

    def refuse_right(self, code: int | None, resource: str) -> None:
        """Raise what an error *code* says about a right that is missing, if it does."""
        refused = refused_right(code, self.brokers, resource)
        if refused is not None:
            raise ConfigurationError(refused, where="Kafka")

    def brokers_alive(self) -> int:
        """How many brokers there are."""
        with self.errors():
            return sum(not broker.get("is_fenced") for broker in self.client.describe_cluster()["brokers"])

    def present(self, names: Sequence[str]) -> dict[str, Topic]:
        """The topics of these names that exist, with all settings."""
        with self.errors(f"topics {', '.join(names)}"):
            found = [each for each in self.client.describe_topics(list(names)) if each["error_code"] != _UNKNOWN_TOPIC]
            for each in found:
                self.refuse_right(each["error_code"], f"topic {each['name']}")
            resources = [ConfigResource("TOPIC", each["name"]) for each in found]
            settings = self.client.describe_configs(resources, config_filter="all")["topic"] if resources else {}
        for each in found:
            if not settings.get(each["name"]):  # the library takes a refusal for a topic without settings
                self.refuse_right(_TOPIC_REFUSED, f"topic {each['name']}")
        return {each["name"]: _present(each, settings[each["name"]]) for each in found}

    def refuse_uncreatable(self, topics: Sequence[Topic]) -> None:
        """
        Ask the brokers whether they would create *topics*; nothing is created.

        Raises:
            ConfigurationError: they would not: a right is missing, or a policy of theirs forbids it.

        """
        if not topics:
            return
        with self.errors():
            answer = self.client.create_topics(
                {each.name: _entry(each) for each in topics}, validate_only=True, raise_errors=False
            )
        for topic in answer["topics"]:
            self.refuse_right(topic["error_code"], f"topic {topic['name']}")
            if topic["error_code"] not in (_OK, _TOPIC_EXISTS):
                reason = topic["error_message"] or for_code(topic["error_code"]).__name__
                message = f"the brokers would not create it: {reason}"
                raise ConfigurationError(message, where=f"topic {topic['name']}", fix=_CREATION_FIX)

    def create(self, topic: Topic) -> None:
        """Create a topic and wait until it has leaders."""
        with self.errors(f"topic {topic.name}"):
            self.client.create_topics({topic.name: _entry(topic)}, wait_for_metadata=True)

    def alter(self, name: str, settings: Mapping[str, str]) -> None:
        """
        Set settings of a topic and wait until the brokers show them: they take effect a little later.

        Raises:
            ConfigurationError: the brokers refuse one.
            BrokerUnavailableError: they do not show them in time.

        """
        with self.errors(f"topic {name}"):
            outcome = self.client.alter_configs([ConfigResource("TOPIC", name, dict(settings))])["topic"][name]
        if outcome != "OK":
            raise ConfigurationError(f"the brokers refuse its settings: {outcome}", where=f"topic {name}")
        deadline = time.monotonic() + _TIMEOUT_MS / 1000
        while not settings.items() <= self.present([name])[name].settings.items():
            if time.monotonic() > deadline:
                raise BrokerUnavailableError(f"topic {name}: new settings do not take effect")
            time.sleep(_PAUSE_S)

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics."""
        with self.errors():
            self.client.delete_topics(list(names))


def _entry(topic: Topic) -> dict[str, object]:
    return {
        "num_partitions": topic.partitions,
        "replication_factor": topic.replication_factor,
        "configs": dict(topic.settings),
    }


def _present(found: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> Topic:
    partitions = found["partitions"]
    return Topic(
        name=found["name"],
        partitions=len(partitions),
        replication_factor=min((len(each["replica_nodes"]) for each in partitions), default=0),
        settings={name: entry["value"] for name, entry in settings.items()},
        in_sync=min((len(each["isr_nodes"]) for each in partitions), default=0),
    )


def plan_topics(definition: SourceDefinition, admin: TopicAdmin, tell: Tell = untold) -> list[Step]:
    """
    What has to change in Kafka for a source; *tell* hears of topics that cannot be written to now.

    Raises:
        ConfigurationError: a topic exists with another partition count or replication factor, or there are
            fewer brokers than the replication factor.

    """
    wanted = wanted_topics(definition)
    present = admin.present([topic.name for topic in wanted])
    missing = [topic for topic in wanted if topic.name not in present]
    for topic in missing:
        _refuse_few_brokers(topic, admin)
    admin.refuse_uncreatable(missing)
    steps = []
    for topic in wanted:
        found = present.get(topic.name)
        if found is None:
            reason = f"{topic.partitions} partitions, {topic.settings['cleanup.policy']}"
            change = Change(definition.source, "topics", "create", f"topic {topic.name}", reason)
            steps.append(Step(change, partial(admin.create, topic)))
        else:
            steps.extend(_alterations(definition.source, topic, found, admin))
            if (note := few_in_sync(definition.source, found)) is not None:
                tell(note)
    return steps


def _refuse_few_brokers(topic: Topic, admin: TopicAdmin) -> None:
    alive = admin.brokers_alive()
    if alive < topic.replication_factor:
        raise ConfigurationError(
            f"replication factor {topic.replication_factor} needs as many brokers; there are {alive}",
            where=f"topic {topic.name}",
            fix="lower topics.replication_factor in the source file, or add brokers",
        )


def few_in_sync(source: str, found: Topic) -> Note | None:
    """That a topic has fewer replicas in sync than a write needs; None where it has enough."""
    least = int(found.settings.get("min.insync.replicas") or 1)
    if found.in_sync is None or found.in_sync >= least:
        return None
    message = f"a partition has {found.in_sync} replicas in sync and needs {least}: it takes no records now"
    return Note(source, f"topic {found.name}", message, "start the brokers that are down, or reassign its partitions")


def _alterations(source: str, topic: Topic, found: Topic, admin: TopicAdmin) -> Iterator[Step]:
    shared = topic.name == PROGRESS_TOPIC  # created by the first source; each may declare its own factor
    if found.partitions != topic.partitions:
        raise ConfigurationError(
            f"has {found.partitions} partitions, {topic.partitions} are declared; another count would break the order"
            " of every key",
            where=f"topic {topic.name}",
            fix=f"declare topics.partitions: {found.partitions}" if topic.partitions > 1 else "delete the topic",
        )
    if found.replication_factor != topic.replication_factor and not shared:
        raise ConfigurationError(
            f"has replication factor {found.replication_factor}, {topic.replication_factor} is declared",
            where=f"topic {topic.name}",
            fix=f"declare topics.replication_factor: {found.replication_factor}, or reassign its partitions",
        )
    settings = dict(topic.settings)
    if shared:
        settings |= _settings(found.replication_factor, {})
    drifted = {name: value for name, value in settings.items() if found.settings.get(name) != value}
    if drifted:
        reason = ", ".join(f"{name} {found.settings.get(name)} → {value}" for name, value in sorted(drifted.items()))
        change = Change(source, "topics", "alter", f"topic {topic.name}", reason)
        yield Step(change, partial(admin.alter, topic.name, drifted))
