"""
Topics of majors that ended: what they hold stays until somebody deletes them.

Rowcast deletes no events. What it can say is that nothing is written there any more, and who reads it still.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rowcast.errors import BrokerUnavailableError, ConfigurationError
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.topic_plan import TopicAdmin
from rowcast.sources.topic_readers import topic_readers


@dataclass(frozen=True, slots=True)
class LeftTopic:
    """A *topic* that *source* wrote and writes no more; *readers* are the consumer groups on it now, None: unknown."""

    source: str
    topic: str
    readers: tuple[str, ...] | None

    def __str__(self) -> str:
        now = f"it is read by {', '.join(self.readers)}" if self.readers else "nobody reads it now"
        return (
            f"{self.source}: topic {self.topic} gets no more events, and keeps those that it has;"
            f" {'who reads it is not known' if self.readers is None else now}."
            f" When they are not needed any more: kafka-topics.sh --bootstrap-server … --delete --topic {self.topic}"
        )


def left_topics(definition: SourceDefinition, admin: TopicAdmin) -> list[LeftTopic]:
    """The topics of other majors of the source's aggregates that exist and are not live; reads only."""
    with admin.errors():
        names = admin.client.list_topics()
    left = _others(definition, names)
    readers: dict[str, dict[str, int]] | None = {}
    try:
        readers = topic_readers(admin, left) if left else {}
    except (BrokerUnavailableError, ConfigurationError):
        readers = None  # groups may have rights of their own
    return [
        LeftTopic(definition.source, topic, None if readers is None else tuple(sorted(readers[topic])))
        for topic in left
    ]


def _others(definition: SourceDefinition, names: list[str]) -> list[str]:
    aggregates = "|".join(re.escape(each.name) for each in definition.aggregates)
    of_source = re.compile(rf"{re.escape(definition.domain)}\.(?:{aggregates})\.v[1-9][0-9]{{0,3}}")
    return sorted(name for name in names if of_source.fullmatch(name) and name not in definition.topics)
