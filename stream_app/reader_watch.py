"""Who still reads topics that end: counted from time to time, so that nobody is surprised on the last day."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from rowcast.brokers import Brokers
from rowcast.deprecation import Deprecation
from rowcast.errors import RowcastError
from rowcast.sources.topic_plan import TopicAdmin
from rowcast.sources.topic_readers import topic_readers
from stream_app.metrics import Metrics
from stream_app.outage import OutageLog

_INTERVAL_S = 15.0


class ReaderWatch:
    """
    Measures in a thread of its own, from `start` to `stop`.

    *ending* names the deprecated topics of each source that this worker owns.
    """

    def __init__(
        self, brokers: Brokers, ending: Callable[[], Mapping[str, Mapping[str, Deprecation]]], metrics: Metrics
    ) -> None:
        self._brokers, self._ending, self._metrics = brokers, ending, metrics
        self._outage = OutageLog("readers of deprecated topics")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question that is under way is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL_S):
            try:
                self._measure(self._ending())
                self._outage.back()
            except RowcastError as error:
                self._outage.away(error)

    def _measure(self, ending: Mapping[str, Mapping[str, Deprecation]]) -> None:
        topics = [topic for each in ending.values() for topic in each]
        readers: Mapping[str, Mapping[str, int]] = {}
        if topics:
            with TopicAdmin(self._brokers) as admin:
                readers = topic_readers(admin, topics)
        self._metrics.sunset.clear()
        self._metrics.readers.clear()
        for source, deprecations in ending.items():
            for topic, deprecation in deprecations.items():
                end = datetime.combine(deprecation.last_day, datetime.min.time(), UTC)
                self._metrics.sunset.labels(source, topic).set(end.timestamp())
                for group, members in readers[topic].items():
                    self._metrics.readers.labels(source, topic, group).set(members)
