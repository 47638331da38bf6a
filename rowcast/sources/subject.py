"""
What the status of a source is read by: its names, and the tables that have to be captured.

A source runs as it was applied, so the applied definition counts; its file only where nothing was applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rowcast.control.database import connect as connect_control
from rowcast.settings import Settings
from rowcast.sources.control_plan import knows_sources
from rowcast.sources.definition import SourceDefinition
from rowcast.sources.lost_source import find_database
from rowcast.sources.source_file import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """
    A source to look at; *tables* are those that have to be captured, each with its captured columns (None: all).

    *database* is its name in the settings; None when the source's file is gone and it is not known any more.
    """

    source: str
    database: str | None
    tables: Mapping[str, frozenset[str] | None]
    change_log_window_ms: int
    has_file: bool = True

    @property
    def apply(self) -> str:
        """The command that makes what is missing."""
        command = f"`rowcast sources apply {self.source}`"
        return command if self.has_file else f"put its file back, then {command}"

    @property
    def start_over(self) -> str:
        """The commands that capture the source anew."""
        return f"{self.remove}, then {self.apply}: it takes a new snapshot"

    @property
    def remove(self) -> str:
        """The command that takes the source out of service."""
        database = "" if self.database else " --database NAME"
        return f"`rowcast sources remove {self.source}{database} --yes`"


def read_applied(settings: Settings) -> dict[str, SourceDefinition]:
    """The definitions that were applied and not removed since, by source."""
    with connect_control(settings.control().url, application="rowcast sources", autocommit=True) as connection:
        if not knows_sources(connection):
            return {}
        rows = connection.execute("SELECT definition FROM rowcast.source WHERE NOT removed ORDER BY source").fetchall()
    definitions = [SourceDefinition.from_json(row[0]) for row in rows]
    return {each.source: each for each in definitions}


def subject_without_file(definition: SourceDefinition, settings: Settings) -> Subject:
    """What to look at for a source that was applied and whose file is gone."""
    return Subject(
        source=definition.source,
        database=find_database(definition.source, settings),
        tables={each.name: each.captured for each in definition.tables},
        change_log_window_ms=definition.change_log_window_ms,
        has_file=False,
    )


def subject_of(source: SourceFile, applied: Mapping[str, SourceDefinition]) -> Subject:
    """What to look at for the source of a file."""
    definition = applied.get(source.source)
    tables: dict[str, frozenset[str] | None] = dict.fromkeys(source.tables)
    if definition is not None:
        tables = {each.name: each.captured for each in definition.tables}
    return Subject(
        source=source.source,
        database=source.database,
        tables=tables,
        change_log_window_ms=source.change_log_window_ms,
    )
