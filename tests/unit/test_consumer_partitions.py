from __future__ import annotations

from consumer_fixture import make_event

from rowcast.consumer.partitions import Delivery, Ownership, Partition, choose, next_retry
from rowcast.errors import MalformedEventError

LEFT, RIGHT = Partition("t.item.v1", 0), Partition("t.item.v1", 1)


def owned(partition: Partition, *offsets: int, malformed: int | None = None) -> Ownership:
    ownership = Ownership(partition, generation=1, next_offset=0, fetched=0)
    for offset in offsets:
        content = MalformedEventError("bad") if offset == malformed else make_event("t", f"id-{offset}", 1)
        ownership.queue.append(Delivery(partition, offset, 0, content))
        ownership.fetched = offset + 1
    return ownership


def offsets(batch: list[Delivery]) -> list[tuple[int, int]]:
    return [(delivery.partition.number, delivery.offset) for delivery in batch]


def both(left: Ownership, right: Ownership) -> dict[Partition, Ownership]:
    return {LEFT: left, RIGHT: right}


def test_a_batch_takes_each_partition_in_order_up_to_the_limit() -> None:
    """Offsets of a partition stay in order, and the limit counts over all partitions."""
    partitions = both(owned(LEFT, 1, 2, 5), owned(RIGHT, 0, 3))
    assert offsets(choose(partitions, 10, 0)) == [(0, 1), (0, 2), (0, 5), (1, 0), (1, 3)]
    assert offsets(choose(partitions, 4, 0)) == [(0, 1), (0, 2), (0, 5), (1, 0)]


def test_a_suspect_event_comes_alone_after_those_before_it() -> None:
    """Behind a failure in a batch: first the events before it, then it alone, then the rest."""
    left = owned(LEFT, 1, 2, 3)
    left.fence = 2
    assert offsets(choose(both(left, owned(RIGHT, 0)), 10, 0)) == [(0, 1), (1, 0)]
    left.moved(2)
    assert offsets(choose(both(left, owned(RIGHT, 0)), 10, 0)) == [(0, 2)]
    left.moved(3)
    assert left.fence is None
    assert offsets(choose(both(left, owned(RIGHT)), 10, 0)) == [(0, 3)]


def test_a_malformed_record_comes_alone() -> None:
    """It can only fail, and must not take the events before it along."""
    left = owned(LEFT, 1, 2, 3, malformed=2)
    assert offsets(choose({LEFT: left}, 10, 0)) == [(0, 1)]
    left.moved(2)
    assert offsets(choose({LEFT: left}, 10, 0)) == [(0, 2)]


def test_a_blocked_partition_waits_and_the_others_go_on() -> None:
    """Backoff doubles from 0.2 s to 30 s at most; the block ends when the event is passed."""
    left, right = owned(LEFT, 1, 2), owned(RIGHT, 7)
    left.fence = 1
    delays = []
    now = 100.0
    for _ in range(10):
        block = left.failed(left.queue[0], "broken", now)
        delays.append(block.retry_at - now)
        assert offsets(choose(both(left, right), 10, now)) == [(1, 7)]
        now = block.retry_at
        assert offsets(choose(both(left, right), 10, now)) == [(0, 1)]
    assert [round(delay, 1) for delay in delays] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert next_retry([left, right]) == now
    assert left.block is not None
    assert (left.block.tries, left.block.since) == (10, 100.0)
    ended = left.moved(2)
    assert ended is not None
    assert ended.delivery.offset == 1
    assert left.block is None
    assert next_retry([left, right]) is None


def test_the_target_passes_what_was_fetched_without_an_event() -> None:
    """Behind the last waiting event the fetch position is stored, before it the next offset."""
    left = owned(LEFT, 1, 2)
    left.fetched = 9
    assert left.target(left.queue[0]) == 2
    assert left.target(left.queue[1]) == 9


def test_a_rewind_forgets_what_was_read() -> None:
    """After the database said where to read on, nothing read before is applied."""
    left = owned(LEFT, 1, 2)
    left.rewound(5, 0)
    assert (left.generation, left.next_offset, left.fetched, list(left.queue)) == (5, 0, 0, [])
