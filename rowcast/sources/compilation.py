"""
From source file, contracts and catalogue to the definition that workers run.

Pure. An aggregate publishes exactly the properties of its contract; each has to have a column whose values
fit it, so that a mistake shows here and not as a refused event at night.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rowcast.contracts.checking import pointer_of
from rowcast.contracts.contract import Contract
from rowcast.sources.catalogue import Catalogue, Table
from rowcast.sources.column_type import id_family
from rowcast.sources.definition import (
    AggregateDefinition,
    ColumnDefinition,
    ParentDefinition,
    SourceDefinition,
    TableDefinition,
)
from rowcast.sources.document import DocumentError, Fault
from rowcast.sources.property_fit import misfits, nearest
from rowcast.sources.source_file import AggregateEntry, SourceFile


def compile_definition(source: SourceFile, contracts: Mapping[str, Contract], catalogue: Catalogue) -> SourceDefinition:
    """
    The definition of *source*; *contracts* holds one for each aggregate name. Aggregates stand parents first.

    Raises:
        DocumentError: file, contracts and catalogue do not fit together; every fault names field and fix.

    """
    faults: list[Fault] = []
    for entry in source.aggregates:
        table = catalogue.tables.get(entry.table)
        if table is None:
            message = f"{entry.table} does not exist in database {catalogue.database!r}"
            faults.append(source.fault(f"aggregates.{entry.name}.table", message))
        else:
            faults.extend(_aggregate_faults(source, entry, contracts[entry.name], table))
            faults.extend(_parent_faults(source, entry, catalogue))
    if faults:
        raise DocumentError(source.path, faults)
    entries = _parents_first(source.aggregates)
    return SourceDefinition(
        source=source.source,
        domain=source.domain,
        uri=source.uri,
        partitions=source.partitions,
        replication_factor=source.replication_factor,
        events_window_ms=source.events_window_ms,
        change_log_window_ms=source.change_log_window_ms,
        refused_share_max=source.refused_share_max,
        aggregates=tuple(_aggregate(entry, contracts[entry.name]) for entry in entries),
        tables=tuple(_table(entry, contracts[entry.name], catalogue.tables[entry.table]) for entry in entries),
    )


def _parents_first(entries: tuple[AggregateEntry, ...]) -> list[AggregateEntry]:
    placed: dict[str, AggregateEntry] = {}
    while len(placed) < len(entries):  # ends: the file's reader refuses cycles and unknown parents
        for entry in entries:
            if entry.name not in placed and (entry.parent is None or entry.parent.aggregate in placed):
                placed[entry.name] = entry
    return list(placed.values())


def _columns_of(entry: AggregateEntry, contract: Contract) -> dict[str, str]:
    return {name: entry.fields.get(name, name) for name in contract.properties}


def _aggregate(entry: AggregateEntry, contract: Contract) -> AggregateDefinition:
    parent = entry.parent
    return AggregateDefinition(
        name=entry.name,
        table=entry.table,
        id=entry.id,
        parent=ParentDefinition(aggregate=parent.aggregate, columns=parent.columns) if parent else None,
        fields=_columns_of(entry, contract),
        major=contract.major,
        minor=contract.minor,
        entity_schema=contract.entity,
        value_schema=contract.value_schema(),
        dataschema=contract.dataschema,
    )


def _table(entry: AggregateEntry, contract: Contract, table: Table) -> TableDefinition:
    # What nothing names is not captured at all: it stays out of the change log, not only out of the events.
    needed = {*table.key, *(entry.parent.columns if entry.parent else ()), *_columns_of(entry, contract).values()}
    return TableDefinition(
        name=table.name,
        columns=tuple(
            ColumnDefinition(name=column.name, type=column.type, nullable=column.nullable)
            for column in table.columns
            if column.name in needed
        ),
        key=table.key,
        replica_identity=table.replica_identity,
    )


def _aggregate_faults(source: SourceFile, entry: AggregateEntry, contract: Contract, table: Table) -> Iterator[Fault]:
    at = f"aggregates.{entry.name}"
    if "ancestors" in contract.properties:
        yield source.fault(f"{at}.contract", f"{contract.path}: a property cannot be called 'ancestors'")
    hierarchy = _hierarchy(source, entry)
    if contract.ancestors != hierarchy:
        message = f"{contract.path} declares x-ancestors {list(contract.ancestors)}, this file {list(hierarchy)}"
        yield source.fault(f"{at}.parent", message, "the same hierarchy in both, nearest ancestor first")
    if entry.id != table.key:
        message = f"{list(entry.id)} is not the primary key of {table.name}"
        yield source.fault(f"{at}.id", message, ", ".join(table.key))
    for column_name in table.key:
        column = table.column(column_name)
        if column and entry.id == table.key and id_family(column) is None:
            message = f"column {column_name!r} of type {column.type} has no one text form that could be an id"
            yield source.fault(f"{at}.id", message, "integer, text, varchar, uuid, date or enum columns")
    for name in entry.fields:
        if name not in contract.properties:
            message = f"{contract.path} has no property {name!r}"
            yield source.fault(f"{at}.fields.{name}", message, ", ".join(contract.properties))
    for name, column_name in _columns_of(entry, contract).items():
        yield from _property_faults(source, entry, contract, (name, column_name), table)


def _property_faults(
    source: SourceFile, entry: AggregateEntry, contract: Contract, names: tuple[str, str], table: Table
) -> Iterator[Fault]:
    name, column_name = names
    for message, accepted in misfits(contract, name, column_name, table):
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


def _parent_faults(source: SourceFile, entry: AggregateEntry, catalogue: Catalogue) -> Iterator[Fault]:
    if entry.parent is None:
        return
    parent = next(each for each in source.aggregates if each.name == entry.parent.aggregate)
    at, parent_table = f"aggregates.{entry.name}.parent.column", catalogue.tables.get(parent.table)
    table = catalogue.tables[entry.table]
    for name, parent_name in zip(entry.parent.columns, parent.id, strict=True):
        column = table.column(name)
        if column is None:
            yield source.fault(at, f"{table.name} has no column {name!r}", nearest(name, table))
            continue
        parent_column = parent_table.column(parent_name) if parent_table else None
        if parent_column is not None and id_family(column) != id_family(parent_column):
            message = f"{table.name}.{name} is {column.type}, {parent.table}.{parent_name} is {parent_column.type}"
            yield source.fault(at, message, "a column of the same type, so that both give one id text")
