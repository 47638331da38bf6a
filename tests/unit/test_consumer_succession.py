"""When a consumer may begin with the topic of another major."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rowcast.consumer.partitions import Partition
from rowcast.consumer.succession import check_succession
from rowcast.errors import StopError

OLD, NEW = "shop.customer.v1", "shop.customer.v2"


@dataclass
class Broker:
    """*opened*: when the new topic began; *offsets* of the former one by time, None: it is gone."""

    opened: int | None
    offsets: dict[int | None, dict[Partition, int]] | None

    def opened_ms(self, topic: str) -> int | None:
        """Of the new topic."""
        assert topic == NEW
        return self.opened

    def reached(self, topic: str, time_ms: int | None) -> dict[Partition, int] | None:
        """Of the former one."""
        assert topic == OLD
        return None if self.offsets is None else self.offsets[time_ms]


def at(*offsets: int) -> dict[Partition, int]:
    """Offsets of the former topic's partitions, 0, 1 …"""
    return {Partition(OLD, number): offset for number, offset in enumerate(offsets)}


@pytest.mark.parametrize(
    ("read", "opened", "behind"),
    [
        (at(7, 5), 900, ""),
        (at(8, 9), 900, ""),
        (at(7, 4), 900, r"v1\[1\] up to 4 of 5"),
        (at(7), 900, r"v1\[1\] up to 0 of 5"),  # a partition that it never owned
        (at(8, 9), None, ""),
        (at(7, 9), None, r"v1\[0\] up to 7 of 8"),  # nothing has opened yet
    ],
)
def test_the_former_topic_is_read_up_to_where_the_new_one_begins(
    read: dict[Partition, int], opened: int | None, behind: str
) -> None:
    """Partition by partition; while the new topic is empty, up to the end."""
    broker = Broker(opened, {900: at(7, 5), None: at(8, 9)})
    if not behind:
        check_succession(NEW, OLD, read, broker)
        return

    with pytest.raises(StopError, match=behind) as caught:
        check_succession(NEW, OLD, read, broker)

    assert caught.value.code == "MAJOR_AHEAD"


def test_a_former_topic_that_is_gone_is_told_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could catch up on it."""
    check_succession(NEW, OLD, at(1), Broker(900, None))

    assert f"topic {OLD} is gone" in caplog.text
