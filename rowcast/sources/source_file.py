"""
The source file, ``connectors/<source>.yaml``: what a team declares about one source.

Reading it needs no database and no broker. Everything wrong in a file is reported in one go, each with
line, field and the accepted values; see docs/reference/source-file.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rowcast.contracts.personal_data import NOT_PERSONAL, UNCLASSIFIED, Handling
from rowcast.errors import ConfigurationError
from rowcast.sources.definition import ReferenceDefinition, ThroughDefinition
from rowcast.sources.document import Document, DocumentError, Fault, Section
from rowcast.sources.embedding import EmbeddedDefinition, read_embedded
from rowcast.sources.field import (
    ConditionDefinition,
    FieldDefinition,
    read_conditions,
    read_field,
    read_handling,
    read_place,
    read_places,
)
from rowcast.sources.stated_event import Entries, read_events
from rowcast.sources.tenant import TABLE_OR_PATTERN, is_pattern, meeting

FOLDER = "connectors"
SOURCE_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
SOURCE_NAME_FORM = "lower-case letters, digits and _, a letter first, at most 48"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!#$%&'()*+,\-./0-9:;=?@A-Za-z\[\]_~]+")
_CONTRACT = re.compile(r"v(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
_CONTRACT_FORM = "v<major>.<minor>, such as v1.0"
_FUNCTION = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
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
    "references",
    "pii",
    "aggregates",
)
_AGGREGATE_FIELDS = (
    *("table", "document", "id", "parent", "where", "soft_delete", "contract", "former", "fields", "embedded"),
    "events",
)


_COLUMN_FORM = "the name of a column"


@dataclass(frozen=True, slots=True)
class ParentEntry:
    """
    The parent of an aggregate and the *columns*, or places in documents, that hold the parent's id.

    With *through* they are columns of that table.
    """

    aggregate: str
    columns: tuple[str, ...]
    through: ThroughDefinition | None = None


@dataclass(frozen=True, slots=True)
class FormerEntry:
    """An older version that is published too: *contract* is (major, minor), *function* the downcaster."""

    contract: tuple[int, int]
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateEntry:
    """
    One declared aggregate; *contract* is (major, minor) or None for the newest. *former* are the older majors that go
    out too, the newest first.

    *id* and *parent* hold places (`rowcast.sources.place`); *document* is the column whose document is the entity,
    empty where columns are. Only rows that fulfil all conditions of *where* count, and of these only those that have
    nothing, or false, at *soft_delete*. *events* are those that services state, with their contracts.
    """

    name: str
    table: str
    document: str
    id: tuple[str, ...]
    parent: ParentEntry | None
    contract: tuple[int, int] | None
    fields: Mapping[str, FieldDefinition]
    where: tuple[ConditionDefinition, ...] = ()
    soft_delete: str = ""
    embedded: tuple[EmbeddedDefinition, ...] = ()
    events: Entries = field(default_factory=dict)
    former: tuple[FormerEntry, ...] = ()

    def embeddings(self) -> Iterator[tuple[str, EmbeddedDefinition]]:
        """All embedded tables at any level, each with its dotted field."""
        for each in self.embedded:
            for path, embedded in each.with_below():
                yield ".".join((f"aggregates.{self.name}", *(f"embedded.{name}" for name in path))), embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """
    A source as declared. *aggregates* stand in the order of the file; *lines* maps dotted fields to lines.

    *functions* is the text of the module of functions beside the file; empty when there is none. *pii* says what is
    done with which class of personal data; None where the file does not say.
    """

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
    functions: str = field(default="", repr=False)
    references: tuple[ReferenceDefinition, ...] = ()
    pii: Mapping[str, Handling] | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the file names."""
        return tuple(table for _, table in self.named_tables())

    def named_tables(self) -> Iterator[tuple[str, str]]:
        """Each dotted field that names a table, with that name."""
        for entry in self.aggregates:
            yield f"aggregates.{entry.name}.table", entry.table
        for entry in self.aggregates:
            yield from ((f"{at}.table", embedded.table) for at, embedded in entry.embeddings())
            if entry.parent is not None and entry.parent.through is not None:
                yield f"aggregates.{entry.name}.parent.through.table", entry.parent.through.table
        for each in self.references:
            yield f"references.{each.name}.table", each.table

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
    name = root.text("source", SOURCE_NAME, SOURCE_NAME_FORM)
    if name and name != path.stem:
        root.fault("source", f"{name!r} is not the name of the file", path.stem)
    windows = root.section("windows", ("events", "change_log"))
    topics = root.section("topics", ("partitions", "replication_factor"))
    short = root.truth("allow_short_windows")
    source = SourceFile(
        path=path,
        source=name,
        database=root.text("database", SOURCE_NAME, "the name of a database: " + SOURCE_NAME_FORM),
        domain=root.text("domain", SOURCE_NAME, SOURCE_NAME_FORM, default=name),
        uri=root.text("uri", _URI, "an absolute URI such as https://…", default=f"urn:rowcast:source:{name}"),
        events_window_ms=_window(windows, "events", short=short),
        change_log_window_ms=_window(windows, "change_log", short=short),
        partitions=int(topics.number("partitions", 6, (1, 1000), whole=True)),
        replication_factor=int(topics.number("replication_factor", 1, (1, 15), whole=True)),
        refused_share_max=_share(root.section("refusals", ("stop_above",))),
        aggregates=_aggregates(root),
        lines=document.lines,
        functions=_functions(path),
        references=_references(root),
        pii=_handlings(root) if "pii" in root else None,
    )
    document.faults.extend(_table_faults(source))
    document.faults.extend(_tenant_faults(source))
    document.faults.extend(_reference_faults(source))
    document.faults.extend(_embedding_faults(source))
    document.refuse_faults()
    return source


def _references(root: Section) -> tuple[ReferenceDefinition, ...]:
    section = root.section("references")
    entries = []
    for name in section:
        if not SOURCE_NAME.fullmatch(name):
            section.fault(name, f"{name!r} is not accepted as a name", SOURCE_NAME_FORM)
        entry = section.section(name, ("table", "key", "value"))
        entries.append(
            ReferenceDefinition(
                name=name,
                table=entry.text("table", TABLE_OR_PATTERN, "schema.table, such as public.item_status"),
                key=entry.text("key", _ANY, _COLUMN_FORM),
                value=read_place(entry, "value"),
            )
        )
    return tuple(entries)


def _table_faults(source: SourceFile) -> Iterator[Fault]:
    """Every aggregate, embedded table and reference has a table of its own."""
    owners: dict[str, str] = {}
    for at, table in source.named_tables():
        kind, *path = at.split(".")[:-1]
        owner = f"{kind.removesuffix('s')} {path[0]!r}" + "".join(f", {each}" for each in [".".join(path[1:])] if each)
        first = owners.setdefault(table, owner)
        if table and first != owner:
            yield source.fault(at, f"{table} belongs to {first}", "a table of its own")


def _tenant_faults(source: SourceFile) -> Iterator[Fault]:
    """What is tied together is of one tenant, and no table of the database is two of the file's."""
    by_name = {each.name: each for each in source.aggregates}
    for first, second in meeting(source.tables):
        at = next(at for at, table in source.named_tables() if table == first)
        message = f"{first} and {second} may be the same table of the database"
        yield source.fault(at, message, "names of which no table fulfils two")
    for entry in source.aggregates:
        at, has_tenant = f"aggregates.{entry.name}", is_pattern(entry.table)
        tied = [(f"{at}.{each}", table) for each, table in _tied(entry, by_name)]
        tied += [(f"{place}.table", each.table) for place, each in entry.embeddings()]
        for place, table in tied:
            if table and entry.table and is_pattern(table) is not has_tenant:
                message = f"{table} {'has no' if has_tenant else 'has a'} tenant, {entry.table} {_HAS[has_tenant]}"
                yield source.fault(place, message, "{tenant} in both, or in none")
        if has_tenant and entry.events:
            message = "a stated event names no tenant, so it cannot be told whose it is"
            yield source.fault(f"{at}.events", message, "none for an aggregate whose table has a tenant")
        yield from _tenant_reference_faults(source, entry)


_HAS = {True: "has one", False: "has none"}


def _tied(entry: AggregateEntry, by_name: Mapping[str, AggregateEntry]) -> Iterator[tuple[str, str]]:
    """The tables above an aggregate's and beside it, each with the field that names it."""
    if entry.parent is None:
        return
    if entry.parent.aggregate in by_name:
        yield "parent.aggregate", by_name[entry.parent.aggregate].table
    if entry.parent.through is not None:
        yield "parent.through.table", entry.parent.through.table


def _tenant_reference_faults(source: SourceFile, entry: AggregateEntry) -> Iterator[Fault]:
    """A table without tenant cannot look up in one that has it; the other way round all tenants share the table."""
    if is_pattern(entry.table):
        return
    tables = {each.name: each.table for each in source.references}
    sections = [(f"aggregates.{entry.name}", entry.fields)]
    sections += [(at, embedded.fields) for at, embedded in entry.embeddings()]
    for at, name, each in ((at, name, each) for at, fields in sections for name, each in fields.items()):
        table = tables.get(each.reference or "", "")
        if is_pattern(table):
            message = f"{table} has a tenant, {entry.table} has none"
            yield source.fault(f"{at}.fields.{name}.reference", message, "{tenant} in both, or not in the reference's")


def _handlings(root: Section) -> dict[str, Handling]:
    section = root.section("pii")
    for name in section:
        if name in {NOT_PERSONAL, UNCLASSIFIED}:
            section.fault(name, f"{name!r} is no class of personal data", "a class that contracts name in x-pii")
    return {name: read_handling(section, name) for name in section}


def _reference_faults(source: SourceFile) -> Iterator[Fault]:
    """Every field's reference is declared."""
    names = [each.name for each in source.references]
    for entry in source.aggregates:
        sections = [(f"aggregates.{entry.name}", entry.fields)]
        sections += [(at, embedded.fields) for at, embedded in entry.embeddings()]
        for at, name, each in ((at, name, each) for at, fields in sections for name, each in fields.items()):
            if each.reference is not None and each.reference not in names:
                message = f"there is no reference {each.reference!r}"
                accepted = ", ".join(names) or "an entry of `references`"
                yield source.fault(f"{at}.fields.{name}.reference", message, accepted)


def _embedding_faults(source: SourceFile) -> Iterator[Fault]:
    """A property is a field or embedded."""
    for entry in source.aggregates:
        above = [(f"aggregates.{entry.name}", entry.fields, entry.embedded)]
        above += [(at, each.fields, each.embedded) for at, each in entry.embeddings()]
        for at, fields, embedded in above:
            for each in embedded:
                if each.name in fields:
                    yield source.fault(f"{at}.embedded.{each.name}", "is a field, too", "`fields` or `embedded`")


def _functions(path: Path) -> str:
    module = path.with_suffix(".py")
    try:
        return module.read_text(encoding="utf-8") if module.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(module), fix="correct the file") from error


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
        if not SOURCE_NAME.fullmatch(name):
            section.fault(name, f"{name!r} is not accepted as a name", SOURCE_NAME_FORM)
        entries.append(_aggregate(section.section(name, _AGGREGATE_FIELDS), name))
    _check_parents(section, entries)
    return tuple(entries)


def _aggregate(section: Section, name: str) -> AggregateEntry:
    contract = _version(section, section.text("contract", _CONTRACT, _CONTRACT_FORM, default=""))
    renamed = section.section("fields")
    return AggregateEntry(
        name=name,
        table=section.text("table", TABLE_OR_PATTERN, "schema.table, such as public.item"),
        document=section.text("document", _ANY, "the name of a json or jsonb column", default=""),
        id=read_places(section, "id", "a column, or a list of columns"),
        parent=_parent(section) if "parent" in section else None,
        contract=contract,
        fields={each: read_field(renamed, each) for each in renamed},
        where=read_conditions(section, "where"),
        soft_delete=read_place(section, "soft_delete", default=""),
        embedded=read_embedded(section, TABLE_OR_PATTERN),
        events=read_events(section),
        former=_former(section, contract) if "former" in section else (),
    )


def _version(section: Section, text: str) -> tuple[int, int] | None:
    version = _CONTRACT.fullmatch(text)
    if version and version[1] == "0":
        section.fault("contract", "the first major version is 1", "v1.0 or newer")
    return (int(version[1]), int(version[2])) if version else None


def _former(section: Section, newest: tuple[int, int] | None) -> tuple[FormerEntry, ...]:
    """The older majors by version, each with its downcaster."""
    former, entries = section.section("former"), dict[int, FormerEntry]()
    if newest is None:
        section.fault("contract", "has to be named where older majors are published too", _CONTRACT_FORM)
    for text in former:
        function = former.text(text, _FUNCTION, "the name of a function of connectors/<source>.py")
        if not _CONTRACT.fullmatch(text) or text.startswith("v0"):
            former.fault(text, f"{text!r} is no version", _CONTRACT_FORM)
            continue
        version = _version(former, text)
        assert version is not None, "its form was checked"
        if newest is not None and version[0] >= newest[0]:
            former.fault(text, f"is not older than v{newest[0]}.{newest[1]}", "a version of an older major")
        if version[0] in entries:
            former.fault(text, f"major {version[0]} is named twice", "one version of each older major")
        entries[version[0]] = FormerEntry(version, function)
    return tuple(entries[major] for major in sorted(entries, reverse=True))


def _parent(section: Section) -> ParentEntry:
    parent = section.section("parent", ("aggregate", "column", "through"))
    return ParentEntry(
        parent.text("aggregate", SOURCE_NAME, "the name of an aggregate of this file"),
        read_places(parent, "column", "the column, or list of columns, that holds the parent's id"),
        _through(parent.section("through", ("table", "column"))) if "through" in parent else None,
    )


def _through(section: Section) -> ThroughDefinition:
    return ThroughDefinition(
        table=section.text("table", TABLE_OR_PATTERN, "schema.table, such as public.bound_with"),
        columns=section.texts("column", "the column, or list of columns, that holds the aggregate's key"),
    )


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
