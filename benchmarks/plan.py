"""The rounds: which stage is measured when, on which source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import debezium, sequencer
from benchmarks.change_log import FilledLog
from benchmarks.options import Options
from benchmarks.site import Site
from benchmarks.workload import Workload, sized
from examples.main_job.progress import tell
from rowcast.settings import Settings

_SITES = "bench"
_FILLED = "filled.json"


class Rounds:
    """Measures what *options* ask for on the stack that *stack* describes; the sources stand in *folder*."""

    def __init__(self, options: Options, stack: Settings, folder: Path) -> None:
        self._options, self._stack = options, stack
        self._folder = folder / _SITES
        self._workloads = [sized(name, options.scale) for name in options.workloads]
        self._open: dict[str, tuple[Site, FilledLog]] = {}

    def run(self) -> list[dict[str, Any]]:
        """
        The raw figures of every round.

        Raises:
            MeasureError: a stage has no figure.

        """
        rounds = []
        for number in range(1, self._options.rounds + 1):
            tell(f"round {number} of {self._options.rounds}")
            figures: dict[str, Any] = {"round": number}
            for workload in self._workloads:
                self._measure(workload, figures)
            rounds.append(figures)
        return rounds

    def clean(self) -> None:
        """Delete the sources that are still there; with --keep, leave those whose change log can be used again."""
        for site, _ in self._open.values():
            if not self._options.keep:
                site.drop()
        self._open.clear()

    def _measure(self, workload: Workload, figures: dict[str, Any]) -> None:
        fresh = "debezium" in self._options.stages
        site, log = self._filled(workload, figures, fresh=fresh)
        if "sequencer" in self._options.stages:
            _, measured = sequencer.measure(site, workload, log)
            self._note(figures, "sequencer", workload.name, measured)
        if fresh:
            del self._open[workload.name]
            site.drop()

    def _filled(self, workload: Workload, figures: dict[str, Any], *, fresh: bool) -> tuple[Site, FilledLog]:
        """A source with *workload* in its change log: a new one, or one that was filled before."""
        if not fresh and (found := self._open.get(workload.name) or self._kept(workload)):
            self._open[workload.name] = found
            return found
        site = Site.create(self._folder, self._stack)
        log, measured = debezium.fill(site, workload)
        self._open[workload.name] = site, log
        log.write(site.folder / _FILLED)
        if fresh:
            self._note(figures, "debezium", workload.name, measured)
        else:
            tell(f"  change log filled with {workload.name}: {_line(measured)}")
        return site, log

    def _kept(self, workload: Workload) -> tuple[Site, FilledLog] | None:
        for path in self._folder.glob(f"*/{_FILLED}"):
            log = FilledLog.read(path)
            if (log.workload, len(log.rows)) == (workload.name, workload.rows):
                tell(f"  {workload.name} stands in the change log of {log.source} already")
                return Site(path.parent, self._stack), log
        return None

    def _note(self, figures: dict[str, Any], stage: str, name: str, measured: dict[str, Any]) -> None:
        figures.setdefault(stage, {})[name] = measured
        tell(f"  {stage} {name}: {_line(measured)}")


def _line(measured: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in measured.items())
