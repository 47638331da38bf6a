"""Who reads topics now, as far as Kafka knows: the consumer groups with members that subscribe to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rowcast.sources.topic_plan import TopicAdmin


def topic_readers(admin: TopicAdmin, topics: Collection[str]) -> dict[str, dict[str, int]]:
    """
    The groups that read each of *topics*, with the number of their members; who reads without a group is not seen.

    Raises:
        BrokerUnavailableError: Kafka did not answer.
        ConfigurationError: it does not let this client describe groups.

    """
    readers: dict[str, dict[str, int]] = {topic: {} for topic in topics}
    with admin.errors():
        groups = [each["group_id"] for each in admin.client.list_groups() if each["protocol_type"] == "consumer"]
    for group in groups:
        for member in _members(admin, group):
            for topic in _subscribed(member) & readers.keys():
                readers[topic][group] = readers[topic].get(group, 0) + 1
    return readers


def _members(admin: TopicAdmin, group: str) -> list[dict[str, Any]]:
    try:
        with admin.errors():
            members: list[dict[str, Any]] = admin.client.describe_groups([group])[group]["members"]
    except ValueError:
        return []  # they call themselves consumers and say nothing that the client could read
    return members


def _subscribed(member: dict[str, Any]) -> set[str]:
    metadata, assignment = member.get("member_metadata"), member.get("member_assignment")
    topics = set(metadata.get("topics") or ()) if isinstance(metadata, dict) else set()
    if isinstance(assignment, dict):
        topics |= {each["topic"] for each in assignment.get("assigned_partitions") or ()}
    return {topic for topic in topics if isinstance(topic, str)}
