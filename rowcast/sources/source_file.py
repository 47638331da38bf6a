"""
The source file, ``connectors/<source>.yaml``: what a team declares about one source.

Reading it needs no database and no broker. Everything wrong in a file is reported in one go, each with
line, field and the accepted values; see docs/reference/source-file.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rowcast.errors import ConfigurationError
from rowcast.sources.document import Document, DocumentError, Fault, Section

FOLDER = "connectors"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_NAME_FORM = "lower-case letters, digits and _, a letter first, at most 48"
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}\.[A-Za-z_][A-Za-z0-9_$]{0,62}")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&'()*+,\-./0-9:;=?@A-Za-z\[\]_~]+")
_CONTRACT = re.compile(r"v(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
_ANY = re.compile(r"[^\x00]{1,63}")
_SHORTEST_WINDOW_MS = 48 * 3_600_000
_FIELDS = (
    "source",
    "database",
    "domain",
    "uri",
    "windows",
    "allow_short_windows",
    "topics",
    "refusals",
    "aggregates",
)
_AGGREGATE_FIELDS = ("table", "id", "parent", "contract", "fields")


@dataclass(frozen=True, slots=True)
class ParentEntry:
    """The parent of an aggregate and the *columns* that hold the parent's id."""

    aggregate: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateEntry:
    """One declared aggregate; *contract* is (major, minor) or None for the newest."""

    name: str
    table: str
    id: tuple[str, ...]
    parent: ParentEntry | None
    contract: tuple[int, int] | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A source as declared. *aggregates* stand in the order of the file; *lines* maps dotted fields to lines."""

    path: Path
    source: str
    database: str
    domain: str
    uri: str
    events_window_ms: int
    change_log_window_ms: int
    partitions: int
    replication_factor: int
    refused_share_max: float
    aggregates: tuple[AggregateEntry, ...]
    lines: Mapping[str, int] = field(repr=False)

    def fault(self, name: str, message: str, accepted: str = "") -> Fault:
        """A fault at the declared field *name*, or at the nearest section above it."""
        section = name
        while section and section not in self.lines:
            section = section.rpartition(".")[0]
        return Fault(self.lines.get(section, 1), name, message, accepted)


def source_names(project: Path) -> tuple[str, ...]:
    """The sources that have a file in a project folder, in order."""
    return tuple(_paths(project))


def _paths(project: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((project / FOLDER).glob("*.yaml"))}


def load_sources(project: Path, names: Sequence[str] = ()) -> tuple[SourceFile, ...]:
    """
    The sources of a project folder, by name: those in *names*, or all.

    Raises:
        ConfigurationError: a file is wrong or missing, or two sources publish the same aggregate.

    """
    folder = project / FOLDER
    known = _paths(project)
    for name in names:
        if name not in known:
            fix = f"known sources: {', '.join(known)}" if known else f"write {folder}/{name}.yaml"
            raise ConfigurationError(f"there is no source {name!r}", where=str(folder), fix=fix)
    if not known:
        raise ConfigurationError("no source file", where=str(folder), fix=f"write {folder}/<source>.yaml")
    sources = [load_source(path) for path in known.values()]
    _refuse_shared_topics(sources)
    return tuple(each for each in sources if not names or each.source in names)


def _refuse_shared_topics(sources: Sequence[SourceFile]) -> None:
    writers: dict[tuple[str, str], SourceFile] = {}
    for source in sources:
        for aggregate in source.aggregates:
            first = writers.setdefault((source.domain, aggregate.name), source)
            if first is not source:
                message = f"{source.domain}.{aggregate.name} is published by source {first.source!r} already"
                fault = source.fault(f"aggregates.{aggregate.name}", message, "one writing source for each aggregate")
                raise DocumentError(source.path, [fault])


def load_source(path: Path) -> SourceFile:
    """
    The source that the file *path* declares.

    Raises:
        DocumentError: the file is wrong; it carries every fault.

    """
    document = Document(path)
    root = document.root(_FIELDS)
    name = root.text("source", _NAME, _NAME_FORM)
    if name and name != path.stem:
        root.fault("source", f"{name!r} is not the name of the file", path.stem)
    windows = root.section("windows", ("events", "change_log"))
    topics = root.section("topics", ("partitions", "replication_factor"))
    short = root.truth("allow_short_windows")
    source = SourceFile(
        path=path,
        source=name,
        database=root.text("database", _NAME, "the name of a database: " + _NAME_FORM),
        domain=root.text("domain", _NAME, _NAME_FORM, default=name),
        uri=root.text("uri", _URI, "an absolute URI such as https://…", default=f"urn:rowcast:source:{name}"),
        events_window_ms=_window(windows, "events", short=short),
        change_log_window_ms=_window(windows, "change_log", short=short),
        partitions=int(topics.number("partitions", 6, (1, 1000), whole=True)),
        replication_factor=int(topics.number("replication_factor", 1, (1, 15), whole=True)),
        refused_share_max=_share(root.section("refusals", ("stop_above",))),
        aggregates=_aggregates(root),
        lines=document.lines,
    )
    document.refuse_faults()
    return source


def _window(windows: Section, name: str, *, short: bool) -> int:
    window_ms = windows.duration_ms(name, "7d")
    if window_ms < _SHORTEST_WINDOW_MS and not short:
        windows.fault(name, "shorter than the promised 48 hours", "48h or more; allow_short_windows: true for tests")
    return window_ms


def _share(refusals: Section) -> float:
    share = refusals.number("stop_above", 0.5, (0, 1))
    if share == 0:
        refusals.fault("stop_above", "would stop at once", "a share above 0, up to 1")
    return share


def _aggregates(root: Section) -> tuple[AggregateEntry, ...]:
    section = root.section("aggregates")
    if not section.nodes:
        root.fault("aggregates", "declares no aggregate", "<name>: {table: …, id: …}")
    entries = []
    for name in section:
        if not _NAME.fullmatch(name):
            section.fault(name, f"{name!r} is not accepted as a name", _NAME_FORM)
        entries.append(_aggregate(section.section(name, _AGGREGATE_FIELDS), name))
    _check_tables(section, entries)
    _check_parents(section, entries)
    return tuple(entries)


def _aggregate(section: Section, name: str) -> AggregateEntry:
    contract = _CONTRACT.fullmatch(section.text("contract", _CONTRACT, "v<major>.<minor>, such as v1.0", default=""))
    if contract and contract[1] == "0":
        section.fault("contract", "the first major version is 1", "v1.0 or newer")
    renamed = section.section("fields")
    return AggregateEntry(
        name=name,
        table=section.text("table", _TABLE, "schema.table, such as public.item"),
        id=section.texts("id", "a column, or a list of columns"),
        parent=_parent(section) if "parent" in section else None,
        contract=(int(contract[1]), int(contract[2])) if contract else None,
        fields={each: renamed.text(each, _ANY, "the name of a column") for each in renamed},
    )


def _parent(section: Section) -> ParentEntry:
    parent = section.section("parent", ("aggregate", "column"))
    return ParentEntry(
        parent.text("aggregate", _NAME, "the name of an aggregate of this file"),
        parent.texts("column", "the column, or list of columns, that holds the parent's id"),
    )


def _check_tables(section: Section, entries: Sequence[AggregateEntry]) -> None:
    owners: dict[str, str] = {}
    for entry in entries:
        owner = owners.setdefault(entry.table, entry.name)
        if entry.table and owner != entry.name:
            section.fault(f"{entry.name}.table", f"{entry.table} belongs to aggregate {owner!r}", "a table of its own")


def _check_parents(section: Section, entries: Sequence[AggregateEntry]) -> None:
    by_name = {entry.name: entry for entry in entries}
    for entry in entries:
        if entry.parent is None or not entry.parent.aggregate:
            continue
        field_name = f"{entry.name}.parent.aggregate"
        parent = by_name.get(entry.parent.aggregate)
        if parent is None:
            accepted = ", ".join(name for name in by_name if name != entry.name) or "no other aggregate is declared"
            section.fault(field_name, f"there is no aggregate {entry.parent.aggregate!r}", accepted)
        elif _is_own_ancestor(entry, by_name):
            section.fault(field_name, f"{entry.name!r} would be its own ancestor", "a hierarchy without cycles")
        elif len(parent.id) != len(entry.parent.columns) and parent.id and entry.parent.columns:
            section.fault(
                f"{entry.name}.parent.column",
                f"the id of {parent.name!r} has {len(parent.id)} columns, not {len(entry.parent.columns)}",
                "one column for each of: " + ", ".join(parent.id),
            )


def _is_own_ancestor(entry: AggregateEntry, by_name: Mapping[str, AggregateEntry]) -> bool:
    above, seen = entry.parent, set[str]()
    while above is not None and above.aggregate in by_name and above.aggregate not in seen:
        if above.aggregate == entry.name:
            return True
        seen.add(above.aggregate)
        above = by_name[above.aggregate].parent
    return False
