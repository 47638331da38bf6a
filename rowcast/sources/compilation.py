"""
From source file, contracts and catalogue to the definition that workers run.

Pure. An aggregate publishes exactly the properties of its contract; each has to have a column whose values
fit it, so that a mistake shows here and not as a refused event at night.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from rowcast.contracts.checking import pointer_of
from rowcast.contracts.contract import Contract
from rowcast.sources import disclosure
from rowcast.sources.catalogue import Catalogue, Table
from rowcast.sources.column_type import id_family
from rowcast.sources.declared_contract import former_name
from rowcast.sources.definition import (
    AggregateDefinition,
    ColumnDefinition,
    FormerMajor,
    ParentDefinition,
    SourceDefinition,
    TableDefinition,
    ThroughDefinition,
)
from rowcast.sources.disclosure import disclosed, disclosed_embedded, published_but
from rowcast.sources.document import DocumentError, Fault
from rowcast.sources.embedding import EmbeddedDefinition
from rowcast.sources.embedding_fit import Misfit, completed, embedding_misfits, link_misfits
from rowcast.sources.field import FieldDefinition
from rowcast.sources.function_module import load_functions, misfit
from rowcast.sources.place import Place, parse_place
from rowcast.sources.property_fit import document_misfits, misfits, nearest, row_condition_misfits
from rowcast.sources.reference_fit import LookedUp, looked_up, reference_misfits
from rowcast.sources.source_file import AggregateEntry, FormerEntry, SourceFile
from rowcast.sources.stated_event import compile_events
from rowcast.sources.tenant import TENANT_COLUMN, is_pattern

# The first server that publishes chosen columns of a table.
_COLUMN_LISTS = 150_000


def compile_definition(source: SourceFile, contracts: Mapping[str, Contract], catalogue: Catalogue) -> SourceDefinition:
    """
    The definition of *source*; *contracts* are those of `contracts_of`. Aggregates stand parents first.

    Raises:
        DocumentError: file, contracts and catalogue do not fit together; every fault names field and fix.

    """
    faults = [*_function_faults(source), *_former_faults(source, contracts)]
    for entry in source.aggregates:
        table = catalogue.tables.get(entry.table)
        faults.extend(_unclassified_faults(source, entry, contracts))
        if table is None:
            message = f"{entry.table} does not exist in database {catalogue.database!r}"
            faults.append(source.fault(f"aggregates.{entry.name}.table", message))
        else:
            faults.extend(_aggregate_faults(source, entry, contracts, catalogue))
            faults.extend(_parent_faults(source, entry, catalogue))
    for reference in source.references:
        for place, message, accepted in reference_misfits(reference, catalogue):
            faults.append(source.fault(f"references.{reference.name}.{place}", message, accepted))
    if faults:
        raise DocumentError(source.path, faults)
    definition = _definition(source, contracts, catalogue)
    faults = list(_tenant_faults(source, definition, catalogue))
    if faults:
        raise DocumentError(source.path, faults)
    return definition


def _tenant_faults(source: SourceFile, definition: SourceDefinition, catalogue: Catalogue) -> Iterator[Fault]:
    """What of the tables of tenants forbids that they are mapped alike."""
    for table in definition.tables:
        if not is_pattern(table.name):
            continue
        at = next(at for at, name in source.named_tables() if name == table.name)
        first = catalogue.tables[table.name].present[0].name
        for present in catalogue.tables[table.name].present:
            if present.column(TENANT_COLUMN) is not None:
                yield source.fault(at, f"{present.name} has a column {TENANT_COLUMN!r}", "another name")
            for column in table.columns:
                found = present.column(column.name)
                if found is None or found.type != column.type:
                    what = f"has no column {column.name!r}" if found is None else f"{column.name!r} is {found.type}"
                    message = f"{present.name}: {what}, in {first} it is {column.type}"
                    yield source.fault(at, message, "the same columns in the tables of all tenants")
        dated = [column.name for column in table.columns if column.type == "date"]
        if dated:
            message = f"column {dated[0]!r} of {table.name} is a date: a first snapshot cannot read it of any tenant"
            yield source.fault(at, message, "a timestamp, a text, or a table without tenant")


def _definition(source: SourceFile, contracts: Mapping[str, Contract], catalogue: Catalogue) -> SourceDefinition:
    aggregates = [_aggregate(source, entry, contracts) for entry in _parents_first(source.aggregates)]
    embedded = [each for aggregate in aggregates for _, each in aggregate.embeddings()]
    parents = [aggregate.parent for aggregate in aggregates if aggregate.parent is not None]
    return SourceDefinition(
        source=source.source,
        domain=source.domain,
        uri=source.uri,
        partitions=source.partitions,
        replication_factor=source.replication_factor,
        events_window_ms=source.events_window_ms,
        change_log_window_ms=source.change_log_window_ms,
        refused_share_max=source.refused_share_max,
        functions=source.functions if _uses_functions(source) else "",
        aggregates=tuple(aggregates),
        tables=(
            *(_table(catalogue, each.table, each.places, each.dropped) for each in aggregates),
            *(_table(catalogue, each.table, each.places, each.dropped) for each in embedded),
            *(
                _table(catalogue, each.through.table, (*each.through.columns, *each.columns), {})
                for each in parents
                if each.through is not None
            ),
            *(_table(catalogue, each.table, (each.value,), {}) for each in source.references),
        ),
        references=source.references,
    )


def _calls(source: SourceFile) -> Iterator[tuple[str, FieldDefinition]]:
    for entry in source.aggregates:
        sections = [(f"aggregates.{entry.name}", entry.fields)]
        sections += [(at, embedded.fields) for at, embedded in entry.embeddings()]
        for at, fields in sections:
            yield from ((f"{at}.fields.{name}", each) for name, each in fields.items() if each.function is not None)


def _uses_functions(source: SourceFile) -> bool:
    return any(True for _ in _calls(source)) or any(entry.former for entry in source.aggregates)


def _function_faults(source: SourceFile) -> Iterator[Fault]:
    functions = load_functions(source.functions, source.source) if _uses_functions(source) else {}
    for at, field in _calls(source):
        wrong = misfit(functions, field.function or "", field.inputs)
        if wrong is not None:
            yield source.fault(at, *wrong)
    for entry in source.aggregates:
        for former in entry.former:
            wrong = misfit(functions, former.function, (), places=1)
            if wrong is not None:
                yield source.fault(f"aggregates.{entry.name}.former.v{former.contract[0]}.{former.contract[1]}", *wrong)


def _former_faults(source: SourceFile, contracts: Mapping[str, Contract]) -> Iterator[Fault]:
    """
    What is wrong with older majors. All have the same hierarchy, because their versions are made from the same rows;
    and all go by the source's rules for personal data.
    """
    for entry in source.aggregates:
        for each in entry.former:
            contract = contracts[former_name(entry.name, each.contract[0])]
            if contract.ancestors != contracts[entry.name].ancestors:
                message = f"{contract.path} declares other x-ancestors than {contracts[entry.name].path}"
                yield source.fault(f"aggregates.{entry.name}.former.{contract.version}", message, "the same in all")
            for pointer, message, accepted in disclosure.older_doubts(source, contract):
                fault = source.fault(f"aggregates.{entry.name}.former.{contract.version}", message, accepted)
                yield replace(fault, place=f"{contract.path}#{pointer}")


def _parents_first(entries: tuple[AggregateEntry, ...]) -> list[AggregateEntry]:
    placed: dict[str, AggregateEntry] = {}
    while len(placed) < len(entries):  # ends: the file's reader refuses cycles and unknown parents
        for entry in entries:
            if entry.name not in placed and (entry.parent is None or entry.parent.aggregate in placed):
                placed[entry.name] = entry
    return list(placed.values())


def _fields_of(entry: AggregateEntry, contract: Contract) -> dict[str, FieldDefinition]:
    """Where each property's value comes from: as the file says, else its own name in the document or the row."""
    embedded = {each.name for each in entry.embedded}
    return {
        name: entry.fields.get(name)
        or FieldDefinition(place=pointer_of((entry.document, name)) if entry.document else name)
        for name in contract.properties
        if name not in embedded
    }


def _aggregate(source: SourceFile, entry: AggregateEntry, contracts: Mapping[str, Contract]) -> AggregateDefinition:
    parent, contract = entry.parent, contracts[entry.name]
    handlings = published_but(source)
    fields, dropped = disclosed(_fields_of(entry, contract), contract.entity, handlings)
    return AggregateDefinition(
        name=entry.name,
        table=entry.table,
        id=entry.id,
        parent=None
        if parent is None
        else ParentDefinition(aggregate=parent.aggregate, columns=parent.columns, through=parent.through),
        fields=fields,
        major=contract.major,
        minor=contract.minor,
        entity_schema=contract.entity,
        value_schema=contract.value_schema(),
        dataschema=contract.dataschema,
        where=entry.where,
        soft_delete=entry.soft_delete,
        events=compile_events(entry.name, entry.events, contracts),
        embedded=tuple(
            disclosed_embedded(completed(each, contract), contract.entity, handlings) for each in entry.embedded
        ),
        handlings=handlings,
        dropped=dropped,
        former=tuple(_former(entry, each, contracts) for each in entry.former),
        deprecation=contract.deprecation,
    )


def _former(entry: AggregateEntry, former: FormerEntry, contracts: Mapping[str, Contract]) -> FormerMajor:
    contract = contracts[former_name(entry.name, former.contract[0])]
    return FormerMajor(
        major=contract.major,
        minor=contract.minor,
        function=former.function,
        value_schema=contract.value_schema(),
        dataschema=contract.dataschema,
        events=compile_events(entry.name, entry.events, {**contracts, entry.name: contract}),
        deprecation=contract.deprecation,
    )


def _table(
    catalogue: Catalogue, name: str, places: Iterable[str], dropped: Mapping[str, FieldDefinition]
) -> TableDefinition:
    table = catalogue.tables[name]
    # What nothing names is not captured at all: it stays out of the change log, not only out of the events.
    needed = {*table.row_key, *(parse_place(place).column for place in places)}
    hidden = {parse_place(place).column for each in dropped.values() for place in each.places} - needed
    return TableDefinition(
        name=table.name,
        columns=tuple(
            ColumnDefinition(name=column.name, type=column.type, nullable=column.nullable)
            for column in table.columns
            if column.name in needed
        ),
        key=table.row_key,
        replica_identity=table.replica_identity,
        # A list of columns that lacks one of the replica identity would make the application's own UPDATE fail.
        narrow=bool(hidden)
        and catalogue.version >= _COLUMN_LISTS
        and table.replica_identity in {"d", "i"}
        and not table.leaf_identities,
    )


def _aggregate_faults(
    source: SourceFile, entry: AggregateEntry, contracts: Mapping[str, Contract], catalogue: Catalogue
) -> Iterator[Fault]:
    table, contract = catalogue.tables[entry.table], contracts[entry.name]
    found = {each.name: looked_up(each, catalogue) for each in source.references}
    references = {name: each for name, each in found.items() if each is not None}
    at = f"aggregates.{entry.name}"
    if "ancestors" in contract.properties:
        yield source.fault(f"{at}.contract", f"{contract.path}: a property cannot be called 'ancestors'")
    hierarchy = _hierarchy(source, entry)
    if contract.ancestors != hierarchy:
        message = f"{contract.path} declares x-ancestors {list(contract.ancestors)}, this file {list(hierarchy)}"
        yield source.fault(f"{at}.parent", message, "the same hierarchy in both, nearest ancestor first")
    yield from _id_faults(source, entry, table)
    if entry.document:
        for message, accepted in document_misfits(entry.document, table):
            yield source.fault(f"{at}.document", message, accepted)
    for name in entry.fields:
        if name not in contract.properties:
            message = f"{contract.path} has no property {name!r}"
            yield source.fault(f"{at}.fields.{name}", message, ", ".join(contract.properties))
    published = _aggregate(source, entry, contracts)
    for name, field in {**published.fields, **published.dropped}.items():
        if name in entry.fields or not entry.document:
            yield from _property_faults(source, entry, (contract, name, field), (table, references))
    keys = {each.name: each.row_key for each in catalogue.tables.values()}
    for name, message, accepted in disclosure.misfits(published, contract, keys):
        yield source.fault(f"{at}.{name}", message, accepted)
    for place, message, accepted in row_condition_misfits(entry.where, entry.soft_delete, table):
        yield source.fault(f"{at}.{place}", message, accepted)
    for each in embedding_misfits((at, table, contract), entry.embedded, (catalogue, references)):
        yield _fault_of(source, contract, each)


def _fault_of(source: SourceFile, contract: Contract, misfit: Misfit) -> Fault:
    fault = source.fault(misfit.at, misfit.message, misfit.accepted)
    return replace(fault, place=f"{contract.path}#{misfit.pointer}") if misfit.pointer else fault


def _unclassified_faults(
    source: SourceFile, entry: AggregateEntry, contracts: Mapping[str, Contract]
) -> Iterator[Fault]:
    stated = [contracts[name] for name in contracts if name.startswith(f"{entry.name}.")]
    doubts = [(contracts[entry.name], each) for each in disclosure.unclassified(source, entry, contracts[entry.name])]
    doubts += [(contract, each) for contract in stated for each in disclosure.hidden_in_stated(source, contract)]
    for contract, (pointer, message, accepted) in doubts:
        fault = source.fault(f"aggregates.{entry.name}", message, accepted)
        yield replace(fault, place=f"{contract.path}#{pointer}")


def _id_faults(source: SourceFile, entry: AggregateEntry, table: Table) -> Iterator[Fault]:
    at = f"aggregates.{entry.name}.id"
    places = [parse_place(each) for each in entry.id]
    from_document = any(place.path is not None for place in places)
    if entry.id != table.id_columns and not from_document:
        message = f"{list(entry.id)} is not the primary key of {table.name}"
        yield source.fault(at, message, ", ".join(table.id_columns) + "; or a place in a document, /<column>/<path>")
        return
    for name in dict.fromkeys((*table.row_key, *table.id_columns)):  # it names the rows, whatever names the aggregates
        column = table.column(name)
        if column and id_family(column) is None:
            message = f"column {name!r} of type {column.type} has no one text form that could be an id"
            where = at if name in entry.id else f"aggregates.{entry.name}.table"
            yield source.fault(where, message, "integer, text, varchar, uuid, date or enum columns")
    for place in places if from_document else ():
        yield from _link_faults(source, at, table, place)


def _link_faults(source: SourceFile, at: str, table: Table, place: Place) -> Iterator[Fault]:
    """What forbids that an id stands at *place*."""
    column = table.column(place.column)
    if column is None:
        yield source.fault(at, f"{table.name} has no column {place.column!r}", nearest(place.column, table))
    elif place.path is not None:
        for message, accepted in document_misfits(place.column, table):
            yield source.fault(at, message, accepted)
        if not place.path:
            yield source.fault(at, f"all of column {place.column!r} is no id", f"/{place.column}/<path>")
    elif id_family(column) is None:
        message = f"column {place.column!r} of type {column.type} has no one text form that could be an id"
        yield source.fault(at, message, "integer, text, varchar, uuid, date or enum columns")


def _property_faults(
    source: SourceFile,
    entry: AggregateEntry,
    named: tuple[Contract, str, FieldDefinition],
    known: tuple[Table, Mapping[str, LookedUp]],
) -> Iterator[Fault]:
    contract, name, _field = named
    for message, accepted in misfits(named, known):
        if name in entry.fields:
            yield source.fault(f"aggregates.{entry.name}.fields.{name}", message, accepted)
        else:  # nothing in the file names it: the contract alone does
            fault = source.fault(f"aggregates.{entry.name}", message, accepted)
            yield replace(fault, place=f"{contract.path}#{pointer_of(('properties', name))}")


def _hierarchy(source: SourceFile, entry: AggregateEntry) -> tuple[str, ...]:
    by_name = {each.name: each for each in source.aggregates}
    names: list[str] = []
    while entry.parent is not None:
        entry = by_name[entry.parent.aggregate]
        names.append(entry.name)
    return tuple(names)


def _through_faults(
    source: SourceFile, entry: AggregateEntry, definition: ThroughDefinition, tables: tuple[Table, Table | None]
) -> Iterator[Fault]:
    at, (table, through) = f"aggregates.{entry.name}.parent.through", tables
    if through is None:
        yield source.fault(f"{at}.table", f"{definition.table} does not exist")
        return
    if entry.where or entry.soft_delete or entry.id != table.row_key:
        message = "rows of a link table bind aggregates by primary key, and all of them count"
        yield source.fault(at, message, "an aggregate without where and soft_delete, whose id is the primary key")
        return
    link = EmbeddedDefinition(name="", table=definition.table, columns=definition.columns)
    for each in link_misfits(link, at, (through, table)):
        yield source.fault(each.at, each.message, each.accepted)


def _parent_faults(source: SourceFile, entry: AggregateEntry, catalogue: Catalogue) -> Iterator[Fault]:
    if entry.parent is None:
        return
    parent = next(each for each in source.aggregates if each.name == entry.parent.aggregate)
    at, parent_table = f"aggregates.{entry.name}.parent.column", catalogue.tables.get(parent.table)
    table = catalogue.tables[entry.table]
    if entry.parent.through is not None:
        through = catalogue.tables.get(entry.parent.through.table)
        faults = list(_through_faults(source, entry, entry.parent.through, (table, through)))
        yield from faults
        if faults or through is None:
            return
        table = through
    for text, parent_text in zip(entry.parent.columns, parent.id, strict=True):
        place, parent_place = parse_place(text), parse_place(parent_text)
        faults = list(_link_faults(source, at, table, place))
        yield from faults
        if faults or place.path is not None or parent_place.path is not None:
            continue  # what a document holds has no type of its own
        column, parent_column = table.column(text), parent_table.column(parent_text) if parent_table else None
        if column is not None and parent_column is not None and id_family(column) != id_family(parent_column):
            message = f"{table.name}.{text} is {column.type}, {parent.table}.{parent_text} is {parent_column.type}"
            yield source.fault(at, message, "a column of the same type, so that both give one id text")
