"""What a worker measures, as Prometheus metrics; one canonical set for each source it owns."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stream_app.position import Position

_LABELS = ("source",)
_STAGES = ("read", "load", "core", "publish", "commit")
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The registry of one worker process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter("rowcast_records", "Change-log records read", _LABELS, registry=self.registry)
        self.rows = Counter("rowcast_rows", "Row changes folded into row state", _LABELS, registry=self.registry)
        self.events = Counter("rowcast_events", "Domain events published", _LABELS, registry=self.registry)
        self.refusals = Counter("rowcast_refusals", "Events refused", _LABELS, registry=self.registry)
        self.repeated = Counter(
            "rowcast_repeated_events", "Events found published already after a claim", _LABELS, registry=self.registry
        )
        self.faults = Counter(
            "rowcast_session_faults", "Claims that ended in an error", (*_LABELS, "kind"), registry=self.registry
        )
        self.owned = Gauge("rowcast_owned", "1 while this worker owns the source", _LABELS, registry=self.registry)
        self.stopped = Gauge(
            "rowcast_stopped", "1 while the source is stopped", (*_LABELS, "code"), registry=self.registry
        )
        self.halted = Gauge(
            "rowcast_halted",
            "1 while an aggregate type is halted, and the others of its source go on",
            (*_LABELS, "aggregate"),
            registry=self.registry,
        )
        self.position_at = Gauge(
            "rowcast_position_timestamp_seconds",
            "When the position last moved (Unix time); its age is the age of the position",
            _LABELS,
            registry=self.registry,
        )
        self.next_offset = Gauge("rowcast_next_offset", "Committed change-log offset", _LABELS, registry=self.registry)
        self.change_log_age = Gauge(
            "rowcast_change_log_age_seconds",
            "Age of the oldest change-log record that is not processed yet; 0 when there is none",
            _LABELS,
            registry=self.registry,
        )
        self.window = Gauge(
            "rowcast_change_log_window_seconds",
            "How long the change log keeps a record; the alarm is at half of it",
            _LABELS,
            registry=self.registry,
        )
        self.connector_failed = Gauge(
            "rowcast_connector_failed",
            "1 while the source's connector or its task has failed",
            _LABELS,
            registry=self.registry,
        )
        self.connector_restarts = Counter(
            "rowcast_connector_restarts", "Restarts of a failed connector", _LABELS, registry=self.registry
        )
        self.connect_reachable = Gauge(
            "rowcast_connect_reachable", "1 while Kafka Connect answers this worker", registry=self.registry
        )
        self.sunset = Gauge(
            "rowcast_deprecated_topic_sunset_timestamp_seconds",
            "Last day (Unix time of its beginning, UTC) of a topic whose major ends",
            (*_LABELS, "topic"),
            registry=self.registry,
        )
        self.readers = Gauge(
            "rowcast_deprecated_topic_readers",
            "Members of the consumer groups that read a topic whose major ends",
            (*_LABELS, "topic", "group"),
            registry=self.registry,
        )
        self.stage = Histogram(
            "rowcast_stage_seconds",
            "Time of each stage of a batch",
            (*_LABELS, "stage"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )

    def render(self) -> bytes:
        """The Prometheus text exposition."""
        return generate_latest(self.registry)


class SourceMetrics:
    """The metrics of one source."""

    def __init__(self, metrics: Metrics, source: str) -> None:
        self._metrics = metrics
        self._source = source
        self._stages = {stage: metrics.stage.labels(source, stage) for stage in _STAGES}
        self._offset = -1

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a batch took *seconds*."""
        self._stages[name].observe(seconds)

    def read(self, records: int) -> None:
        """*records* came from the change log."""
        self._metrics.records.labels(self._source).inc(records)

    def batch(self, rows: int, events: int, refused: int, repeated: int) -> None:
        """A batch was committed."""
        self._metrics.rows.labels(self._source).inc(rows)
        self._metrics.events.labels(self._source).inc(events)
        self._metrics.refusals.labels(self._source).inc(refused)
        self._metrics.repeated.labels(self._source).inc(repeated)

    def position(self, position: Position) -> None:
        """The committed position is *position*."""
        if position.next_offset != self._offset:
            self._offset = position.next_offset
            self._metrics.next_offset.labels(self._source).set(position.next_offset)
            self._metrics.position_at.labels(self._source).set(time.time())

    def window(self, seconds: float) -> None:
        """How long the change log keeps a record."""
        self._metrics.window.labels(self._source).set(seconds)

    def change_log_age(self, seconds: float) -> None:
        """The oldest unprocessed record of the change log is *seconds* old."""
        self._metrics.change_log_age.labels(self._source).set(seconds)

    def fault(self, kind: str) -> None:
        """A claim ended in an error of *kind*."""
        self._metrics.faults.labels(self._source, kind).inc()

    def owned(self, owned: bool) -> None:
        """Whether this worker owns the source now."""
        self._metrics.owned.labels(self._source).set(int(owned))

    def halted(self, aggregates: Iterable[str]) -> None:
        """The halted types are these and no others."""
        self._forget(self._metrics.halted)
        for each in aggregates:
            self._metrics.halted.labels(self._source, each).set(1)

    def _forget(self, gauge: Gauge) -> None:
        for labels in list(gauge._metrics):
            if labels[0] == self._source:
                gauge.remove(*labels)

    def stopped(self, code: str | None) -> None:
        """The source stopped with *code*, or runs (None)."""
        self._forget(self._metrics.stopped)
        if code is not None:
            self._metrics.stopped.labels(self._source, code).set(1)
