"""The rounds: which stage is measured when, on which source."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from benchmarks import consumer, debezium, latency, sequencer, takeover, together
from benchmarks.applier import ORDERS, UPSERT, UPSERT_BATCH
from benchmarks.change_log import FilledLog
from benchmarks.options import Options
from benchmarks.site import Site
from benchmarks.workload import Workload, sized, trees
from examples.main_job.progress import tell
from rowcast.local.processes import working_in
from rowcast.settings import Settings

LOG_STAGES = {"debezium", "sequencer", "consumer"}
# What --quick leaves out. A smaller bulk transaction is still one that does not fit into the worker's memory.
QUICK_SHARES = {"bulk": 0.125}
SLOW_AT_CONSUMER = ("bulk", "trees")
SLOW_TOGETHER = ("bulk", "trees")
LATENCY_S, LATENCY_QUICK_S = 20.0, 6.0
WARM_UP_TREES = 5_000
# Nobody takes the figures of a smaller run for those of the product.
WARM_UP_SCALE = 0.1
_SITES = "bench"
_KILL_TIMEOUT_S = 5.0
_FILLED = "filled.json"


class Rounds:
    """Measures what *options* ask for on the stack that *stack* describes; the sources stand in *folder*."""

    def __init__(self, options: Options, stack: Settings, folder: Path) -> None:
        self._options, self._stack = options, stack
        self._folder = folder / _SITES
        shares = QUICK_SHARES if options.quick else {}
        self._workloads = [sized(name, options.scale * shares.get(name, 1.0)) for name in options.workloads]
        self._filled: dict[str, tuple[Site, FilledLog]] = {}
        self._sites: list[Site] = []
        self.connector: dict[str, str] = {}

    def run(self) -> list[dict[str, Any]]:
        """
        The raw figures of every round.

        Raises:
            MeasureError: a stage has no figure.

        """
        if "debezium" in self._options.stages and self._options.scale >= WARM_UP_SCALE:
            self._warm_up()
        rounds = []
        for number in range(1, self._options.rounds + 1):
            tell(f"round {number} of {self._options.rounds}")
            figures: dict[str, Any] = {"round": number}
            if LOG_STAGES & set(self._options.stages):
                for workload in self._workloads:
                    self._measure(workload, figures)
            if "together" in self._options.stages:
                for workload in self._together():
                    self._measure_together(workload, figures)
            if "latency" in self._options.stages:
                self._measure_latency(figures)
            if "takeover" in self._options.stages:
                self._measure_takeover(figures)
            rounds.append(figures)
        return rounds

    def _warm_up(self) -> None:
        """Let the connector's JVM compile what it runs before it is timed."""
        tell("warm-up of the connector")
        site = self._create()
        debezium.fill(site, trees(WARM_UP_TREES))
        self._drop(site)

    def clean(self) -> None:
        """Delete the sources that are still there; with --keep, leave those whose change log can be used again."""
        # One that was interrupted while it started is in nobody's hands.
        for process in [each for folder in self._folder.glob("*") for each in working_in(folder)]:
            process.stop(signal.SIGKILL, timeout_s=_KILL_TIMEOUT_S)
        if self._options.stack is None:
            return  # the stack goes as a whole
        kept = [site.name for site, _ in self._filled.values()] if self._options.keep else []
        for site in [each for each in self._sites if each.name not in kept]:
            self._drop(site)

    def _create(self, workload: Workload | None = None) -> Site:
        return self._know(Site.create(self._folder, self._stack, workload))

    def _know(self, site: Site) -> Site:
        self._sites.append(site)
        self.connector = self.connector or site.connector_settings()
        return site

    def _drop(self, site: Site) -> None:
        self._sites.remove(site)
        site.drop()

    def _measure(self, workload: Workload, figures: dict[str, Any]) -> None:
        """The stages from the change log on, each on what the one before left."""
        fresh = "debezium" in self._options.stages
        site, log = self._fill(workload, figures, fresh=fresh)
        handlers = self._handlers(workload)
        if handlers or "sequencer" in self._options.stages:
            published, measured = sequencer.measure(site, workload, log)
            self._note(figures, "sequencer", workload.name, measured)
            for handler in handlers:
                measured = consumer.measure(site, published, handler)
                self._note(figures, "consumer", f"{workload.name}_{handler}", measured)
        if fresh:
            del self._filled[workload.name]
            self._drop(site)

    def _handlers(self, workload: Workload) -> tuple[str, ...]:
        skipped = self._options.quick and workload.name in SLOW_AT_CONSUMER
        if "consumer" not in self._options.stages or skipped or workload.nested:
            return ()  # the demo's consumer knows no nested titles
        return ORDERS, UPSERT, UPSERT_BATCH

    def _together(self) -> list[Workload]:
        slow = SLOW_TOGETHER if self._options.quick else ()
        return [each for each in self._workloads if each.name not in slow and not each.nested and not each.initial]

    def _measure_together(self, workload: Workload, figures: dict[str, Any]) -> None:
        site = self._create(workload)
        self._note(figures, "together", workload.name, together.measure(site, workload))
        self._drop(site)

    def _measure_latency(self, figures: dict[str, Any]) -> None:
        seconds = (LATENCY_QUICK_S if self._options.quick else LATENCY_S) * self._options.scale
        site = self._create()
        for rate, measured in latency.measure(site, seconds).items():
            self._note(figures, "latency", rate, measured)
        self._drop(site)

    def _measure_takeover(self, figures: dict[str, Any]) -> None:
        site = self._create()
        self._note(figures, "takeover", "kill", takeover.measure(site))
        self._drop(site)

    def _fill(self, workload: Workload, figures: dict[str, Any], *, fresh: bool) -> tuple[Site, FilledLog]:
        """A source with *workload* in its change log: a new one, or one that was filled before."""
        if not fresh and (found := self._filled.get(workload.name) or self._kept(workload)):
            self._filled[workload.name] = found
            return found
        site = self._create(workload)
        measured: dict[str, Any] = {"rows": workload.rows}
        if workload.initial:
            log = debezium.take_snapshot(site, workload)
        else:
            log, measured = debezium.fill(site, workload)
        self._filled[workload.name] = site, log
        log.write(site.folder / _FILLED)
        if fresh and not workload.initial:
            self._note(figures, "debezium", workload.name, measured)
        else:
            tell(f"  change log filled with {workload.name}: {_line(measured)}")
        return site, log

    def _kept(self, workload: Workload) -> tuple[Site, FilledLog] | None:
        for path in self._folder.glob(f"*/{_FILLED}"):
            log = FilledLog.read(path)
            if (log.workload, len(log.rows)) == (workload.name, workload.rows):
                tell(f"  {workload.name} stands in the change log of {log.source} already")
                return self._know(Site(path.parent, self._stack)), log
        return None

    def _note(self, figures: dict[str, Any], stage: str, name: str, measured: dict[str, Any]) -> None:
        figures.setdefault(stage, {})[name] = measured
        tell(f"  {stage} {name}: {_line(measured)}")


def _line(measured: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in measured.items())
