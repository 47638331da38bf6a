"""
What the status of a source is read by: its names, and the tables that have to be captured.

A source runs as it was applied, so the applied definition counts; its file only where nothing was applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rowcast.control.database import connect as connect_control
from rowcast.settings import Settings
from rowcast.sources.control_plan import pending_migrations
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.source_file import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A source to look at; *database* is its name in the settings, *tables* are those that have to be captured."""

    source: str
    database: str
    tables: tuple[str, ...]
    change_log_window_ms: int

    @property
    def apply(self) -> str:
        """The command that makes what is missing."""
        return f"`rowcast sources apply {self.source}`"

    @property
    def start_over(self) -> str:
        """The commands that capture the source anew."""
        return f"`rowcast sources remove {self.source} --yes`, then {self.apply}: it takes a new snapshot"


def read_applied(settings: Settings) -> dict[str, SourceDefinition]:
    """The definitions that were applied and not removed since, by source."""
    with connect_control(settings.control().url, application="rowcast sources", autocommit=True) as connection:
        if pending_migrations(connection):
            return {}
        rows = connection.execute("SELECT definition FROM rowcast.source WHERE NOT removed ORDER BY source").fetchall()
    definitions = [SourceDefinition.from_json(row[0]) for row in rows]
    return {each.source: each for each in definitions}


def subject_of(source: SourceFile, applied: Mapping[str, SourceDefinition]) -> Subject:
    """What to look at for the source of a file."""
    definition = applied.get(source.source)
    tables = tuple(each.name for each in definition.tables) if definition else ()
    return Subject(
        source=source.source,
        database=source.database,
        tables=tables or tuple(entry.table for entry in source.aggregates),
        change_log_window_ms=source.change_log_window_ms,
    )
