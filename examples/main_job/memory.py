"""Proportional set size of the pipeline's processes, children included, in MiB."""

from __future__ import annotations

from collections.abc import Mapping

from rowcast.local.processes import RunningProcess


class MemorySamples:
    """The largest of several samples for each of *processes*; None where a process could not be looked at."""

    def __init__(self, processes: Mapping[str, RunningProcess]) -> None:
        self._processes = processes
        self.largest_mb: dict[str, float | None] = dict.fromkeys(processes)

    def take(self) -> None:
        """Look at every process once."""
        for name, process in self._processes.items():
            size_mb = process.pss_mb()
            if size_mb is not None:
                self.largest_mb[name] = round(max(size_mb, self.largest_mb[name] or 0.0), 1)
