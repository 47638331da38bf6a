"""The main job: bring the pipeline up, wait for the snapshot, drive the live load, wait for the rest, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import orjson
import psycopg

from examples.inventory.ledger import CommittedTransaction, Ledger
from examples.inventory.load import LiveLoad, LoadPlan
from examples.inventory.published import AGGREGATES, Key, State, read_all_states
from examples.main_job.arrival import Arrival
from examples.main_job.evidence import Evidence
from examples.main_job.expectation import expected_events, token
from examples.main_job.live_table import LiveTable
from examples.main_job.memory import MemorySamples
from examples.main_job.observer import Observer, read_applied
from examples.main_job.options import Options
from examples.main_job.pipeline import SOURCE, Pipeline
from examples.main_job.progress import tell
from examples.main_job.topics_reader import TopicsReader
from examples.main_job.verdict import Verdict, judge
from rowcast.control.database import connect
from rowcast.control.refusals import list_refusals
from rowcast.topics import domain_topic

# Waiting ends when nothing at all has moved for this long. Before the first event, Connect may be starting on a
# machine that has much else to do.
_STALLED_S = 120.0
# After everything has arrived: time for what should not come.
_SETTLE_S = 2.0
_READ_TIMEOUT_S = 300.0
_NO_OFFSET = 2**63
_MEMORY_SAMPLES = 3
_EVENTS_WINDOW_MS = 7 * 86_400_000  # as connectors/inventory.yaml declares it
TOPICS = tuple(domain_topic(SOURCE, aggregate, 1) for aggregate in AGGREGATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that the report is made from; *void_reason* is None where the run counts."""

    verdict: Verdict
    evidence: Evidence
    refused: int
    rolled_back: int
    rate_reached: float
    seconds_to_first_event: float | None
    seen_at: Mapping[str, float]
    memory_mb: Mapping[str, float | None]
    void_reason: str | None


class MainJob:
    """One run over *pipeline*, which is up; *observer* watches the consumer since before it was started."""

    def __init__(self, options: Options, pipeline: Pipeline, observer: Observer) -> None:
        self._options, self._pipeline, self._observer = options, pipeline, observer
        self._arrival = Arrival()
        self._table = LiveTable()

    def run(self) -> Outcome:
        """
        Drive the load and reach a verdict.

        Raises:
            PipelineError, CompanionError, LoadError, NoComparisonError: there is nothing to compare.

        """
        with psycopg.connect(self._pipeline.inventory_url, autocommit=True) as inventory:
            initial = read_all_states(inventory)
            brokers = self._pipeline.settings.kafka()
            with TopicsReader(brokers, TOPICS) as reader:
                tell(
                    f"waiting for the snapshot of {len(initial)} rows: Debezium reads the tables first,"
                    " then the worker publishes"
                )
                show = partial(self._tell_count, len(initial))
                arrived = self._wait(reader, {key: token(state) for key, state in initial.items()}, 0, show)
                self._table.close()
                # Without a load there is nothing live.
                live_from = dict(reader.ends) if arrived else dict.fromkeys(reader.places(), _NO_OFFSET)
                memory = MemorySamples(self._pipeline.processes())
                void_reason = None if arrived else "the snapshot did not arrive, the load was not driven"
                if arrived:
                    log, load = self._drive(reader, initial, memory)
                    void_reason = self._void_reason(load)
                else:
                    log, load = _Log([], 0), None
            final = read_all_states(inventory)
        evidence = self._evidence(initial, log.transactions, final, live_from)
        tell(f"verdict over {len(evidence.appended)} events")
        first_at = self._observer.first_new_at
        return Outcome(
            verdict=judge(evidence),
            evidence=evidence,
            refused=self._pipeline.refused(),
            rolled_back=log.rolled_back,
            rate_reached=load.rate_reached if load else 0.0,
            seconds_to_first_event=None if first_at is None else first_at - self._pipeline.counted_from,
            seen_at=self._observer.seen_at,
            memory_mb=memory.largest_mb,
            void_reason=void_reason,
        )

    def _drive(self, reader: TopicsReader, initial: dict[Key, State], memory: MemorySamples) -> tuple[_Log, LiveLoad]:
        options = self._options
        plan = LoadPlan(rate=options.rate, seconds=options.seconds, seed=options.seed)
        already = (self._arrival.published, self._observer.applied)
        tell(f"live load: {options.rate:g} transactions a second for {options.seconds:g} s")
        with (
            Ledger(self._pipeline.stack.folder / "committed.jsonl", initial) as ledger,
            connect(self._pipeline.settings.control().url, application="main job", autocommit=True) as control,
        ):
            load = LiveLoad(self._pipeline.inventory_url, plan, ledger, initial)

            def show() -> None:
                applied = self._observer.applied - already[1]
                since = ledger.waiting_since(applied)
                counts = (
                    ledger.committed_count,
                    self._arrival.published - already[0],
                    applied,
                    len(list_refusals(control, SOURCE)),
                )
                self._table.row(time.monotonic() - started, counts, 0.0 if since is None else time.time() - since)

            self._table.head()
            started = time.monotonic()
            try:
                load.start()
                while not load.wait(0.0):
                    self._look(reader, show)
                for _ in range(_MEMORY_SAMPLES):
                    memory.take()
                    self._look(reader, show)
                log = _Log(ledger.transactions(), ledger.rolled_back)
                expected = expected_events(initial, log.transactions)
                wanted = {key: token(events[-1].state) for key, events in expected.items()}
                count = already[0] + sum(map(len, expected.values()))
                self._wait(reader, wanted, count, show)
                show()
            finally:
                load.stop()
                self._table.close()
        return log, load

    def _look(self, reader: TopicsReader, show: Callable[[], None]) -> None:
        self._arrival.follow(reader.read(0.25))
        self._observer.check()
        self._pipeline.companions.check()
        if self._table.due():
            show()

    def _wait(self, reader: TopicsReader, tokens: Mapping[Key, bytes], events: int, show: Callable[[], None]) -> bool:
        """Wait for these states, at least so many *events*, all applied; False when nothing moves any more."""
        moved_at, counts = time.monotonic(), (0, 0)
        while True:
            self._look(reader, show)
            now = (self._arrival.published, self._observer.applied)
            if now != counts:
                moved_at, counts = time.monotonic(), now
            quiet_s = time.monotonic() - moved_at
            if quiet_s >= _SETTLE_S and self._arrived(tokens, events):
                return True
            if quiet_s >= _STALLED_S:
                self._table.close()
                tell(f"nothing has moved for {_STALLED_S:.0f} s")
                return False

    def _arrived(self, tokens: Mapping[Key, bytes], events: int) -> bool:
        return (
            self._arrival.published >= events
            and not self._arrival.missing(tokens)
            and not self._arrival.unapplied(self._observer.seen_at.keys())
        )

    def _tell_count(self, rows: int) -> None:
        published, applied = self._arrival.published, self._observer.applied
        self._table.line(f"  waiting for the snapshot of {rows} rows: {published} events published, {applied} applied")

    def _evidence(
        self,
        initial: Mapping[Key, State],
        transactions: list[CommittedTransaction],
        final: Mapping[Key, State],
        live_from: Mapping[tuple[str, int], int],
    ) -> Evidence:
        """Read everything anew."""
        read_at_ms = int(time.time() * 1_000)
        with TopicsReader(self._pipeline.settings.kafka(), TOPICS) as reader:
            appended = reader.read_to_end(_READ_TIMEOUT_S)
            partitions = reader.partitions
        with psycopg.connect(self._pipeline.orders_url, autocommit=True) as orders:
            applied = read_applied(orders)
        folder = self._options.project / "schemas" / SOURCE
        return Evidence(
            initial=initial,
            transactions=transactions,
            final=final,
            appended=appended,
            applied=applied,
            partitions=partitions,
            live_from=live_from,
            fresh=self._pipeline.fresh,
            compacted_before_ms=read_at_ms - _EVENTS_WINDOW_MS,
            schemas={name: orjson.loads((folder / name / "v1.0.event.json").read_bytes()) for name in AGGREGATES},
        )

    def _void_reason(self, load: LiveLoad) -> str | None:
        if load.rate_reached < self._options.rate / 2:
            return f"{load.rate_reached:.1f} of {self._options.rate:g} transactions a second were reached: void"
        return None


@dataclass(frozen=True, slots=True)
class _Log:
    transactions: list[CommittedTransaction]
    rolled_back: int
