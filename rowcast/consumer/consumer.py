"""The consumer as a service writes it: handlers by aggregate, and one call that runs them."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from rowcast.consumer.collector import collecting_seldom
from rowcast.consumer.handling import BatchHandler, Handler, Handling, Settings
from rowcast.consumer.status import ConsumerStatus
from rowcast.consumer.upcasting import Upcaster, chain
from rowcast.errors import ConfigurationError
from rowcast.event import DomainEvent
from rowcast.topics import domain_topic

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Read(NamedTuple):
    """What is read of an aggregate: a topic, and the major of its events."""

    topic: str
    major: int


class Consumer:
    """
    Applies the events of the aggregates that it has handlers for, each exactly once, to its own database.

    *name* is the consumer group and the owner of marks and offsets: instances of one name share the work, and a
    new name starts from the beginning. *database* is the libpq connection string of the service's own database,
    *brokers* the bootstrap servers. One transaction holds at most *batch_events* events and *batch_s* seconds of
    handlers. *security* are kafka-python's ``security_protocol``, ``ssl_*`` and ``sasl_*``.

    Raises:
        ConfigurationError: a name or a bound is not usable.
    """

    def __init__(
        self,
        name: str,
        database: str,
        brokers: str,
        *,
        batch_events: int = 500,
        batch_s: float = 1.0,
        security: Mapping[str, object] | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"consumer name {name!r}", where="Consumer", fix="use letters, digits, '.', '_' and '-'"
            )
        if batch_events < 1 or batch_s <= 0:
            raise ConfigurationError(
                "batch_events and batch_s must be positive", where="Consumer", fix="leave them out"
            )
        self._settings = Settings(
            name=name,
            database=database,
            brokers=brokers,
            batch_events=batch_events,
            batch_s=batch_s,
            security=dict(security or {}),
        )
        self._contracts: Path | None = None
        self._handlers: dict[str, Handling] = {}  # by topic
        self._majors: dict[str, tuple[int, int]] = {}  # by aggregate: the one that is read, and the handler's
        self._upcasters: dict[str, dict[int, Upcaster]] = {}
        self._stop = threading.Event()
        self._status = ConsumerStatus()

    def on(self, aggregate: str, *, major: int, reads: int | None = None) -> Callable[[Handler], Handler]:
        """
        Decorates the handler of *aggregate* (``domain.aggregate``) in contract version *major*.

        With *reads* the topic of that older major is read, and upcasters turn its events into *major*.

        It is called with each event, in the order of its partition, and with the connection that holds the
        transaction; it must not commit, and must do nothing that cannot be rolled back. All kinds of events go to
        it: ``event.kind`` tells. If it raises, nothing of the event is kept, and the event is tried again.

        Raises:
            ConfigurationError: the name is not of that form, or the aggregate has a handler already: a mark counts
                over all majors, so one consumer reads one of them.
        """
        read = self._read_major(aggregate, major, reads)

        def register(handler: Handler) -> Handler:
            self._handlers[read.topic] = Handling.one_by_one(handler)
            self._majors[aggregate] = (read.major, major)
            return handler

        return register

    def on_batch(
        self, aggregate: str, *, major: int, reads: int | None = None
    ) -> Callable[[BatchHandler], BatchHandler]:
        """
        Decorates a handler of *aggregate* that takes all events of it that one transaction holds, at once.

        It is called with a sequence of at least one event, in the order of each partition, and with the connection
        that holds the transaction; several versions of one aggregate may be among them, and the handler's effect
        must be that of the events one after the other. The rest is as with `on`. If it raises with several events,
        they are tried again in calls of one event each, so that only the event at fault waits.

        Raises:
            ConfigurationError: as with `on`.
        """
        read = self._read_major(aggregate, major, reads)

        def register(handler: BatchHandler) -> BatchHandler:
            self._handlers[read.topic] = Handling(handler, at_once=True)
            self._majors[aggregate] = (read.major, major)
            return handler

        return register

    def upcaster(self, aggregate: str, *, major: int) -> Callable[[Upcaster], Upcaster]:
        """
        Decorates the function that turns an entity of *aggregate* from *major* into the next one.

        It gets a dict that it may change, and returns one; it has to be pure, and to work for every entity that the
        older contract allows. `on` says with *reads* from which major on upcasters are applied, one after the other;
        `run` refuses a chain with a gap.

        Raises:
            ConfigurationError: the name is not of that form, or the step has an upcaster already.
        """
        _split(aggregate, major)
        steps = self._upcasters.setdefault(aggregate, {})
        if major in steps:
            raise ConfigurationError(
                f"{aggregate!r} has an upcaster from major {major} already",
                where="Consumer",
                fix="keep one for each step",
            )

        def register(upcaster: Upcaster) -> Upcaster:
            steps[major] = upcaster
            return upcaster

        return register

    def check_against(self, contracts: str | Path) -> None:
        """
        Lets no handler see an event that its contract does not accept; such an event blocks its partition.

        *contracts* is a folder like ``schemas``. `run` refuses a handler without a contract there. Needs the extra
        ``schemas``.
        """
        self._contracts = Path(contracts)

    def _read_major(self, aggregate: str, major: int, reads: int | None) -> _Read:
        read = major if reads is None else reads
        domain, kind = _split(aggregate, min(major, read))
        if read > major:
            raise ConfigurationError(
                f"on({aggregate!r}, major={major}, reads={read})",
                where="Consumer",
                fix=f"upcasters lead to newer majors only: write the handler for major {read}",
            )
        if aggregate in self._majors:
            raise ConfigurationError(
                f"{aggregate!r} has a handler already (major {self._majors[aggregate][1]})",
                where="Consumer",
                fix="keep one handler for each aggregate",
            )
        return _Read(domain_topic(domain, kind, read), read)

    def _chained(self) -> dict[str, Handling]:
        """The handlers by topic, each with the contract and the upcasters that it needs."""
        for aggregate in self._upcasters.keys() - self._majors.keys():
            raise ConfigurationError(
                f"{aggregate!r} has upcasters and no handler",
                where="Consumer",
                fix=f'add @consumer.on("{aggregate}", …)',
            )
        handlers = dict(self._handlers)
        for aggregate, majors in self._majors.items():
            upcast = chain(aggregate, majors, self._upcasters.get(aggregate, {}))
            named = _split(aggregate, majors[0])
            topic = domain_topic(*named, majors[0])
            check = None if self._contracts is None else _contract_check(self._contracts, named, majors[0])
            handlers[topic] = replace(handlers[topic], check=check, upcast=upcast)
        return handlers

    def run(self, stop: threading.Event | None = None) -> None:
        """
        Applies events until `stop` is called, *stop* is set, or SIGTERM or SIGINT arrives (in the main thread).

        Stops orderly: the transaction under way is committed, the group is left. Outages of the broker and of the
        database are waited for, without end.

        Raises:
            StopError: an integrity fault; everything before it is committed, nothing behind it.
            ConfigurationError: there is no handler, a chain of upcasters has a gap, a contract is missing, or the
                broker refuses this client.
        """
        if not self._handlers:
            raise ConfigurationError(
                "the consumer has no handler", where="Consumer", fix='add @consumer.on("…", major=1)'
            )

        from rowcast.consumer.instance import Instance  # here: handlers can be declared and tested without Kafka

        handlers = self._chained()

        def stopping() -> bool:
            return self._stop.is_set() or (stop is not None and stop.is_set())

        with self._signals(), collecting_seldom():
            Instance(self._settings, handlers, stopping, self._publish).run()

    def stop(self) -> None:
        """Makes `run` return soon; may be called from any thread, and before `run`."""
        self._stop.set()

    def status(self) -> ConsumerStatus:
        """How this instance stands; may be called from any thread."""
        return self._status

    def _publish(self, status: ConsumerStatus) -> None:
        self._status = status

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def handle(_number: int, _frame: FrameType | None) -> None:
            self.stop()
            # A second signal acts as it would have without us.
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in _SIGNALS:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _contract_check(contracts: Path, named: tuple[str, str], major: int) -> Callable[[DomainEvent], None]:
    try:
        from rowcast.consumer.conformance import conformance
    except ImportError as error:
        raise ConfigurationError(
            f"contracts need {error.name}, which is not installed",
            where="Consumer",
            fix="pip install 'rowcast[schemas]'",
        ) from error
    return conformance(contracts, *named, major)


def _split(aggregate: str, major: int) -> tuple[str, str]:
    """Domain and aggregate type of a name; *major* is the lowest that goes with it."""
    domain, dot, kind = aggregate.partition(".")
    if not dot or not domain or not kind or "." in kind or major < 1:
        raise ConfigurationError(
            f"on({aggregate!r}, major={major})", where="Consumer", fix='name it as on("domain.aggregate", major=1)'
        )
    return domain, kind
