"""
Landing: a computed step is published, then committed, while the session computes the next ones.

Steps are published in their order, and committed in it, each in a thread of its own: a step is published while the one
before it is committed. What is being landed is newer than the control database, so whoever reads that lays it on top.
A crash leaves up to two steps published and not committed: the tail of the next claim.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from rowcast.failpoint import failpoint
from stream_app.core.emission import Emitted
from stream_app.core.state import View
from stream_app.metrics import SourceMetrics
from stream_app.position import EndOffsets, Position
from stream_app.progress import Progress
from stream_app.publisher import Publisher
from stream_app.step import Step
from stream_app.store import Store

_UNDER_WAY_MAX = 2
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """
    A computed step: the state, the events, and the *position* that goes with them.

    *tail_open*: events of a former claim are still unmatched, so the end offsets must not move yet.
    """

    view: View
    emitted: Emitted
    step: Step
    position: Position
    tail_open: bool


class _Futures(NamedTuple):
    published: Future[EndOffsets]
    committed: Future[None]


class Landing:
    """Lands the parcels of one session. `committed` is where the control database stands."""

    def __init__(
        self, publisher: Publisher, store: Store, progress: Progress, opened: tuple[Position, EndOffsets]
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._progress = progress
        self.committed, self._ends = opened
        self._publishing = ThreadPoolExecutor(1, thread_name_prefix="publishing")
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="committing")
        self._under_way: deque[tuple[View, Future[None]]] = deque()
        self._last: _Futures | None = None
        self._telling: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a further step would have to wait before it is published."""
        return self._last is not None and not self._last.published.done()

    @property
    def views(self) -> list[View]:
        """The states that are being landed, the oldest first; the control database may have them already."""
        return [view for view, _ in self._under_way]

    def submit(self, parcel: Parcel, metrics: SourceMetrics) -> None:
        """
        Land *parcel* after those that are under way.

        Raises:
            RowcastError: one of these failed; nothing of *parcel* is landed, and the session is over.

        """
        self._settle(_UNDER_WAY_MAX - 1)
        former = self._last
        published = self._publishing.submit(self._publish, parcel, former, metrics)
        committed = self._committing.submit(self._commit, parcel, published, former, metrics)
        self._last = _Futures(published, committed)
        self._under_way.append((parcel.view, committed))

    def run(self, work: Callable[[], None]) -> None:
        """
        Have *work* write to the control database behind all that is under way, which is waited for.

        Raises:
            RowcastError: something before it failed; the session is over. If *work* fails, whoever waits is told.

        """
        self._settle(0)
        self._under_way.append((View(), self._committing.submit(work)))

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Have the control database answer *question* behind all that is under way, which is not waited for."""
        return self._committing.submit(question)

    def wait(self) -> None:
        """
        Wait until everything is committed.

        Raises:
            RowcastError: it failed; the session is over.

        """
        self._settle(0)

    def check(self) -> None:
        """
        Wait for nothing.

        Raises:
            RowcastError: a step failed; the session is over.

        """
        self._settle(_UNDER_WAY_MAX)

    def tell_progress(self, tail_open: bool) -> None:
        """Publish the committed position, when it is due and nothing is under way."""
        if not self._under_way and not tail_open and self._progress.due(self.committed):
            self._committing.submit(self._tell, self.committed).result()

    def close(self) -> None:
        """Let what is under way come to its end, good or bad."""
        self._committing.shutdown(wait=True)
        self._publishing.shutdown(wait=True)

    def _settle(self, left: int) -> None:
        """Wait until at most *left* steps are under way, and forget those that have come to their end."""
        while self._under_way and (len(self._under_way) > left or self._under_way[0][1].done()):
            self._under_way.popleft()[1].result()
        if self._telling is not None and self._telling.done():
            self._telling.result()

    def _publish(self, parcel: Parcel, former: _Futures | None, metrics: SourceMetrics) -> EndOffsets:
        """Publish what *parcel* says, if nothing before it failed; returns the ends of the domain topics behind it."""
        if former is not None:
            former.published.result()
            if former.committed.done():
                former.committed.result()
        if parcel.emitted.records:
            failpoint("sequencer.before_publish")
            started_s = time.monotonic()
            ends = self._publisher.publish(parcel.emitted.records)
            metrics.stage("publish", time.monotonic() - started_s)
            failpoint("sequencer.after_publish")
            self._ends = {topic: {**offsets, **ends.get(topic, {})} for topic, offsets in self._ends.items()}
        return self._ends

    def _commit(
        self, parcel: Parcel, published: Future[EndOffsets], former: _Futures | None, metrics: SourceMetrics
    ) -> None:
        """Commit *parcel* once it is published, if everything before it is committed."""
        if former is not None:
            former.committed.result()
        ends, position = published.result(), parcel.position
        if not parcel.tail_open:
            # While the tail holds unmatched versions the next claim has to read it again from its beginning.
            position = replace(position, end_offsets=ends)
        started_s = time.monotonic()
        self._store.commit(parcel.view, parcel.step, self.committed, position)
        metrics.stage("commit", time.monotonic() - started_s)
        self.committed = position
        metrics.position(position)
        failpoint("sequencer.after_commit")
        if not parcel.tail_open and self._progress.due(position):
            self._tell(position)

    def _tell(self, position: Position) -> None:
        """Ask the control database what else there is to say of the committed *position*, and have it published."""
        self._telling = self._publishing.submit(self._progress.publish, self._progress.record(position))
