"""
From one major to another: a consumer may begin a topic when it has read the former one up to where that begins.

A new major's topic opens with every aggregate that there is. What was deleted before is told by the former topic alone,
and a consumer that had not got there would never hear of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from rowcast.consumer.partitions import Partition
from rowcast.errors import StopError

_log = logging.getLogger("rowcast.consumer")


class Log(Protocol):
    """What is asked of the broker."""

    def opened_ms(self, topic: str) -> int | None:
        """When the first record of a topic was appended; None: it has none."""

    def reached(self, topic: str, time_ms: int | None) -> dict[Partition, int] | None:
        """
        The offset of the first record of each partition that is not older than a time, or its end where all are.

        Without a time it is the end; None: there is no such topic.
        """


def check_succession(topic: str, former: str, read: Mapping[Partition, int], log: Log) -> None:
    """
    Whether a consumer that has *read* the topic *former* up to these offsets may begin with *topic*.

    Raises:
        StopError: it has not got to where *topic* begins.
        BrokerUnavailableError: the broker does not tell.

    """
    reached = log.reached(former, log.opened_ms(topic))
    if reached is None:
        _log.warning("topic %s is gone; whether it was read up to where %s begins cannot be told", former, topic)
        return
    behind = {each: offset for each, offset in reached.items() if read.get(each, 0) < offset}
    if behind:
        told = ", ".join(f"{each} up to {read.get(each, 0)} of {behind[each]}" for each in sorted(behind))
        raise StopError(
            "MAJOR_AHEAD",
            f"{topic} is to be read, and {former} was not read up to where that begins: {told}. What was deleted"
            " meanwhile is told there alone",
            remedy=f"let the consumer catch up on {former}, with the handler that it had; to go on without, delete its"
            f" rows of {former} from rowcast_inbox.offset_position",
        )
