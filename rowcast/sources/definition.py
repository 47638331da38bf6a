"""
The applied definition of a source: what `rowcast sources apply` stores and every worker reads.

It is the source file, its contracts and the database's catalogue compiled into one JSON document, kept in
the control database. Workers need no project folder: they run exactly what was applied, and *revision*
says which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from rowcast.contracts.personal_data import Handling
from rowcast.deprecation import Deprecation
from rowcast.errors import ConfigurationError
from rowcast.sources.embedding import EmbeddedDefinition, embedded_of
from rowcast.sources.field import ConditionDefinition, FieldDefinition, conditions_of, field_of
from rowcast.sources.tenant import is_pattern
from rowcast.topics import change_log_topic, domain_topic

FORMAT = 4
# What a worker that knows no tenants must not take for tables of the database.
FORMAT_OF_TENANTS = 5
_FORMATS = frozenset({1, 2, 3, FORMAT, FORMAT_OF_TENANTS})  # what a later one has more, an earlier one goes without


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDefinition:
    """A column as the catalogue has it; *type* is PostgreSQL's ``format_type`` (``timestamp with time zone``)."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDefinition:
    """
    A captured table, ``schema.table``; *key* names the primary key columns in order.

    *narrow*: personal data of other columns is dropped, so the database shall not even publish them.
    """

    name: str
    columns: tuple[ColumnDefinition, ...]
    key: tuple[str, ...]
    replica_identity: str
    narrow: bool = False

    @property
    def captured(self) -> frozenset[str]:
        """The names of its captured columns."""
        return frozenset(column.name for column in self.columns)

    @property
    def published_columns(self) -> frozenset[str] | None:
        """The columns that the database has to publish; None: all of the table's."""
        return self.captured if self.narrow else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughDefinition:
    """A link *table*, each row of which binds an aggregate with one parent; *columns* hold the aggregate's key."""

    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentDefinition:
    """
    The link to the parent aggregate: *columns*, or places in documents, hold the parent's id, in the order of the
    parent's id. They are those of the root row, or with *through* of any number of rows of a link table.
    """

    aggregate: str
    columns: tuple[str, ...]
    through: ThroughDefinition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedEventDefinition:
    """An event that services state; *value_schema* is derived from both contracts and named by *dataschema*."""

    name: str
    value_schema: Mapping[str, Any]
    dataschema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerMajor:
    """
    An older major of an aggregate that goes out too: *function* makes its entity from that of the newest major.

    *value_schema*, *dataschema* and *events* are what they are of `AggregateDefinition`, in this major. *deprecation*
    says when it ends.
    """

    major: int
    minor: int
    function: str
    value_schema: Mapping[str, Any]
    dataschema: str
    events: tuple[StatedEventDefinition, ...] = ()
    deprecation: Deprecation | None = None

    @property
    def entity_schema(self) -> Mapping[str, Any]:
        """What the value schema says of the entity."""
        after: Mapping[str, Any] = self.value_schema.get("properties", {}).get("after", {})
        return {**after, "$defs": self.value_schema.get("$defs", {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateDefinition:
    """
    One aggregate type: its root *table*, *id*, *parent*, *fields*, and which rows count: those that fulfil *where*
    and have nothing, or false, at *soft_delete*. Rows of the tables in *embedded* are published inside the entity.

    Id and parent are places: columns or JSON Pointers into their documents, see `rowcast.sources.place`.

    *value_schema* is derived from *entity_schema* by the published rule and named by *dataschema*. *former* are the
    other majors that are live, the newest first.

    *handlings* says what is done with which class of personal data, in all majors. *dropped* has the declared fields
    that are never published; where the contract demands one, *fields* has null for it.
    """

    name: str
    table: str
    id: tuple[str, ...]
    parent: ParentDefinition | None
    fields: Mapping[str, FieldDefinition]
    major: int
    minor: int
    entity_schema: Mapping[str, Any]
    value_schema: Mapping[str, Any]
    dataschema: str
    where: tuple[ConditionDefinition, ...] = ()
    soft_delete: str = ""
    embedded: tuple[EmbeddedDefinition, ...] = ()
    events: tuple[StatedEventDefinition, ...] = ()
    handlings: Mapping[str, Handling] = field(default_factory=dict)
    dropped: Mapping[str, FieldDefinition] = field(default_factory=dict)
    former: tuple[FormerMajor, ...] = ()
    deprecation: Deprecation | None = None

    def embeddings(self) -> Iterator[tuple[tuple[str, ...], EmbeddedDefinition]]:
        """All embedded tables at any level, each below the one that it is embedded in, with its path of properties."""
        for each in self.embedded:
            yield from each.with_below()

    @property
    def tied(self) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
        """How the rows of embedded tables are tied to those above: each table with its path and columns."""
        return tuple((each.table, path, each.columns) for path, each in self.embeddings())

    @property
    def majors(self) -> tuple[int, ...]:
        """The live majors, the newest first: every version goes out in all of them."""
        return (self.major, *(each.major for each in self.former))

    def is_covered(self, majors: tuple[int, ...]) -> bool:
        """
        Whether readers of all live majors know what went out in *majors*, the newest first.

        The newest has to be the same, because what is kept of the latest version has its form.
        """
        return majors[0] == self.major and set(self.majors) <= set(majors)

    @property
    def places(self) -> tuple[str, ...]:
        """Every place of a root row that is read."""
        return (
            *self.id,
            *(self.parent.columns if self.parent and not self.parent.through else ()),
            *(place for each in self.fields.values() for place in each.places),
            *(each.place for each in self.where),
            *((self.soft_delete,) if self.soft_delete else ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceDefinition:
    """A small table that values are looked up in: *value* is the place of what a row with that *key* stands for."""

    name: str
    table: str
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDefinition:
    """
    Everything a worker has to know about a source. *aggregates* stand parents first.

    *uri* becomes ``ce_source``; *partitions* is the number of partitions of each domain topic;
    *events_window_ms* how long every event stays readable; *refused_share_max* the share of an
    interval's events above which refusals stop the source; *functions* the text of the module with the functions
    that fields name. *hash_key_id* tells the key of hashed fields from others, and no more; empty when there is none.
    """

    source: str
    domain: str
    uri: str
    partitions: int
    replication_factor: int
    events_window_ms: int
    change_log_window_ms: int
    refused_share_max: float
    aggregates: tuple[AggregateDefinition, ...]
    tables: tuple[TableDefinition, ...]
    functions: str = ""
    references: tuple[ReferenceDefinition, ...] = ()
    hash_key_id: str = ""

    @property
    def change_log(self) -> str:
        """The topic that the connector writes."""
        return change_log_topic(self.source)

    def topic(self, aggregate: AggregateDefinition) -> str:
        """The domain topic of *aggregate* in its newest major."""
        return domain_topic(self.domain, aggregate.name, aggregate.major)

    @property
    def topics(self) -> tuple[str, ...]:
        """The domain topics of all aggregates, in all live majors."""
        return tuple(domain_topic(self.domain, each.name, major) for each in self.aggregates for major in each.majors)

    @property
    def deprecations(self) -> dict[str, Deprecation]:
        """The live topics whose major ends, and when."""
        ends = [(each.name, each.major, each.deprecation) for each in self.aggregates]
        ends += [(each.name, older.major, older.deprecation) for each in self.aggregates for older in each.former]
        return {domain_topic(self.domain, name, major): end for name, major, end in ends if end is not None}

    def ancestor_types(self, aggregate: AggregateDefinition) -> tuple[str, ...]:
        """The types up the declared hierarchy, nearest first."""
        by_name = {each.name: each for each in self.aggregates}
        types: list[str] = []
        while aggregate.parent is not None:
            aggregate = by_name[aggregate.parent.aggregate]
            types.append(aggregate.name)
        return tuple(types)

    def to_json(self) -> bytes:
        """The canonical document: equal definitions give equal bytes."""
        of_tenants = any(is_pattern(table.name) for table in self.tables)
        document = {"format": FORMAT_OF_TENANTS if of_tenants else FORMAT, **asdict(self)}
        for entry in document["aggregates"]:
            # Absent where there is none, so that definitions that were stored before keep their bytes.
            for name in ("former", "deprecation"):
                if not entry[name]:
                    del entry[name]
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    @property
    def revision(self) -> str:
        """SHA-256 of the canonical document, 64 hex digits."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @classmethod
    def from_json(cls, document: bytes | str) -> SourceDefinition:
        """
        The definition that *document* holds.

        Raises:
            ConfigurationError: it was written by a newer Rowcast.
        """
        data = orjson.loads(document)
        if data.pop("format") not in _FORMATS:
            raise ConfigurationError(
                "the applied definition has an unknown format", where=str(data.get("source")), fix="upgrade this worker"
            )
        data["aggregates"] = tuple(_aggregate(entry) for entry in data["aggregates"])
        data["tables"] = tuple(_table(entry) for entry in data["tables"])
        data["references"] = tuple(ReferenceDefinition(**entry) for entry in data.get("references", ()))
        return cls(**data)


def _aggregate(entry: dict[str, Any]) -> AggregateDefinition:
    parent = entry["parent"]
    return AggregateDefinition(
        **{
            **entry,
            "id": tuple(entry["id"]),
            "parent": parent and _parent(parent),
            "fields": {name: field_of(each) for name, each in entry["fields"].items()},
            "where": conditions_of(entry.get("where", ())),
            "embedded": tuple(embedded_of(each) for each in entry.get("embedded", ())),
            "events": _stated_events(entry),
            "handlings": {name: Handling(each) for name, each in entry.get("handlings", {}).items()},
            "dropped": {name: field_of(each) for name, each in entry.get("dropped", {}).items()},
            "former": tuple(
                FormerMajor(**{**each, "events": _stated_events(each), "deprecation": _deprecation(each)})
                for each in entry.get("former", ())
            ),
            "deprecation": _deprecation(entry),
        }
    )


def _parent(entry: dict[str, Any]) -> ParentDefinition:
    through = entry.get("through")
    return ParentDefinition(
        aggregate=entry["aggregate"],
        columns=tuple(entry["columns"]),
        through=through and ThroughDefinition(table=through["table"], columns=tuple(through["columns"])),
    )


def _stated_events(entry: Mapping[str, Any]) -> tuple[StatedEventDefinition, ...]:
    return tuple(StatedEventDefinition(**each) for each in entry.get("events", ()))


def _deprecation(entry: Mapping[str, Any]) -> Deprecation | None:
    declared = entry.get("deprecation")
    return Deprecation(**declared) if declared else None


def _table(entry: dict[str, Any]) -> TableDefinition:
    columns = tuple(ColumnDefinition(**column) for column in entry["columns"])
    return TableDefinition(**{**entry, "columns": columns, "key": tuple(entry["key"])})
