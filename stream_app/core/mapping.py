"""
From rows to entities: the declared mapping of each aggregate type of a source, compiled.

An aggregate publishes exactly the fields of its contract.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rowcast.contracts.personal_data import Digest
from rowcast.errors import ConfigurationError, MappingError, StopError
from rowcast.event import EventForm
from rowcast.hash_key import HashKey
from rowcast.identity import join_id_parts, with_tenant
from rowcast.sources.definition import (
    AggregateDefinition,
    SourceDefinition,
    StatedEventDefinition,
    TableDefinition,
)
from rowcast.sources.function_module import load_functions
from rowcast.sources.place import parse_place
from rowcast.sources.shielded_column import root_rules
from rowcast.sources.tenant import TENANT_COLUMN, TableNames, is_pattern
from stream_app.core.change import Columns
from stream_app.core.column import id_part
from stream_app.core.embedding import EmbeddedMapping, LinkMapping, compile_embedded, compile_link
from stream_app.core.field import Condition, condition
from stream_app.core.form import StatedForm, Validator, event_form, stated_forms
from stream_app.core.former_value import Former, former_reader
from stream_app.core.image import Image, Reader, kind_of, place_reader
from stream_app.core.older import OlderMajor, older_majors
from stream_app.core.reference import ReferenceTable, compile_references
from stream_app.core.row import Makers, RowMapping, row_parts
from stream_app.core.row_id import IdReader, id_reader
from stream_app.core.shield import Shield, digest_with, shield_of

_ID_TEXT_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateMapping(RowMapping):
    """
    One aggregate type, ready to use; the rows are those of its root table. *rank* is its place in the order parents
    first; *ancestor_types* the types up the hierarchy, nearest first. *holding* says how a row is tied to its aggregate
    where that is not its primary key, see `stream_app.core.holding`. *embedded* has the tables whose rows stand inside
    the entity, see `stream_app.core.embedding`; *link* the table that binds it with any number of parents. *linked*
    says for this type and for each that stands above it but the last whether it has one; empty where none has. *stated*
    has the events that services state, by name. *former* treats what was published before as today's rules for personal
    data have it. *older* are the other majors that are live. *pointing* has the type of the parent and what reads its
    id, where columns of the root row name it.
    """

    name: str
    source: str
    definition: AggregateDefinition
    topic: str
    rank: int
    ancestor_types: tuple[str, ...]
    child_types: tuple[str, ...]
    validate: Validator
    form: EventForm
    holding: Holding | None = None
    embedded: tuple[EmbeddedMapping, ...] = ()
    link: LinkMapping | None = None
    linked: tuple[bool, ...] = ()
    stated: Mapping[str, StatedForm] = dataclasses.field(default_factory=dict)
    former: Former | None = None
    older: tuple[OlderMajor, ...] = ()
    pointing: tuple[str, IdReader] | None = None

    @property
    def parent_type(self) -> str | None:
        """The aggregate type of the parents, if it has one."""
        return self.ancestor_types[0] if self.ancestor_types else None

    def parent_id_text(self, columns: Columns) -> str | None:
        """
        The id text of the parent that the row points at; None without parent.

        Raises:
            MappingError: it cannot be told.

        """
        if self.pointing is not None:
            return self.pointing[1](columns)
        if self.holding is None or self.link is not None:
            return None
        return self.holding.parent_id_text(self.image(columns))

    def _made(self, columns: Columns) -> dict[str, Any]:
        if self.holding is not None:
            image = self.image(columns)
            # Of which it cannot be told whether it counts, or which aggregate it is, has no entity either.
            self.holding.counts(image)
            self.holding.id_text(image)
        return RowMapping._made(self, columns)


@dataclass(frozen=True, slots=True)
class Holding:
    """
    How a row names its aggregate and the parent of that: by *id* and *parent*, readers of places in the row.

    Rows that do not fulfil *condition* name none. *of_tenants*: each is of one, and so is what it names.
    """

    id: tuple[tuple[str, Reader], ...]
    parent: tuple[tuple[str, Reader], ...]
    condition: Condition | None
    of_tenants: bool = False

    def counts(self, image: Image) -> bool:
        """
        Whether the row stands for an aggregate at all.

        Raises:
            MappingError: it cannot be told.

        """
        return self.condition is None or self.condition(image)

    def id_text(self, image: Image) -> str:
        """
        The id text of the aggregate that the row stands for.

        Raises:
            MappingError: the row has none.

        """
        text = _id_text(image, self.id, of_tenants=self.of_tenants)
        if text is None:
            raise MappingError(f"{' or '.join(place for place, _ in self.id)} is null or missing; it is the id")
        return text

    def parent_id_text(self, image: Image) -> str | None:
        """
        The id text of the parent; None when the row names none.

        Raises:
            MappingError: it cannot be told.

        """
        return _id_text(image, self.parent, of_tenants=self.of_tenants) if self.parent else None


def _id_text(image: Image, readers: tuple[tuple[str, Reader], ...], *, of_tenants: bool) -> str | None:
    parts = []
    for place, read in readers:
        value = read(image)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise MappingError(f"{place} is {kind_of(value)}; an id is a string or a whole number")
        parts.append(id_part(value))
    text = join_id_parts(parts)
    if len(text) > _ID_TEXT_MAX:
        raise MappingError(f"{' and '.join(place for place, _ in readers)}: the id has more than {_ID_TEXT_MAX} bytes")
    return with_tenant(image.value(TENANT_COLUMN), text) if of_tenants else text


@dataclass(frozen=True, slots=True)
class SourceMapping:
    """
    All aggregate types of a source, by type and by root table, parents first.

    *held* are the types whose rows are not tied to their aggregates by primary key. *references* has the reference
    tables by table: their rows are state, filled by whoever works on the source. *embedded_tables* has the embedded
    tables by table, each behind the one that it is embedded in, *embedded* the same by name. *tables* has the table of
    each type, embedded table and reference table by its name in row state. *ranks* are the types' places in the order
    parents first, *above* the types that are parents. *tenant_tables* finds declared tables by those of tenants; None
    where no table is of tenants.
    """

    definition: SourceDefinition
    by_type: Mapping[str, AggregateMapping]
    by_table: Mapping[str, AggregateMapping]
    by_rank: tuple[AggregateMapping, ...]
    held: frozenset[str] = frozenset()
    references: Mapping[str, ReferenceTable] = dataclasses.field(default_factory=dict)
    embedded_tables: Mapping[str, EmbeddedMapping] = dataclasses.field(default_factory=dict)
    embedded: Mapping[str, EmbeddedMapping] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shield: Shield | None = None
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    above: frozenset[str] = frozenset()
    tenant_tables: TableNames | None = None

    @property
    def of_aggregates(self) -> tuple[AggregateMapping | EmbeddedMapping, ...]:
        """The tables whose rows aggregates are made of: roots parents first, then what is embedded, from above."""
        return (*self.by_rank, *self.embedded.values())

    def rows_of(self, name: str) -> AggregateMapping | EmbeddedMapping:
        """What row state calls *name*: the rows of an aggregate type's root table, or of an embedded one."""
        return self.by_type.get(name) or self.embedded[name]

    def is_of_one_row(self, name: str) -> bool:
        """Whether a row that row state calls *name* is all that its aggregate is made of."""
        if name in self.held or name in self.embedded:
            return False
        mapping = self.by_type[name]
        return not mapping.embedded and mapping.link is None


def compile_mapping(
    definition: SourceDefinition, validators: Mapping[str, Validator], hash_key: HashKey | None = None
) -> SourceMapping:
    """
    Compile *definition*; *validators* holds one for each aggregate type, and as `<type>.<event>` for each stated event;
    for each older major, and each stated event there, by dataschema. *hash_key* is that of hashed fields.

    Raises:
        StopError: the functions of the definition cannot be loaded here, or the key is not that of the definition.

    """
    if definition.hash_key_id and (hash_key is None or hash_key.id != definition.hash_key_id):
        raise StopError(
            "HASH_KEY_WRONG",
            "the worker has no key for hashed fields" if hash_key is None else "the worker's hash key is another one",
            remedy="give every worker the ROWCAST_HASH_KEY, or hash_key of rowcast.toml, with which it was applied",
        )
    digest = digest_with(hash_key.secret if hash_key else b"")
    try:
        functions = load_functions(definition.functions, definition.source)
    except ConfigurationError as error:
        raise StopError(
            "FUNCTIONS_UNUSABLE", str(error), remedy="install on the worker's machine what the module imports"
        ) from error
    references = compile_references(definition)
    made_with = Makers(functions, {each.definition.name: each for each in references.values()})
    mappings = tuple(
        _compile(definition, rank, (validators, digest), made_with) for rank in range(len(definition.aggregates))
    )
    embedded = {each.table: each for mapping in mappings for top in mapping.embedded for each in top.with_below()}
    links = [each.link for each in mappings if each.link is not None]
    embedded.update((each.table, each) for each in links)
    return SourceMapping(
        definition,
        {each.name: each for each in mappings},
        {each.table: each for each in mappings},
        mappings,
        frozenset(each.name for each in mappings if each.holding is not None),
        references,
        embedded,
        {each.name: each for each in embedded.values()},
        {
            **{each.name: each.table for each in mappings},
            **{each.name: table for table, each in references.items()},
            **{each.name: table for table, each in embedded.items()},
            **{each.index: f"{each.table}#{each.index}" for each in links},  # no table of PostgreSQL's
        },
        shield_of({each.table: each.shielded for each in (*mappings, *embedded.values())}, digest),
        {each.name: each.rank for each in mappings},
        frozenset(each.name for each in mappings if each.child_types),
        names if (names := TableNames(table.name for table in definition.tables)).has_patterns else None,
    )


def _compile(
    definition: SourceDefinition, rank: int, made_by: tuple[Mapping[str, Validator], Digest], made_with: Makers
) -> AggregateMapping:
    aggregate, rules = definition.aggregates[rank], root_rules(definition.aggregates[rank])
    validators, digest = made_by
    form = event_form(definition, aggregate.name, aggregate)

    def validator(event: StatedEventDefinition) -> Validator:
        return validators[f"{aggregate.name}.{event.name}"]

    tables = {table.name: table for table in definition.tables}
    table = tables[aggregate.table]
    holding = _holding(aggregate, table)
    link, parent = compile_link(aggregate, tables, made_with), aggregate.parent
    row = row_parts(table, aggregate.places, rules, made_with, plain=holding is None)
    return AggregateMapping(
        **{**row, "deep": row["deep"] or bool(aggregate.embedded)},
        name=aggregate.name,
        source=definition.source,
        definition=aggregate,
        topic=definition.topic(aggregate),
        rank=rank,
        ancestor_types=definition.ancestor_types(aggregate),
        child_types=tuple(
            each.name for each in definition.aggregates if each.parent and each.parent.aggregate == aggregate.name
        ),
        validate=validators[aggregate.name],
        form=form,
        former=former_reader(aggregate, digest),
        holding=holding,
        embedded=compile_embedded(aggregate, tables, made_with),
        link=link,
        linked=_linked(definition, aggregate),
        stated=stated_forms(form, aggregate.events, validator),
        older=older_majors(definition, aggregate, made_with.functions, validators, digest),
        pointing=None
        if parent is None or holding or link
        else (parent.aggregate, id_reader(table.name, parent.columns, row["converters"])),
    )


def _linked(definition: SourceDefinition, aggregate: AggregateDefinition) -> tuple[bool, ...]:
    by_name = {each.name: each for each in definition.aggregates}
    chain = [aggregate, *(by_name[name] for name in definition.ancestor_types(aggregate))]
    linked = tuple(each.parent is not None and each.parent.through is not None for each in chain[:-1])
    return linked if any(linked) else ()


def _holding(aggregate: AggregateDefinition, table: TableDefinition) -> Holding | None:
    """None where all rows count, by their primary key, and columns hold the parent's id: nothing is looked up then."""
    parent = aggregate.parent.columns if aggregate.parent else ()
    counts = condition(aggregate.where, aggregate.soft_delete)
    if counts is None and aggregate.id == table.key and all(parse_place(each).path is None for each in parent):
        return None
    return Holding(
        tuple((place, place_reader(place)) for place in aggregate.id),
        tuple((place, place_reader(place)) for place in parent),
        counts,
        is_pattern(table.name),
    )
