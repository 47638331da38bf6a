"""
Landing: a computed step is published, then committed, while the session computes the next one.

One step at a time, in order, in a thread of its own: a step is not published before the one before it is
committed. What is being landed is newer than the control database, so whoever reads that lays it on top.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from rowcast.failpoint import failpoint
from stream_app.core.emission import Emitted
from stream_app.core.state import View
from stream_app.metrics import SourceMetrics
from stream_app.position import EndOffsets, Position
from stream_app.progress import Progress
from stream_app.publisher import Publisher
from stream_app.store import Step, Store


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


class Landing:
    """Lands the parcels of one session. `committed` is where the control database stands."""

    def __init__(
        self, publisher: Publisher, store: Store, progress: Progress, opened: tuple[Position, EndOffsets]
    ) -> None:
        self._publisher = publisher
        self._store = store
        self._progress = progress
        self.committed, self._ends = opened
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="landing")
        self._under_way: Future[None] | None = None
        self._view: View | None = None

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return self._under_way is not None and not self._under_way.done()

    @property
    def view(self) -> View | None:
        """The state that is being landed; None when the control database has everything."""
        return self._view

    def submit(self, parcel: Parcel, metrics: SourceMetrics) -> None:
        """
        Land *parcel* after the one that is under way.

        Raises:
            RowcastError: that one failed; nothing of *parcel* is landed, and the session is over.

        """
        self.wait()
        self._view = parcel.view
        self._under_way = self._thread.submit(self._land, parcel, metrics)

    def wait(self) -> None:
        """
        Wait until everything is committed.

        Raises:
            RowcastError: it failed; the session is over.

        """
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()
        self._view = None

    def tell_progress(self, tail_open: bool) -> None:
        """Publish the committed position, when it is due and nothing is under way."""
        if not self.busy and self._progress.due(self.committed) and not tail_open:
            self.wait()
            self._under_way = self._thread.submit(self._progress.publish, self.committed)

    def close(self) -> None:
        """Let what is under way come to its end, good or bad."""
        self._thread.shutdown(wait=True)

    def _land(self, parcel: Parcel, metrics: SourceMetrics) -> None:
        position = parcel.position
        if parcel.emitted.records:
            failpoint("sequencer.before_publish")
            started_s = time.monotonic()
            ends = self._publisher.publish(parcel.emitted.records)
            metrics.stage("publish", time.monotonic() - started_s)
            failpoint("sequencer.after_publish")
            self._ends = {topic: {**offsets, **ends.get(topic, {})} for topic, offsets in self._ends.items()}
        if not parcel.tail_open:
            # While the tail holds unmatched versions the next claim has to read it again from its beginning.
            position = replace(position, end_offsets=self._ends)
        started_s = time.monotonic()
        self._store.commit(parcel.view, parcel.step, self.committed, position)
        metrics.stage("commit", time.monotonic() - started_s)
        self.committed = position
        metrics.position(position)
        failpoint("sequencer.after_commit")
        if not parcel.tail_open and self._progress.due(position):
            self._progress.publish(position)
