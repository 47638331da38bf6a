"""
Which partitions this instance shall read: membership in a consumer group named after the consumer.

The group only shares partitions out among instances. It never fetches and stores no offsets; the database's
generations decide who may write. It runs in a thread of its own, so that a handler that takes its time, or
fails and waits, keeps its partitions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import TopicAuthorizationFailedError
from kafka.structs import MemberState

from rowcast.consumer.absence import AbsentTopics
from rowcast.consumer.connection import broker_errors, tell_why
from rowcast.consumer.partitions import Partition
from rowcast.errors import BrokerUnavailableError

_log = logging.getLogger("rowcast.consumer")

SESSION_TIMEOUT_S = 10
HEARTBEAT_S = 3
_POLL_S = 0.2
_RETRY_S = 1.0
# An instance whose loop stands still for longer (a handler that never returns) gives its partitions up.
STALL_LIMIT_S = 300
_REBALANCE_TIMEOUT_S = 30
# A healthy rebalance ends before; a client that has not joined by then is replaced.
_JOIN_LIMIT_S = _REBALANCE_TIMEOUT_S + 10


@dataclass(frozen=True, slots=True)
class Assignment:
    """The partitions of this instance; *number* rises with every change."""

    number: int
    partitions: frozenset[Partition]


class Membership:
    """A member of the group, from `start` to `close`."""

    def __init__(self, options: Mapping[str, Any], group: str, topics: Iterable[str]) -> None:
        self._options, self._group, self._topics = options, group, sorted(topics)
        self._absent = AbsentTopics(self._topics)
        self._changed = threading.Condition()
        self._assignment = Assignment(0, frozenset())
        self._closing = threading.Event()
        self._resting = threading.Event()
        self._failure: BaseException | None = None
        self._alive_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"rowcast membership {group}", daemon=True)

    def start(self) -> None:
        """Joins the group, in the background, for as long as it takes."""
        self._thread.start()

    def alive(self) -> Assignment:
        """
        Says that the caller's loop goes on; what it shall read now.

        Raises:
            ConfigurationError: the broker refuses this client.
        """
        self._alive_at = time.monotonic()
        with self._changed:
            if self._failure is not None:
                raise self._failure
            return self._assignment

    @property
    def absent(self) -> tuple[str, ...]:
        """The topics that do not exist."""
        return self._absent.topics

    def wait_for_change(self, number: int, timeout_s: float) -> None:
        """Returns when the assignment is no longer the one of *number*, or after *timeout_s*."""
        with self._changed:
            self._changed.wait_for(lambda: self._assignment.number != number or self._failure, timeout_s)

    def rest(self) -> None:
        """Leaves the group until `work`: the caller could do nothing with partitions, and the others can."""
        self._resting.set()

    def work(self) -> None:
        """Joins the group again after `rest`."""
        self._resting.clear()

    def close(self) -> None:
        """Leaves the group, so that the others take over at once."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            waiting = False
            while not self._closing.is_set():
                try:
                    if not self._resting.is_set():
                        self._be_member()
                    self._set(())
                    self._closing.wait(_POLL_S)
                    waiting = False
                except BrokerUnavailableError as error:
                    if not waiting:
                        _log.warning("group %s: %s; trying again", self._group, error)
                        tell_why(self._options)
                    waiting = True
                    self._set(())
                    self._closing.wait(_RETRY_S)
        # Handed to the loop, which raises it; a thread that died silently would leave the loop without partitions.
        except BaseException as error:  # noqa: BLE001
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _be_member(self) -> None:
        with broker_errors("joining the group", self._options):
            kafka = KafkaConsumer(
                **self._options,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=SESSION_TIMEOUT_S * 1000,
                heartbeat_interval_ms=HEARTBEAT_S * 1000,
                max_poll_interval_ms=_REBALANCE_TIMEOUT_S * 1000,
                metrics_enabled=False,
            )
            try:
                for topic in self._topics:
                    # Known before joining: a first join without them shares nothing out and is followed by another.
                    kafka.partitions_for_topic(topic)
                kafka.subscribe(self._topics, listener=_Listener(kafka, self._set))
                stable_at = time.monotonic()
                while not self._closing.is_set() and not self._resting.is_set():
                    self._name_absent(kafka)
                    if time.monotonic() - self._alive_at < STALL_LIMIT_S:
                        kafka.poll(timeout_ms=int(_POLL_S * 1000))
                    else:
                        self._closing.wait(_POLL_S)
                    if kafka.group_metadata().state == MemberState.STABLE:
                        stable_at = time.monotonic()
                    elif time.monotonic() - stable_at > _JOIN_LIMIT_S:
                        raise BrokerUnavailableError(f"not joined for {_JOIN_LIMIT_S} s")
            finally:
                kafka.close(autocommit=False, timeout_ms=2000)

    def _name_absent(self, kafka: Any) -> None:
        # What the client knows already: partitions_for_topic() would ask the broker each time.
        refused = kafka._cluster.unauthorized_topics & set(self._topics)
        if refused:
            raise TopicAuthorizationFailedError(refused)
        existing = [topic for topic in self._topics if kafka._cluster.partitions_for_topic(topic)]
        for topic in self._absent.look(existing, time.monotonic()):
            _log.warning("topic %s does not exist; waiting (is the name or the major right?)", topic)

    def _set(self, partitions: Iterable[Partition]) -> None:
        with self._changed:
            wanted = frozenset(partitions)
            if wanted != self._assignment.partitions:
                self._assignment = Assignment(self._assignment.number + 1, wanted)
                self._changed.notify_all()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Publishes each assignment; called on kafka-python's own thread, so it does no I/O."""

    def __init__(self, kafka: Any, publish: Callable[[Iterable[Partition]], None]) -> None:
        self._kafka, self._publish = kafka, publish

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Paused, at any position: this client is never to fetch."""
        for each in assigned:
            self._kafka.pause(each)
            self._kafka.seek(each, 0)
        self._publish(Partition(each.topic, each.partition) for each in assigned)

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Under the eager protocol all partitions are revoked before each rebalance."""
        # kafka-python 3.0.12 never completes a join that only changed metadata asked for and that outlasts one
        # poll(): it no longer knows that it wants to rejoin. Asked for explicitly, it knows until it has joined.
        self._kafka._coordinator.request_rejoin()
        self._publish(())

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """The group went on without this instance."""
        self._publish(())
