"""Drafting a project: read the database, decide, write. What `rowcast init` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from rowcast.draft.database_address import DatabaseAddress, declare
from rowcast.draft.listing import ListedTable, list_tables
from rowcast.draft.outline import Outline, draft_outline, nameable, snake_case
from rowcast.draft.project_files import Written, add_database, draft_bundles, frame_bundles, write_bundles
from rowcast.errors import ConfigurationError, DatabaseUnavailableError
from rowcast.settings import CONTROL_DATABASE
from rowcast.sources.admission import server_misfits
from rowcast.sources.catalogue import connect_source, read_catalogue
from rowcast.sources.source_file import SOURCE_NAME, SOURCE_NAME_FORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The draft of one source; *server* tells what the server lacks before anything can be applied."""

    source: str
    outline: Outline
    server: tuple[str, ...]


def read_draft(address: DatabaseAddress, source: str | None, tables: Sequence[str]) -> Draft:
    """
    The draft of a source from a database; nothing is written.

    *source* is its name, by default the database's; *tables* the only ones to draft, by default all.

    Raises:
        ConfigurationError: the login is refused, a table is not there, or nothing can be captured.
        DatabaseUnavailableError: the server did not answer.

    """
    try:
        with connect_source(address.settings) as connection:
            listed = _wanted(list_tables(connection), tables)
            catalogue = read_catalogue(connection, [each.name for each in listed if nameable(each)])
    except psycopg.errors.OperationalError as error:
        raise DatabaseUnavailableError(str(error).strip()) from error
    name = source or _source_name(address, catalogue.database)
    outline = draft_outline(listed, catalogue)
    if not outline.aggregates:
        reasons = [f"{table}: {reason}" for table, reason in outline.left_out.items()]
        message = "\n  ".join(["no table can be captured", *reasons]) if reasons else "there is no table"
        raise ConfigurationError(message, where=f"database {catalogue.database!r}", fix="a table with a primary key")
    server = tuple(f"{message}: {fix}" for message, fix in server_misfits(catalogue))
    return Draft(source=name, outline=outline, server=server)


def _wanted(listed: tuple[ListedTable, ...], tables: Sequence[str]) -> list[ListedTable]:
    names = {each if "." in each else f"public.{each}" for each in tables}
    missing = names - {each.name for each in listed}
    if missing:
        near = ", ".join(each.name for each in listed[:20]) or "none"
        raise ConfigurationError(
            f"there is no table {', '.join(sorted(missing))} that could be a source's", where="--table", fix=near
        )
    return [each for each in listed if not names or each.name in names]


def _source_name(address: DatabaseAddress, database: str) -> str:
    name = snake_case(database) if address.parameters is not None else address.settings.name
    if not SOURCE_NAME.fullmatch(name) or name == CONTROL_DATABASE:
        raise ConfigurationError(
            f"database {database!r} gives no name for the source", where="--source", fix=SOURCE_NAME_FORM
        )
    return name


def write_draft(folder: Path, address: DatabaseAddress, draft: Draft, *, overwrite: bool) -> list[Written]:
    """
    Write the project of *draft* into *folder*, and return what became of each file.

    Raises:
        ConfigurationError: a file cannot be read or written.

    """
    first = draft.outline.aggregates[0].name
    database = address.settings.name if address.parameters is None else draft.source
    written = write_bundles(folder, frame_bundles(draft.source, first), overwrite=False)
    entry = declare(address, draft.source, folder)
    if entry is not None:
        written.append(add_database(folder, draft.source, entry))
    return [*written, *write_bundles(folder, draft_bundles(draft.source, database, draft.outline), overwrite=overwrite)]


def write_frame(folder: Path) -> list[Written]:
    """Write what stands around a draft: settings, workflow, containers, README. Raises as `write_draft`."""
    name = snake_case(folder.resolve().name)
    source = name if SOURCE_NAME.fullmatch(name) else "shop"
    return write_bundles(folder, frame_bundles(source, "customer"), overwrite=False)
