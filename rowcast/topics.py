"""Topic names: one place, published for ever."""

from __future__ import annotations

PROGRESS_TOPIC = "rowcast.progress"


def change_log_topic(source: str) -> str:
    """The one-partition topic that holds everything the connector of *source* writes."""
    return f"{source}.changes"


def domain_topic(domain: str, aggregate: str, major: int) -> str:
    """The topic that other services subscribe to."""
    return f"{domain}.{aggregate}.v{major}"
