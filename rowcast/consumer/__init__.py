"""
The consumer SDK: apply domain events to a service's own database, each exactly once.

Light: kafka-python and psycopg, neither Faust nor librdkafka. See docs/reference/consumer.md.
"""

from rowcast.consumer.consumer import Consumer
from rowcast.consumer.status import BlockedEvent, ConsumerStatus
from rowcast.event import DomainEvent, EventKind

__all__ = ["BlockedEvent", "Consumer", "ConsumerStatus", "DomainEvent", "EventKind"]
