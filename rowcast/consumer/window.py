"""What the broker says of the topics: their own ids, and the age after which they may be compacted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import TopicAuthorizationFailedError

from rowcast.consumer.connection import broker_errors

_REFRESH_S = 3600.0
_COMPACTION = "compact"


@dataclass(frozen=True, slots=True)
class Topic:
    """*window_ms* is ``min.compaction.lag.ms``; None: the topic is not compacted, and every gap is loss."""

    topic_id: str | None
    window_ms: int | None


class Topics:
    """The topics' facts, read from the broker at the first need, hourly, and before a gap is called loss."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._known: dict[str, Topic] = {}
        self._read_at: dict[str, float] = {}

    def learn(self, names: Iterable[str], max_age_s: float = _REFRESH_S) -> None:
        """
        Reads what is not known or older than *max_age_s*.

        Raises:
            BrokerUnavailableError: no answer, or a topic does not exist.
            ConfigurationError: this client may not describe the topics.
        """
        now = time.monotonic()
        old = sorted(name for name in names if now - self._read_at.get(name, -max_age_s) >= max_age_s)
        if not old:
            return
        with broker_errors("describing topics", self._options):
            admin = KafkaAdminClient(**self._options)
            try:
                configurations = admin.describe_configs(
                    [ConfigResource(ConfigResourceType.TOPIC, name) for name in old], config_filter="all"
                )
                described = {each["name"]: each for each in admin.describe_topics(old)}
            finally:
                admin.close()
            for name in old:
                if not configurations["topic"].get(name):  # the library takes a refusal for a topic without settings
                    raise TopicAuthorizationFailedError(name)
        for name in old:
            self._known[name] = _topic(described[name], configurations["topic"][name])
            self._read_at[name] = now

    def __getitem__(self, name: str) -> Topic:
        return self._known[name]


def _topic(described: Mapping[str, Any], configuration: Mapping[str, Mapping[str, Any]]) -> Topic:
    compacted = _COMPACTION in str(configuration["cleanup.policy"]["value"])
    window_ms = int(configuration["min.compaction.lag.ms"]["value"]) if compacted else None
    topic_id = described.get("topic_id")
    return Topic(str(topic_id) if topic_id else None, window_ms)
